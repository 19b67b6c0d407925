"""What a user says of a network that is imported: how images become its input, and what its outputs mean."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from search_spaces.datasets import MOST_LETTERS, is_class_name
from search_spaces.network import InputContract, Interpolation
from search_spaces.spec import Family, NetworkSpec, Side

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_CLASSES = 100_000


class ImportSettings(BaseModel):
    """Settings of an import. What is left out is read from the file, or is what is usual.

    Attributes:
        input: (channels, height, width), for a file that leaves them open.
        mean, std: per channel, of pixel values in [0, 1]; by default those of ImageNet for three channels, 0.5 and
            0.5 for others.
        resize: pixels of the shorter side before the middle is cut out; by default no more than covers the input.
        class_names: in the order of the outputs.
        family, width, stem_stride: of a catalog network, when the file holds only its weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: tuple[Side, Side, Side] | None = None
    mean: tuple[FiniteFloat, ...] | None = Field(default=None, max_length=16)
    std: tuple[FiniteFloat, ...] | None = Field(default=None, max_length=16)
    resize: int = Field(default=0, ge=0, le=8192)
    interpolation: Interpolation = Interpolation.BILINEAR
    class_names: tuple[str, ...] = Field(default=(), max_length=MOST_CLASSES)
    family: Family | None = None
    width: FiniteFloat = Field(default=1.0, gt=0.0, le=4.0)
    stem_stride: int | None = Field(default=None, ge=1, le=2)

    @model_validator(mode="after")
    def _is_consistent(self) -> ImportSettings:
        if self.std is not None and min(self.std, default=1.0) <= 0:
            raise ValueError("each std must be greater than 0")
        if self.family is not None and self.input is None:
            raise ValueError("give `input` for a catalog network: channels, height and width")
        if self.family is None and (self.width, self.stem_stride) != (1.0, None):
            raise ValueError("`width` and `stem_stride` are of a catalog network: give `family`, or leave them out")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("each class needs a name of its own")
        unfit = next((name for name in self.class_names if not is_class_name(name)), None)
        if unfit is not None:
            raise ValueError(f"the class {unfit[:MOST_LETTERS]!r} has no printable name of 1 to {MOST_LETTERS} letters")
        return self

    def network_spec(self) -> NetworkSpec:
        """The catalog network that the weights are of."""
        assert self.family is not None
        assert self.input is not None
        return NetworkSpec.model_validate(
            {"family": self.family, "width": self.width, "input": self.input, "stem_stride": self.stem_stride}
        )

    def contract(self, shape: tuple[int, int, int]) -> InputContract:
        """How an image becomes an input of this shape.

        Raises:
            ValueError: mean or std has another number of channels.
        """
        usual = (IMAGENET_MEAN, IMAGENET_STD) if shape[0] == 3 else ((0.5,) * shape[0], (0.5,) * shape[0])
        mean, std = self.mean or usual[0], self.std or usual[1]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != shape[0]:
                raise ValueError(f"{name} has {len(values)} values for an input of {shape[0]} channels")
        return InputContract(shape, tuple(mean), tuple(std), self.resize, self.interpolation)
