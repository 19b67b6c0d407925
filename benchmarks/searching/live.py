"""A search whose designs are tried for real, with what each of them took.

Time is that of the processor, not of the clock on the wall: it hardly depends on what else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search_spaces.known import Sources
from search_spaces.objectives import Metric, TrialState
from search_spaces.samplers import Proposal, ToldTrial
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec
from workers.jobs import evaluate


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a design, and the seconds that the processor took for it."""

    values: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One of a search, in its order.

    Attributes:
        seconds: since the search began, of sampler and evaluations, this one included.
    """

    values: Mapping[str, float]
    seconds: float


@dataclass
class LiveProblem:
    """See `benchmarks.searching.problem.Searched`. One search is played on it.

    Attributes:
        known: what was tried already, also by other searches: it is not tried again, and takes the time that it took.
        evaluations: of this search so far.
    """

    spec: SearchSpec
    space: Space
    base_key: str
    home: Path
    known: MutableMapping[Indices, Tried]
    evaluations: list[Evaluation] = field(default_factory=list)
    _sampler_s: float = 0.0
    _evaluated_s: float = 0.0
    _left_at_s: float = field(default_factory=time.process_time)

    def values_of(self, indices: Sequence[int]) -> Mapping[str, float]:
        self._sampler_s += time.process_time() - self._left_at_s
        row = tuple(int(index) for index in indices)
        if row not in self.known:
            self.known[row] = self._try(row)
        tried = self.known[row]
        self._evaluated_s += tried.seconds
        self.evaluations.append(Evaluation(tried.values, self._sampler_s + self._evaluated_s))
        self._left_at_s = time.process_time()
        return tried.values

    def _try(self, row: Indices) -> Tried:
        begun_s = time.process_time()
        outcome = evaluate(self.spec, Sources(), self.space.design_at(row), self.base_key, self.home)
        values = {metric: float(value) for metric, value in outcome.values.items()}
        if outcome.state is not TrialState.SUCCEEDED:
            values.pop(Metric.ACCURACY, None)
        return Tried(values, time.process_time() - begun_s)

    def tell(self, number: int, proposal: Proposal, *, baseline: bool = False) -> ToldTrial:
        values = self.values_of(self.space.indices_of(proposal.design))
        state = TrialState.SUCCEEDED if Metric.ACCURACY in values else TrialState.FAILED
        return ToldTrial(number, proposal.design, state, values, {}, dict(proposal.memo), baseline)

    def baseline(self) -> list[ToldTrial]:
        return [self.tell(n, Proposal(design, {}), baseline=True) for n, design in enumerate(self.space.uniform)]

    def baseline_indices(self) -> list[Indices]:
        return [self.space.indices_of(design) for design in self.space.uniform]
