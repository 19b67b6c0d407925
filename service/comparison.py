"""The search's finds beside the uniform baseline: the same question for the page, the command line and the demo.

Works on plain values, so that rows of the database and JSON of the API can both be compared. Knows no SQL, no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces import pareto
from search_spaces.spec import ObjectiveSpec


@dataclass(frozen=True, slots=True)
class Contender:
    """A feasible trial, with the values by which it is compared: those on `confirm` for a finalist."""

    number: int
    baseline: bool
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both fronts and their hypervolumes against one reference point.

    Attributes:
        found: the non-dominated designs that the sampler proposed.
        uniform: the non-dominated designs of the uniform baseline.
        beaten: numbers of the uniform designs that a found one dominates.
    """

    found: tuple[Contender, ...]
    uniform: tuple[Contender, ...]
    found_hypervolume: float
    uniform_hypervolume: float
    beaten: tuple[int, ...]

    @property
    def gain(self) -> float | None:
        """Relative gain in hypervolume; None where the baseline has none."""
        return self.found_hypervolume / self.uniform_hypervolume - 1 if self.uniform_hypervolume > 0 else None


def compare(contenders: Sequence[Contender], objectives: Sequence[ObjectiveSpec]) -> Comparison:
    """Both sides judged alike. A side without contenders has an empty front and hypervolume 0."""
    found = _front([contender for contender in contenders if not contender.baseline], objectives)
    uniform = _front([contender for contender in contenders if contender.baseline], objectives)
    everyone = [contender.values for contender in contenders]
    reference = pareto.reference_point(everyone, objectives) if everyone else {}
    return Comparison(
        found=found,
        uniform=uniform,
        found_hypervolume=_hypervolume(found, objectives, reference),
        uniform_hypervolume=_hypervolume(uniform, objectives, reference),
        beaten=tuple(rival.number for rival in uniform if any(_beats(one, rival, objectives) for one in found)),
    )


def _front(contenders: Sequence[Contender], objectives: Sequence[ObjectiveSpec]) -> tuple[Contender, ...]:
    if not contenders:
        return ()
    members = pareto.front_indices([contender.values for contender in contenders], objectives)
    return tuple(sorted((contenders[i] for i in members), key=lambda member: member.number))


def _hypervolume(
    front: Sequence[Contender], objectives: Sequence[ObjectiveSpec], reference: Mapping[str, float]
) -> float:
    return pareto.hypervolume([member.values for member in front], objectives, reference) if front else 0.0


def _beats(one: Contender, other: Contender, objectives: Sequence[ObjectiveSpec]) -> bool:
    """Whether `one` dominates `other`: of the two alone, only `one` is on the front."""
    return pareto.front_indices([one.values, other.values], objectives) == [0]
