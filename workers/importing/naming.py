"""Readable names for the nodes of an imported network: what its author called the module, where the file tells."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workers.onnx_writer import INPUT_NAME, OUTPUT_NAME

_RESERVED = frozenset({INPUT_NAME, OUTPUT_NAME, "input"})
_WEIGHT_ENDINGS = (".weight", "_weight", "/weight", "/kernel", ".kernel")
_LONGEST = 120


def node_name(onnx_name: str, op_type: str, weight: str, place: int) -> str:
    """A name of letters, digits, dots and underscores.

    Args:
        onnx_name: the node's own name; may be empty.
        op_type: of the node.
        weight: name of its first constant input, empty where it has none: exporters of torch keep the module there.
        place: of the node in the file, for nodes that nothing names.
    """
    stem = _stem_of_weight(weight) or _stem_of_node(onnx_name, op_type) or f"{op_type.lower()}{place}"
    name = re.sub(r"[^A-Za-z0-9_]+", ".", stem).strip("._")[-_LONGEST:].strip("._")
    if not name or name in _RESERVED:
        return f"{name or op_type.lower()}_{place}"
    return name


def without_common_start(names: Sequence[str]) -> dict[str, str]:
    """The names without the dotted start that all of them share, such as `model.backbone.`; by the old names."""
    parts = [name.split(".")[:-1] for name in names]
    shared = 0
    while parts and all(len(part) > shared and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {name: ".".join(name.split(".")[shared:]) for name in names}


def _stem_of_weight(weight: str) -> str:
    if weight.startswith("onnx::"):
        return ""
    for ending in _WEIGHT_ENDINGS:
        if weight.endswith(ending):
            return weight.removesuffix(ending)
    return ""


def _stem_of_node(name: str, op_type: str) -> str:
    """`/layer1/conv1/Conv` and `layer1/conv1/Conv2D` are `layer1/conv1`."""
    folder, slash, last = name.rpartition("/")
    if slash and folder.strip("/") and re.match(op_type, last, re.IGNORECASE):
        return folder
    return name
