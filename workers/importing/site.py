"""One ONNX node being imported: what it says of itself, and what its inputs have become.

Attributes that became inputs in a later opset are read alike from either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.importing.draft import Draft, UnsupportedError
from workers.importing.views import View

Value = View | np.ndarray
"""What an ONNX tensor has become: a view of the network's tensor, or a constant with its batch axis."""


@dataclass(frozen=True)
class Site:
    """A node in its place.

    Attributes:
        op_type: ONNX's name of the operator.
        name: what nodes made for it are called.
        attributes: by name, as Python values.
        inputs: None where an optional input is left out.
        outputs: names; empty where an optional output is left out.
        opset: that the node's meaning is of.
        readers: operators that read the first output.
    """

    draft: Draft
    op_type: str
    name: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Value | None]
    outputs: Sequence[str]
    opset: int
    readers: Sequence[str]

    def view(self, index: int) -> View:
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, View):
            raise UnsupportedError(f"input {index} is a constant")
        return value

    def constant(self, index: int) -> np.ndarray | None:
        """The constant input; None where it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, View):
            raise UnsupportedError(f"input {index} is computed, and has to be a constant here")
        return value

    def required(self, index: int) -> np.ndarray:
        value = self.constant(index)
        if value is None:
            raise UnsupportedError(f"input {index} is missing")
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def whole_numbers(self, name: str, index: int) -> list[int] | None:
        """From the attribute of that name, else from the constant input at `index`; None where neither is there."""
        found = self.attribute(name)
        if found is None:
            found = self.constant(index)
        return None if found is None else [int(value) for value in np.ravel(found)]

    def axes(self, index: int, rank: int) -> list[int] | None:
        """The axes named by attribute or input, counted from 0 with the batch; None where none are named."""
        named = self.whole_numbers("axes", index)
        if named is None:
            return None
        if any(not -rank <= axis < rank for axis in named):
            raise UnsupportedError(f"axes {named} do not fit {rank} axes")
        return [axis % rank for axis in named]
