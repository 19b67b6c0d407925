"""A look at a protobuf's bytes before they are parsed: a few of them can stand for gigabytes of objects.

It knows the wire format and which fields of ONNX hold messages, and nothing of what they mean.
"""

from __future__ import annotations

from workers.importing.faults import refuse

MOST_FIELDS = 2_000_000
"""A large network has some hundred thousand; parsed, each takes up to two hundred bytes."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "other", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "other", 12: "other", 13: "other", 15: "other"},
    "function": {7: "node", 12: "other"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {13: "other"},
    "other": {},
}
"""Kind of message to the fields that hold messages in turn. `other` is looked at one level deep."""


def check_wire(data: bytes) -> None:
    """Count what parsing would make.

    Raises:
        ImportRefusedError: the bytes are no protobuf, or stand for too many objects.
    """
    pending: list[tuple[str, int, int]] = [("model", 0, len(data))]
    fields = 0
    while pending:
        kind, position, end = pending.pop()
        while position < end:
            number, wire_type, position = _read_key(data, position, end)
            fields += 1
            if fields > MOST_FIELDS:
                raise refuse(f"the file has more than {MOST_FIELDS:,} parts; a network has far fewer")
            start, position = _skip(data, wire_type, position, end)
            child = _MESSAGES[kind].get(number) if wire_type == _LENGTH else None
            if child is not None:
                pending.append((child, start, position))


def _read_key(data: bytes, position: int, end: int) -> tuple[int, int, int]:
    key, position = _read_varint(data, position, end)
    return key >> 3, key & 7, position


def _skip(data: bytes, wire_type: int, position: int, end: int) -> tuple[int, int]:
    """(where a value begins, where it ends)."""
    if wire_type == _VARINT:
        return position, _read_varint(data, position, end)[1]
    length = {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
    if wire_type == _LENGTH:
        length, position = _read_varint(data, position, end)
    if length is None or length > end - position:
        raise _damaged()
    return position, position + length


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _damaged()


def _damaged() -> Exception:
    return refuse("this is no whole ONNX file: it is truncated, damaged or something else; export or download it again")
