"""Readable names for the nodes of an imported network: what its author called the module, where the file tells."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workers.onnx_writer import INPUT_NAME, OUTPUT_NAME

_RESERVED = frozenset({INPUT_NAME, OUTPUT_NAME, "input"})
_OF_TENSORFLOW = frozenset({"BiasAdd", "Conv2D", "FusedBatchNormV3", "MatMul", "Tensordot"})
_WEIGHT_ENDINGS = (".weight", "_weight", "/weight", "/kernel", ".kernel")
_ENDINGS_OF_OTHERS = re.compile(r"(\.(weight|bias|running_mean|running_var)|_nchwc|_nhwc|_pre_q|_token_\d+)+$")
"""Weights are called so, and ONNX Runtime renames nodes so: a node of that name would be taken for something else."""

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
    name = _ENDINGS_OF_OTHERS.sub("", name)
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
    """Both `/layer1/layer1.0/conv1/Conv` and `layer1.0/conv1/Conv2D` are `layer1.0/conv1`."""
    parts = [part for part in name.split("/") if part]
    while len(parts) > 1 and (parts[-1] in _OF_TENSORFLOW or re.match(re.escape(op_type), parts[-1], re.IGNORECASE)):
        parts.pop()
    following = zip(parts, [*parts[1:], ""], strict=False)
    return "/".join(part for part, then in following if not then.startswith(f"{part}."))
