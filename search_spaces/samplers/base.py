"""The contract of samplers: what proposes Designs, one trial after another.

It must not know where trials are stored, who runs them or what they cost. No optuna here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.design import Design
from search_spaces.objectives import TrialState

Stored = NDArray[np.generic] | int | float | str | None
"""A part of a sampler's state: an array of numbers, or a JSON scalar."""


@dataclass(frozen=True, slots=True)
class ToldTrial:
    """A finished trial, as a sampler is told of it.

    Attributes:
        number: the trial's number in its search.
        state: SUCCEEDED, INFEASIBLE, STOPPED or FAILED.
        values: by metric name; an infeasible trial may lack those that were not worth finding out.
        violations: by limit, the relative size of the miss, > 0 where it is missed; empty if all limits are met.
        memo: what the sampler gave with the proposal; empty for a trial that it has not proposed: of the baseline, or
            of another search that this one began with.
        baseline: whether it belongs to the uniform sweep, which no sampler proposed.
        fidelity: 1 after the full evaluation; of a stopped trial, whose objectives are those that it was expected to
            come to, the share of the steps that it took.
    """

    number: int
    design: Design
    state: TrialState
    values: Mapping[str, float]
    violations: Mapping[str, float]
    memo: Mapping[str, Any]
    baseline: bool
    fidelity: float = 1.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A design to try.

    Attributes:
        memo: what the sampler wants to be handed back when it is told of the trial; JSON-safe.
    """

    design: Design
    memo: Mapping[str, Any]


class Sampler(ABC):
    """Proposes the designs of one search.

    **Life.** A sampler is made for one spec and one space. The planner then alternates, as often as it likes:
    `tell` with the trials that finished since the last call, and `ask` with the number of free slots. It keeps the
    sampler in its process while it can. After a restart it makes a fresh one and tells it the whole history.

    **Restoring.** So what a sampler knows is a function of the trials it was told, in their order, and of nothing
    else: not of how they were split over calls of `tell`, not of how often `ask` was called in between. A fresh
    sampler that is told the whole history asks the same as one that lived through it. A sampler that needs to know
    how it made a proposal puts that into the proposal's memo and finds it in the told trial.

    **Chance.** Randomness comes from the spec's seed and the number of the trial asked for, and from nothing else.
    Asking for two trials is asking for one, and then for the next with the first among the open designs.

    **Repeats.** A design that was told or is open is never proposed again while the space has another. Nor is one that
    leads to the same file, such as by another way of ranking where nothing is pruned: all of those are one design
    (`search_spaces.design_keys.same_designs`). Open designs are those that are planned or running: they have no
    result yet and may never get one.

    **Limits.** A sampler may look at what a design costs before it proposes it, as far as that is known without any
    work (`search_spaces.costs`). It need not: a design that misses a limit becomes an infeasible trial.

    **Failures.** A failed trial has no values to learn from, and an infeasible one may have few. Neither may break a
    sampler. A cancelled trial is not told; its design may be proposed again.

    **Stopped trials** were expected to add nothing to the front, and have the values that were expected: what others
    gained that stood near them when they were stopped. One may learn from them as from others, or weigh them by their
    `fidelity`; their designs are not proposed again.

    **Snapshots.** Where telling a long history takes long, a sampler may give its `state` after some trials, and a
    fresh one for the same spec and space that is given it by `restore` goes on as if it had been told those trials.
    That is only a shortcut: who keeps states may lose them, and must not give one that another spec or history led to.

    Samplers are not thread-safe: one search has one planner at a time.
    """

    @abstractmethod
    def tell(self, trials: Sequence[ToldTrial]) -> None:
        """Learn from trials that finished: in the order in which they did, each exactly once over a sampler's life."""

    @abstractmethod
    def ask(self, count: int, first_number: int, open_designs: Sequence[Design]) -> list[Proposal]:
        """Propose designs for the trials `first_number`, `first_number + 1`, ... and learn nothing by it.

        Args:
            count: how many are wanted, at least 1.
            first_number: the number that the first of the new trials will have.
            open_designs: designs of the trials that are planned or running, in any order.

        Returns:
            `count` proposals; fewer, or none, when the sampler has no further design to offer.
        """

    def state(self) -> dict[str, Stored] | None:
        """All that the sampler knows, as arrays and scalars; None where telling the history again is quick enough."""
        return None

    def restore(self, state: Mapping[str, Stored]) -> None:
        """Take over what another sampler of the same spec and space knew, before anything was told.

        Raises:
            ValueError: the state is no state of such a sampler. The sampler may be of no use after that.
        """
        raise ValueError("this sampler has no state to be restored")


def prefixed(prefix: str, state: Mapping[str, Stored]) -> dict[str, Stored]:
    """A part's state as parts of a larger one."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def without_prefix(prefix: str, state: Mapping[str, Stored]) -> dict[str, Stored]:
    """Inverse of `prefixed`: of a larger state, one part's."""
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
