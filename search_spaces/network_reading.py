"""Reads a network's JSON that may come from anywhere: every value is checked, and what is wrong is named by its place.

`network.network_from_json` is for what Espalier itself has stored. What a body of an opaque node holds is not looked
into here, since only the workers can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from search_spaces.network import (
    COMPUTE_OPS,
    InputContract,
    Interpolation,
    Network,
    Node,
    Op,
    infer_shapes,
)
from search_spaces.precision import parse_precision

MOST_NODES = 20_000
_MOST_COUNT = 2**31 - 1
_MOST_NUMBER = 1e30
_ANY_NUMBER = (1, MOST_NODES)

_INPUTS = dict.fromkeys(Op, (1, 1)) | {
    Op.INPUT: (0, 0),
    Op.ADD: (2, MOST_NODES),
    Op.MULTIPLY: (2, 2),
    Op.CONCAT: _ANY_NUMBER,
    Op.OPAQUE: _ANY_NUMBER,
}
"""Fewest and most tensors that a node of each op reads."""

T = TypeVar("T")


def read_network(data: Any) -> Network:
    """The network of what `network_to_json` makes.

    Raises:
        ValueError: it is not such a network; the message begins with the place, such as `nodes/3/kernel`.
    """
    parts = _object("", data, required=("name", "input", "nodes", "output"))
    items = parts["nodes"]
    if not isinstance(items, list) or not 1 <= len(items) <= MOST_NODES:
        raise ValueError(f"nodes: must be a list of 1 to {MOST_NODES:,} nodes")
    nodes = tuple(_read_node(f"nodes/{index}", item) for index, item in enumerate(items))
    _check_first(nodes)
    contract = _read_contract("input", parts["input"])
    network = Network(_at("name", _text, parts["name"]), contract, nodes, _at("output", _text, parts["output"]))
    infer_shapes(network)  # raises a ValueError that names the node
    return network


def _check_first(nodes: Sequence[Node]) -> None:
    wrong = [index for index, node in enumerate(nodes) if (node.op is Op.INPUT) != (index == 0)]
    if wrong:
        raise ValueError(f"nodes/{wrong[0]}/op: the first node, and no other, is the input")


def _read_node(place: str, data: Any) -> Node:
    values = _object(place, data, required=("name", "op"), optional=tuple(_FIELDS))
    read = {name: _at(f"{place}/{name}", _FIELDS[name], value) for name, value in values.items()}
    node = Node(**read)
    fewest, most = _INPUTS[node.op]
    if not fewest <= len(node.inputs) <= most:
        raise ValueError(f"{place}/inputs: {node.op} cannot read {len(node.inputs)} tensors")
    if not node.precision.is_float and node.op not in COMPUTE_OPS:
        raise ValueError(f"{place}/precision: only convs and linears have one")
    return node


def _read_contract(place: str, data: Any) -> InputContract:
    parts = _object(place, data, required=("shape", "mean", "std"), optional=("resize", "interpolation"))
    shape = _at(f"{place}/shape", _whole_numbers(1, 3), parts["shape"])
    mean, std = (_at(f"{place}/{name}", _finite(shape[0]), parts[name]) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError(f"{place}/std: must be above zero")
    resize = _at(f"{place}/resize", _whole(0), parts.get("resize", 0))
    asked = parts.get("interpolation", Interpolation.BILINEAR)
    interpolation = _at(f"{place}/interpolation", _word(Interpolation), asked)
    return InputContract((shape[0], shape[1], shape[2]), mean, std, resize, interpolation)


def _object(place: str, data: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    where = f"{place}: " if place else ""
    if not isinstance(data, dict):
        raise ValueError(f"{where}must be an object")
    missing = [name for name in required if name not in data]
    unknown = [name for name in data if name not in (*required, *optional)]
    if missing or unknown:
        raise ValueError(f"{where}{f'has no {missing[0]!r}' if missing else f'has an unknown key {unknown[0]!r}'}")
    return data


def _at(place: str, read: Callable[[Any], T], value: Any) -> T:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of texts")
    return tuple(map(_text, value))


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _word(words: Callable[[str], T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        return words(_text(value))  # an enum says itself what is no word of its

    return read


def _whole(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_COUNT:
            raise ValueError(f"must be a whole number from {least} to {_MOST_COUNT:,}")
        return value

    return read


def _whole_numbers(least: int, count: int | None = None) -> Callable[[Any], Any]:
    def read(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or len(value) != (count or len(value)):
            raise ValueError(f"must be a list of {count or ''} whole numbers".replace("  ", " "))
        return tuple(map(_whole(least), value))

    return read


def _finite(count: int) -> Callable[[Any], tuple[float, ...]]:
    def read(value: Any) -> tuple[float, ...]:
        numbers = value if isinstance(value, list) else []
        plain = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
        if len(numbers) != count or not plain or not all(abs(one) < _MOST_NUMBER for one in numbers):
            raise ValueError(f"must be a list of {count} finite numbers")
        return tuple(numbers)

    return read


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "op": _word(Op),
    "inputs": _texts,
    "channels": _whole(1),
    "kernel": _whole_numbers(1, 2),
    "stride": _whole_numbers(1, 2),
    "padding": _whole_numbers(0, 4),
    "groups": _whole(1),
    "bias": _truth,
    "precision": lambda value: parse_precision(_text(value)),
    "block": _text,
    "dilation": _whole_numbers(1, 2),
    "start": _whole(0),
    "shape": _whole_numbers(1),
    "body": _text,
    "body_bytes": _whole(0),
}
