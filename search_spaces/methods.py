"""How a design is made, where that is varied: methods of the whole network, beside what the network becomes.

What a design does not name is as the spec's `evaluation` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.activation_codes import CodecName
from search_spaces.apply import DesignError
from search_spaces.design import METHOD_KINDS, METHOD_TARGET, Design, Kind, decision_name
from search_spaces.known import Known
from search_spaces.spec import Calibration, EvaluationSpec, MethodChoices, SearchSpec

CLOSED: Mapping[Kind, type[StrEnum]] = {Kind.CALIBRATION: Calibration, Kind.ACTIVATION_CODEC: CodecName}
"""Kinds of which no more can be installed."""


def method_of(design: Design, kind: Kind, spec: SearchSpec) -> str:
    """The method of a kind that a design of this search is made by.

    Raises:
        DesignError: there is no such method.
    """
    name = decision_name(kind, METHOD_TARGET)
    method = str(design.get(name, str(getattr(spec.evaluation, kind))))
    if kind in CLOSED and method not in set(CLOSED[kind]):
        raise DesignError(name, f"{method!r} is none of {', '.join(CLOSED[kind])}")
    return method


@dataclass(frozen=True, slots=True)
class NamedMethod:
    """A method that a spec names: where, of which kind, and which there are."""

    pointer: str
    kind: Kind
    name: str
    known: Sequence[str]


def named_methods(spec: SearchSpec, known: Known) -> Iterator[NamedMethod]:
    """All that a spec names, to be used or to be varied."""
    for kind, names in _known_methods(known).items():
        yield NamedMethod(f"/evaluation/{kind}", kind, str(getattr(spec.evaluation, kind)), names)
        choices: MethodChoices | None = getattr(spec.space, kind)
        for number, name in enumerate(() if choices is None else choices.choices):
            yield NamedMethod(f"/space/{kind}/choices/{number}", kind, name, names)


def unused_methods(spec: SearchSpec) -> Iterator[str]:
    """For people: what the evaluation names of a kind that the space varies. The usual method counts as not named."""
    usual = EvaluationSpec()
    for kind in (kind for kind in Kind if kind in METHOD_KINDS):
        choices: MethodChoices | None = getattr(spec.space, kind)
        named = getattr(spec.evaluation, kind)
        if choices is not None and named != getattr(usual, kind):
            varied = ", ".join(choices.choices)
            yield f"evaluation.{kind} is not used: space.{kind} makes it a decision among {varied}; leave one out"


def _known_methods(known: Known) -> dict[Kind, Sequence[str]]:
    return {Kind.IMPORTANCE: sorted(known.importances), **{kind: list(map(str, CLOSED[kind])) for kind in CLOSED}}
