"""The Spec: what a user submits. Parsed once, at the edge; everything inside trusts it.

This module says what is well-formed. Whether a well-formed spec makes sense for a network, a data set
and a device is decided in `search_spaces.check`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag, model_validator

from search_spaces.objectives import DEVICE_METRICS, Direction, Metric

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")]
Glob = Annotated[str, Field(min_length=1, max_length=200)]


Globs = Annotated[tuple[Glob, ...], Field(max_length=64)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Family(StrEnum):
    EFFICIENTNET_LITE0 = "efficientnet_lite0"
    INCEPTION_V3 = "inception_v3"
    MOBILENET_V1 = "mobilenet_v1"
    MOBILENET_V2 = "mobilenet_v2"
    MOBILENET_V3_SMALL = "mobilenet_v3_small"
    RESNET_18 = "resnet_18"
    RESNET_50 = "resnet_50"
    RESNET_56 = "resnet_56"
    RESNEXT_50 = "resnext_50"
    SHUFFLENET_V2 = "shufflenet_v2"
    VGG_13 = "vgg_13"


Side = Annotated[int, Field(ge=1, le=1024)]


class NetworkSpec(_Part):
    """A catalog network. `input` is (channels, height, width); the class count comes from the data set."""

    family: Family
    width: FiniteFloat = Field(default=1.0, gt=0.0, le=4.0)
    input: tuple[Side, Side, Side]
    stem_stride: Literal[1, 2] | None = Field(default=None, description="default: the family's own")

    @property
    def title(self) -> str:
        return str(self.family)


class OwnNetworkSpec(_Part):
    """A network that a user has imported under a name. It brings everything else itself."""

    name: Name

    @property
    def title(self) -> str:
        return self.name


CATALOG_TAG, OWN_TAG = "catalog network", "imported network"


def _kind_of_network(value: Any) -> str:
    is_own = "name" in value if isinstance(value, dict) else isinstance(value, OwnNetworkSpec)
    return OWN_TAG if is_own else CATALOG_TAG


AnyNetworkSpec = Annotated[
    Annotated[NetworkSpec, Tag(CATALOG_TAG)] | Annotated[OwnNetworkSpec, Tag(OWN_TAG)], Discriminator(_kind_of_network)
]


class DatasetSpec(_Part):
    name: Name


class RatioRange(_Part):
    """Pruning ratios low, low + step, ..., high. Ratios that round to one channel count are one choice."""

    low: FiniteFloat = Field(default=0.0, ge=0.0, lt=1.0)
    high: FiniteFloat = Field(ge=0.0, lt=1.0)
    step: FiniteFloat = Field(default=0.1, gt=0.0, le=1.0)
    layers: Globs = ("*",)
    exclude: Globs = ()

    @model_validator(mode="after")
    def _ordered(self) -> RatioRange:
        if self.high < self.low:
            raise ValueError("high must be at least low")
        if (self.high - self.low) / self.step > 1000:
            raise ValueError("step makes more than 1,000 ratios; make it larger")
        return self


class PrecisionChoices(_Part):
    choices: tuple[str, ...] = Field(min_length=1, max_length=64)
    scope: Literal["block", "layer"] = "block"
    layers: Globs = ("*",)
    exclude: Globs = ()


class BitChoices(_Part):
    choices: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(min_length=1, max_length=32)
    layers: Globs = ("*",)
    exclude: Globs = ()


class GroupSizeChoices(_Part):
    """G, channels per group, of depthwise layers. G = 1 is depthwise; larger G mixes channels (E2GC)."""

    choices: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(min_length=1, max_length=32)
    layers: Globs = ("*",)
    exclude: Globs = ()


class MethodChoices(_Part):
    """Methods, one of which each design is made by; the uniform baseline by the first."""

    choices: tuple[Name, ...] = Field(min_length=1, max_length=32)


class SpaceSpec(_Part):
    prune_ratio: RatioRange | None = None
    precision: PrecisionChoices | None = None
    weight_bits: BitChoices | None = None
    activation_bits: BitChoices | None = None
    group_size: GroupSizeChoices | None = None
    importance: MethodChoices | None = None
    calibration: MethodChoices | None = None


MetricName = Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z0-9_]*$")]
"""One of `Metric`, or of a score that is installed; which there are is checked later."""


class ObjectiveSpec(_Part):
    metric: MetricName
    direction: Direction
    device: Name | None = None

    @model_validator(mode="after")
    def _device_where_needed(self) -> ObjectiveSpec:
        if self.metric in DEVICE_METRICS and self.device is None:
            raise ValueError(f"{self.metric} needs `device`: the name of the device that tells it")
        return self


class LimitSpec(_Part):
    metric: MetricName
    max: FiniteFloat | None = None
    min: FiniteFloat | None = None
    device: Name | None = None

    @model_validator(mode="after")
    def _bounded(self) -> LimitSpec:
        if (self.max is None) == (self.min is None):
            raise ValueError("give exactly one of `max` and `min`")
        if self.metric in DEVICE_METRICS and self.device is None:
            raise ValueError(f"{self.metric} needs `device`: the name of the device that tells it")
        return self


class SamplerName(StrEnum):
    """The samplers that come with Espalier; others may be installed."""

    UNIFORM = "uniform"
    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"
    NSGA2 = "nsga2"


class SamplerSpec(_Part):
    name: Name = str(SamplerName.NSGA2)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    population: int | None = Field(default=None, ge=2, le=1000, description="nsga2 only; default fits the budget")
    seed_uniform: bool = Field(default=True, description="tell the sampler the uniform baseline first")


class Reconstruct(StrEnum):
    NONE = "none"
    BATCH_NORM = "batch_norm"
    LEAST_SQUARES = "least_squares"


class ImportanceName(StrEnum):
    """The importances that come with Espalier; others may be installed."""

    L1 = "l1"
    L2 = "l2"
    FILTER_L2 = "filter_l2"
    LOSS = "loss"
    BIASED_LOSS = "biased_loss"
    GRASP = "grasp"
    GRADIENT_NORM = "gradient_norm"
    BATCH_NORM_SCALE = "batch_norm_scale"
    RANDOM = "random"


GRADIENT_IMPORTANCES = frozenset(
    {ImportanceName.LOSS, ImportanceName.BIASED_LOSS, ImportanceName.GRASP, ImportanceName.GRADIENT_NORM}
)
"""Those that need the loss's gradient, which nothing that is kept as it is lets through."""


class Calibration(StrEnum):
    """How the range of an activation is told from the values seen, and the end of a grid from a channel's weights."""

    MIN_MAX = "min_max"
    PERCENTILE = "percentile"  # the 0.1% and 99.9% quantiles of a sample of positions
    MSE = "mse"  # the range of the least squared error
    KL = "kl"  # the range that keeps most of the distribution; weights reach their peak


class FinalistsSpec(_Part):
    """What is done to the best designs, and to the best uniform ones, before they are scored on `confirm`."""

    top: int = Field(default=5, ge=0, le=100)
    finetune_epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)
    learning_rate: FiniteFloat = Field(default=0.01, gt=0.0, le=10.0)


class Measure(StrEnum):
    """When a device is asked that has a cost model."""

    WHERE_IT_MATTERS = "where_it_matters"  # near a limit, on the front, and one trial in ten
    ALWAYS = "always"


class EvaluationSpec(_Part):
    reconstruct: Reconstruct = Reconstruct.LEAST_SQUARES
    importance: Name = str(ImportanceName.L1)
    calibration: Calibration = Calibration.MIN_MAX
    bias_correction: bool = False
    calibration_images: int | None = Field(default=None, ge=16, le=10_000, description="default: 500, or all there are")
    score_images: int | None = Field(default=None, ge=16, le=100_000, description="default: 2,000, or all there are")
    finetune_epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)
    learning_rate: FiniteFloat = Field(default=0.01, gt=0.0, le=10.0)
    finalists: FinalistsSpec = FinalistsSpec()
    measure: Measure = Measure.WHERE_IT_MATTERS

    @property
    def most_calibration_images(self) -> int:
        """As many are used, or all that there are."""
        return self.calibration_images or USUAL_CALIBRATION_IMAGES

    @property
    def most_score_images(self) -> int:
        """As many are used, or all that there are."""
        return self.score_images or USUAL_SCORE_IMAGES


USUAL_CALIBRATION_IMAGES, USUAL_SCORE_IMAGES = 500, 2000


class BudgetSpec(_Part):
    trials: int = Field(default=60, ge=1, le=100_000)
    wall_time_s: FiniteFloat | None = Field(default=None, gt=0.0)
    concurrency: int = Field(default=1, ge=1, le=1000)


class SearchSpec(_Part):
    name: Name
    network: AnyNetworkSpec
    dataset: DatasetSpec
    space: SpaceSpec
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1, max_length=4)
    limits: tuple[LimitSpec, ...] = Field(default=(), max_length=16)
    sampler: SamplerSpec = SamplerSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    budget: BudgetSpec = BudgetSpec()

    @model_validator(mode="after")
    def _objectives_differ(self) -> SearchSpec:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) != len(metrics):
            raise ValueError("each objective needs a metric of its own")
        return self

    @property
    def device_metrics(self) -> frozenset[Metric]:
        """What the objectives and limits want to be told by the device."""
        parts: tuple[ObjectiveSpec | LimitSpec, ...] = (*self.objectives, *self.limits)
        return frozenset(Metric(part.metric) for part in parts if part.metric in DEVICE_METRICS)

    @property
    def device(self) -> str | None:
        """The device that the objectives and limits name, if any."""
        parts: tuple[ObjectiveSpec | LimitSpec, ...] = (*self.objectives, *self.limits)
        for part in parts:
            if part.device is not None:
                return part.device
        return None
