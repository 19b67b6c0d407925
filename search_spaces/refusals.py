"""What pydantic finds wrong with a document, in plain words: what to write instead, and each fault once.

It must not know which document it is; `search_spaces.parse` and the service's routes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from search_spaces import spec as spec_module
from search_spaces.faults import Fault
from search_spaces.spec import CATALOG_TAG, OWN_TAG

Detail = Mapping[str, Any]
"""One of `ValidationError.errors()`, with its context and input."""

_MOST_SHOWN = 40
_WORDS = {
    "string_type": "write text",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "tuple_type": "write a list, in brackets",
    "list_type": "write a list, in brackets",
    "dict_type": "write an object",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number of at least {ge}",
    "less_than": "write a number below {lt}",
    "less_than_equal": "write a number of at most {le}",
    "string_too_long": "write at most {max_length} characters",
    "string_too_short": "write at least {min_length} character",
}
_PATTERNS = {
    spec_module.NAME_PATTERN: "write letters, digits, spaces and . _ - that begin with a letter or a digit",
    spec_module.METRIC_PATTERN: "write a metric's name: small letters, digits and _",
    spec_module.SEARCH_PATTERN: "write the whole id of a search, of 36 characters",
}


def plain_faults(details: Sequence[Detail], within: tuple[str | int, ...] = ()) -> tuple[Fault, ...]:
    """A fault for each thing that is wrong.

    Args:
        details: what pydantic found, see `Detail`.
        within: where the document lies in what is pointed into.
    """
    places = [_place(detail) for detail in details]
    alike: dict[tuple[Any, ...], list[Fault]] = {}
    for detail, place in zip(details, places, strict=True):
        # A list all of whose members are wrong counts as too short, which is no fault of its own.
        is_shadow = detail["type"] == "too_short" and any(other[: len(place)] == place != other for other in places)
        if not is_shadow:
            of_list = (place[:-1], detail["type"]) if _is_member(place) else place
            alike.setdefault(of_list, []).append(Fault(pointer_to((*within, *place)), plain_message(detail)))
    return tuple(Fault(first.pointer, _with_more(first.message, len(more))) for first, *more in alike.values())


def plain_message(detail: Detail) -> str:
    """What is wrong, and what to write instead."""
    kind, context = str(detail["type"]), detail.get("ctx", {})
    special = _special_message(kind, detail, context)
    if special:
        return special
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return f"{_PATTERNS[context['pattern']]}, not {_shown(detail)}"
    if kind in _WORDS:
        return f"{_WORDS[kind].format(**_numbers_in(context))}, not {_shown(detail)}"
    return str(detail["msg"]).removeprefix("Value error, ")


def pointer_to(path: tuple[str | int, ...]) -> str:
    """RFC 6901 pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _special_message(kind: str, detail: Detail, context: Mapping[str, Any]) -> str:
    match kind:
        case "missing":
            return "the list is too short: add a value" if _is_member(detail["loc"]) else "this is missing: add it"
        case "extra_forbidden":
            return _unknown_key(str(detail["loc"][-1]))
        case "enum" | "literal_error":
            return _no_choice(detail, str(context["expected"]))
        case "model_type" | "model_attributes_type":
            return _object_wanted(detail, str(context.get("class_name", "")))
        case "too_short":
            return f"write a list of at least {context['min_length']} value, not of {context['actual_length']}"
        case "too_long":
            return f"write a list of at most {context['max_length']} values, not of {context['actual_length']}"
    return ""


def _unknown_key(key: str) -> str:
    close = get_close_matches(key, sorted({name for model in _models().values() for name in model.model_fields}), n=1)
    if close and close[0] != key:
        return f"unknown key; did you mean {close[0]}?"
    return "this key does not belong here; leave it out" if close else "unknown key; leave it out"


def _no_choice(detail: Detail, expected: str) -> str:
    choices = [one.strip("' ") for one in expected.replace(" or ", ", ").split(", ")]
    close = get_close_matches(str(detail["input"]), choices, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{_shown(detail)} is none of the choices: {hint}write {expected.replace(chr(39), '')}"


def _object_wanted(detail: Detail, model: str) -> str:
    known = _models().get(model)
    keys = f" with keys such as {', '.join(list(known.model_fields)[:3])}" if known and known.model_fields else ""
    return f"write an object{keys}, not {_shown(detail)}"


def _numbers_in(context: Mapping[str, Any]) -> dict[str, str]:
    """As people write them: 4, not 4.0."""
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in context.items()}


def _models() -> Mapping[str, type[BaseModel]]:
    found = vars(spec_module)
    return {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, BaseModel)}


def _shown(detail: Detail) -> str:
    value = detail.get("input")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _place(detail: Detail) -> tuple[str | int, ...]:
    return tuple(part for part in detail["loc"] if part not in (CATALOG_TAG, OWN_TAG))


def _is_member(place: Sequence[str | int]) -> bool:
    """Whether a place is that of a member of a list."""
    return bool(place) and isinstance(place[-1], int)


def _with_more(message: str, more: int) -> str:
    return message if not more else f"{message} (and so on: {more} more of this list)"
