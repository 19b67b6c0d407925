"""What samplers that think in choice indices share: what is taken, what keeps the limits, asking one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set

import numpy as np

from search_spaces.design import Design
from search_spaces.design_keys import same_designs
from search_spaces.foreseen import ForeseenLimits
from search_spaces.projection import Projection
from search_spaces.quality import main_score, quality
from search_spaces.samplers.base import Proposal, Sampler, Stored, ToldTrial, prefixed, without_prefix
from search_spaces.samplers.history import PREDICTED, History, first_unused
from search_spaces.samplers.unused import unused_near
from search_spaces.sensitivity import Sensitivity
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec

RANKED = 8
"""How many proposals a predictor chooses from, of samplers that do not choose by themselves."""
APART = 10**7
"""More than a search has trials. So far apart are the numbers that the proposals for one trial are drawn with."""


class IndexedSampler(Sampler):
    """A sampler on indices. It remembers what was told, so that an implementation says only how it draws.

    Implementations give `_propose`, and `_learn` if they learn.

    Whatever is drawn is repaired (`search_spaces.projection`), by what choices were found to cost in quality: no design
    is proposed that misses a limit which is judged by design alone. What was evaluated is the repaired design, and that
    is what samplers are told.
    """

    predicts = False
    """Whether the sampler itself chooses by predictions: it has a history then, whatever the spec says."""

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        self._spec = spec
        self._space = space
        self._levels = tuple(len(decision.choices) for decision in space.decisions)
        self._size = space.size()
        self._told: set[Indices] = set()
        self._foreseen = ForeseenLimits(space, spec)
        self._projection = Projection(self._levels, self._foreseen)
        self._sensitivity = Sensitivity(space.decisions)
        self._score = main_score(spec)
        wants = self.predicts or spec.sampler.predictor
        self._history = History(spec, space, self._foreseen) if wants else None

    def tell(self, trials: Sequence[ToldTrial]) -> None:
        for trial in trials:
            indices = self._space.indices_of(trial.design)
            self._told |= same_designs(self._space, indices)
            self._weigh(trial, indices)
            if self._history is not None:
                self._history.judge(trial)
                if self._is_learnt(trial):
                    self._history.add(trial, indices, self._sensitivity.sizes)
            self._learn(trial, indices)

    def ask(self, count: int, first_number: int, open_designs: Sequence[Design]) -> list[Proposal]:
        running = [self._space.indices_of(design) for design in open_designs]
        taken = self._told.union(*(same_designs(self._space, indices) for indices in running))
        proposals: list[Proposal] = []
        for number in range(first_number, first_number + count):
            if len(taken) >= self._size:
                break
            # Sorted, so that the order in which open designs are listed cannot change what is asked.
            indices = self._ranked(number, taken, sorted(running))
            if indices is None:
                break
            taken |= same_designs(self._space, indices)
            running.append(indices)
            memo = {**self._memo(number, indices), **self._predicted(indices)}
            proposals.append(Proposal(self._space.design_at(indices), memo))
        return proposals

    def _known(self) -> dict[str, Stored]:
        """The part of a state that this class knows of, for implementations that have one."""
        told = np.array(sorted(self._told), dtype=np.int32).reshape(-1, len(self._levels))
        return {"told": told, **prefixed("sensitivity", self._sensitivity.state())}

    def _know(self, state: Mapping[str, Stored]) -> None:
        """Inverse of `_known`.

        Raises:
            KeyError, ValueError: the state is of another sampler.
        """
        told = state["told"]
        if not isinstance(told, np.ndarray) or told.shape != (len(told), len(self._levels)):
            raise ValueError("the state is of another space")
        self._told = {tuple(row) for row in told.tolist()}
        self._sensitivity.restore(without_prefix("sensitivity", state))

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        """Called for each told trial, in order, after it was noted as taken."""
        return

    def _memo(self, number: int, indices: Indices) -> dict[str, object]:
        """What the sampler wants to be handed back with a design that it has just proposed, besides predictions."""
        return {}

    def _predicted(self, indices: Indices) -> dict[str, object]:
        predicted = {} if self._history is None else self._history.predicted(indices)
        return {PREDICTED: predicted} if predicted else {}

    def _ranked(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        """What the sampler proposes; with a predictor the most promising of several proposals."""
        if self.predicts or self._history is None or not self._history.can_rank:
            return self._propose(number, taken, running)
        drawn = (self._propose(number + attempt * APART, taken, running) for attempt in range(RANKED))
        rows = np.array([indices for indices in drawn if indices is not None], dtype=np.int64)
        if not len(rows):
            return None
        generator = np.random.default_rng([self._spec.sampler.seed, number, RANKED])
        return first_unused(rows, self._history.worth(running, generator)(rows), taken.__contains__)

    def _is_learnt(self, trial: ToldTrial) -> bool:
        return self._spec.sampler.seed_uniform or not trial.baseline

    def _weigh(self, trial: ToldTrial, indices: Indices) -> None:
        found = quality(trial.values, self._score)
        if found is not None and self._is_learnt(trial):
            self._sensitivity.add(indices, found)

    def _repaired(self, indices: Indices) -> Indices | None:
        """The design, or the nearest found that keeps the limits that are judged by design alone."""
        return self._projection(indices, self._sensitivity.losses())

    def _unused(self, drawn: Indices, taken: Set[Indices], generator: np.random.Generator) -> Indices | None:
        """The drawn design repaired, or one near it that was not tried; None where there is no other."""
        repaired = self._repaired(drawn)
        return None if repaired is None else unused_near(repaired, self._levels, taken, generator, self._foreseen.keep)

    @abstractmethod
    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        """Indices of the design for trial `number`, not in `taken`; None where there is none left.

        Must change nothing. The numbers of several proposals for one trial are `APART` from each other.
        """
