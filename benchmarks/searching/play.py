"""Plays one sampler on one problem: it asks for designs, they are looked up, and it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.searching.optuna_alone import ALONE, OptunaAlone
from benchmarks.searching.problem import Problem, Searched
from search_spaces.samplers import Proposal, Sampler, make_sampler
from search_spaces.space import Indices
from search_spaces.spec import SearchSpec


@dataclass(frozen=True)
class Run:
    """What one sampler did with one seed.

    Attributes:
        designs: numbers of the designs that were looked up, in order; those of the baseline are not among them.
        seconds: that the sampler itself took for all of them, told and asked.
    """

    problem: str
    sampler: str
    seed: int
    designs: tuple[int, ...]
    seconds: float


def play(problem: Problem, sampler: str, seed: int, budget: int, evaluations: int) -> Run:
    """Up to so many evaluations after the baseline; fewer where the sampler has no further design.

    Args:
        problem: to search on.
        sampler: one that is installed, or one of `ALONE`.
        seed: of the sampler.
        budget: of trials, as the spec says it; a search that goes on beyond it was extended.
        evaluations: to play.
    """
    search = search_of(problem, sampler, seed, budget)
    begun_s = time.perf_counter()  # what has to be imported for a sampler is no part of it
    found = search(evaluations)
    seconds = time.perf_counter() - begun_s
    return Run(problem.name, sampler, seed, tuple(problem.number_of(row) for row in found), seconds)


def search_of(problem: Searched, sampler: str, seed: int, budget: int) -> Callable[[int], list[Indices]]:
    """What evaluates the baseline and then so many designs, which it returns; the arguments are those of `play`."""
    if sampler in ALONE:
        return OptunaAlone(problem, sampler, seed).search
    return partial(_search, problem, make_sampler(seeded(problem.spec, sampler, seed, budget), problem.space))


def seeded(spec: SearchSpec, sampler: str, seed: int, budget: int) -> SearchSpec:
    changes: dict[str, Any] = {
        "sampler": spec.sampler.model_copy(update={"name": sampler, "seed": seed}),
        "budget": spec.budget.model_copy(update={"trials": budget}),
    }
    return spec.model_copy(update=changes)


def _search(problem: Searched, sampler: Sampler, evaluations: int) -> list[Indices]:
    baseline = problem.baseline()
    sampler.tell(baseline)
    found: list[Indices] = []
    for number in range(len(baseline), len(baseline) + evaluations):
        asked: list[Proposal] = sampler.ask(1, number, [])
        if not asked:
            break
        found.append(problem.space.indices_of(asked[0].design))
        sampler.tell([problem.tell(number, asked[0])])
    return found


def volumes_at(problem: Problem, designs: Sequence[int], counts: Sequence[int]) -> list[float]:
    """The share of the true front's hypervolume that the baseline and the first designs of a run have, by count."""
    before = np.array([problem.number_of(row) for row in problem.baseline_indices()], dtype=np.int64)
    numbers = np.concatenate([before, np.asarray(designs, dtype=np.int64)])
    return [problem.volume(numbers[: len(before) + count]) / problem.best_volume for count in counts]
