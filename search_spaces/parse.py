"""From bytes that may be anything to a SearchSpec, or to a SpecError that says where and why not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml as pyyaml
from pydantic import ValidationError

from search_spaces.faults import Fault, SpecError
from search_spaces.refusals import plain_faults, pointer_to
from search_spaces.spec import SearchSpec

MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_NODES = 50_000
MAX_FAULTS = 50

_Loader: Any = getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)
"""The parser in C where the installation has it: the one in Python takes seconds for a megabyte."""


def parse_document(body: bytes, *, yaml: bool) -> Any:
    """Plain JSON types from a JSON or YAML document.

    Refused are documents that are too long or too deep, YAML aliases and tags that make other types,
    numbers that are not finite, and text that a database could not store.

    Raises:
        SpecError: with one fault that points at the whole document, or at the value.
    """
    if len(body) > MAX_BYTES:
        _refuse(f"the document has {len(body):,} bytes; at most {MAX_BYTES:,} are accepted")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.start} is not UTF-8")
    try:
        data = _load_yaml(text) if yaml else json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        _refuse(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except pyyaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        _refuse(f"not YAML: {error.problem or error.context}{place}")
    except pyyaml.YAMLError as error:
        _refuse(f"not YAML: {error}")
    except RecursionError:
        _refuse(f"nested more than {MAX_DEPTH} deep")
    except SpecError:
        raise
    except ValueError as error:  # such as a whole number of 5,000 digits, or the date 2026-99-99
        _refuse(str(error))
    _check_values(data)
    return data


def parse_spec(data: Any) -> SearchSpec:
    """A well-formed spec.

    Raises:
        SpecError: with a fault for each field that is not.
    """
    try:
        return SearchSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(plain_faults(error.errors(include_url=False))[:MAX_FAULTS]) from None


def _refuse(message: str, pointer: str = "") -> NoReturn:
    raise SpecError((Fault(pointer, message),))


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON, and no value of a spec may be that")


def _load_yaml(text: str) -> Any:
    """Load after a look at the events alone, which cost no memory and cannot recurse."""
    depth = nodes = 0
    for event in pyyaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, pyyaml.AliasEvent):
            _refuse(f"line {line}: aliases are not accepted; write the value out")
        if isinstance(event, pyyaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, pyyaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, pyyaml.NodeEvent)
        if depth > MAX_DEPTH:
            _refuse(f"line {line}: nested more than {MAX_DEPTH} deep")
        if nodes > MAX_NODES:
            _refuse(f"line {line}: more than {MAX_NODES:,} values")
    return pyyaml.load(text, Loader=_Loader)


def _check_values(data: Any) -> None:
    for number, (path, value) in enumerate(_walk(data)):
        if len(path) > MAX_DEPTH:
            _refuse(f"nested more than {MAX_DEPTH} deep")
        if number > MAX_NODES:
            _refuse(f"more than {MAX_NODES:,} values")
        message = _wrong_value(value)
        if message:
            _refuse(message, pointer_to(path))


def _wrong_value(value: Any) -> str:
    """What is wrong with one value, not looking into it; empty if nothing is."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if isinstance(value, str) and not _is_storable(value):
        return "the text has a NUL or half of a surrogate pair"
    if not isinstance(value, str | int | float | dict | list | None):
        return f"a {type(value).__name__} is none of object, list, text, number, true, false and null"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not _is_storable(key):
                return f"the key {key!r} is not text"
    return ""


def _walk(data: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value with its path, without recursion; a dict before its values."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while pending:
        path, value = pending.pop()
        yield path, value
        if isinstance(value, dict):
            pending += [((*path, key), child) for key, child in value.items()]
        elif isinstance(value, list):
            pending += [((*path, index), child) for index, child in enumerate(value)]


def _is_storable(text: str) -> bool:
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False
