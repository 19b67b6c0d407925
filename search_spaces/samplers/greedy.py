"""Greedy sensitivity: each decision is measured alone, then whole designs are solved for.

The rule-based baseline, as in the automatic mixed precision of AIMET and the searches of Model Optimizer: losses are
taken to add up. Costs are not; they are those of whole designs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import cached_property

import numpy as np

from search_spaces.batch_costs import Numbers
from search_spaces.choice_losses import choice_losses
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Metric
from search_spaces.quality import quality
from search_spaces.samplers.base import ToldTrial
from search_spaces.samplers.indexed import IndexedSampler
from search_spaces.samplers.probes import Anchors, choose_anchors, least_changed, probes
from search_spaces.samplers.whole_designs import WholeDesigns
from search_spaces.space import Indices, Space
from search_spaces.spec import GreedySpec, SearchSpec

GOLDEN = (5**0.5 - 1) / 2
MOST_STEPS, MOST_VARIABLES = 24, 20_000
"""How many budgets are solved for, at most, until one leads to a design that was not tried, and how large programs are
all together: some ten seconds."""
STEP = 1e-5
"""Between a cost and the next budget below it, as a share of the range: above the solver's tolerance."""


class GreedySampler(IndexedSampler):
    """Tries designs that change one decision, and then those of least loss at one cost after another.

    **Probes.** First a share of the budget (`sampler.greedy.probe_share`) goes to changes of one decision of a
    reference: the base, where it keeps the limits. No decision gets a second probe before all have one. Whatever else
    was told that differs from the reference in one decision counts as well. What is told of whole designs corrects
    them (`search_spaces.choice_losses`).

    **Designs.** Then each proposal is the design of least summed loss within a budget. The budgets run over what
    the cost may be in the order of the golden section, from its limit or the whole network's cost down; where one
    leads to a design that was tried, the next is just below what that design costs. The cost is the objective that is
    told by design alone, each in its turn if there are several, or else MACs. Without a cost among the objectives
    there is nothing to sweep: the most that is allowed is spent, and what is tried beside that design is near it.
    Losses are by all that was told till then, so that designs are solved for again as more is known.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        costs = [one.metric for one in spec.objectives if one.metric in DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS]
        self._metrics = [cost for cost in costs if cost in self._foreseen.costs.metrics] or [str(Metric.MACS)]
        self._is_swept = bool(costs)
        self._whole = least_changed(space)
        self._heard: dict[Indices, float] = {}
        self._losses: list[Numbers] | None = None
        self._by_budget: dict[tuple[str, float], Indices | None] = {}
        self._solved = 0

    def _learn(self, trial: ToldTrial, indices: Indices) -> None:
        self._solved += bool(trial.memo.get("solved"))
        found = quality(trial.values, self._score)
        if found is not None and self._is_learnt(trial):
            self._heard[indices] = found
            self._losses = None
            self._by_budget.clear()

    def _memo(self, number: int, indices: Indices) -> dict[str, object]:
        return {} if indices in self._probes else {"solved": True}

    def _propose(self, number: int, taken: Set[Indices], running: Sequence[Indices]) -> Indices | None:
        untried = next((probe for probe in self._probes if probe not in taken), None)
        if untried is not None or self._anchors is None:
            return untried
        turn = self._solved + sum(design not in self._probes for design in running)
        nearest = None
        for design in self._solutions(turn):
            if design not in taken:
                return design
            nearest = nearest or design
        return self._unused(
            nearest or self._anchors.reference, taken, np.random.default_rng([self._spec.sampler.seed, number])
        )

    @cached_property
    def _anchors(self) -> Anchors | None:
        return choose_anchors(self._space, self._foreseen, self._projection)

    @cached_property
    def _probes(self) -> dict[Indices, None]:
        """Designs of the uniform baseline, which every search tries, and the reference are no part of the share."""
        if self._anchors is None:
            return {}
        options = self._spec.sampler.greedy or GreedySpec()
        left = int(options.probe_share * self._spec.budget.trials)
        given = {self._anchors.reference, *map(self._space.indices_of, self._space.uniform)}
        found: dict[Indices, None] = {}
        for design in probes(self._space, self._anchors, self._foreseen, self._metrics[0]):
            left -= design not in given
            if left < 0:
                break
            found[design] = None
        return found

    @cached_property
    def _designs(self) -> WholeDesigns:
        return WholeDesigns(self._levels, self._foreseen, self._metrics, self._spec.device)

    @cached_property
    def _spans(self) -> dict[str, tuple[float, float]]:
        return {metric: self._designs.span(metric, self._whole) for metric in self._metrics}

    def _solutions(self, turn: int) -> Iterator[Indices]:
        """Designs of least loss, from the budget of this turn down to the least that there is, and on from the top.

        `turn` is how many were proposed before. There is one design only where nothing is swept.
        """
        place, number = divmod(turn, len(self._metrics))
        metric = self._metrics[number]
        least, most = self._spans[metric]
        budget = most - (place * GOLDEN % 1 if self._is_swept else 0.0) * (most - least)
        steps = min(MOST_STEPS, max(2, MOST_VARIABLES // max(self._designs.variables, 1)))
        is_second_round = False
        for _ in range(steps if self._is_swept else 1):
            design = self._at(metric, budget)
            if design is not None:
                yield design
                budget = min(budget, self._designs.cost(design, metric)) - STEP * (most - least or most)
            elif is_second_round:
                return
            else:
                is_second_round, budget = True, most

    def _at(self, metric: str, budget: float) -> Indices | None:
        """The design of least loss by what was told; solved for once, until more is told."""
        if self._losses is None:
            assert self._anchors is not None, "there are designs that keep the limits"
            decisions = self._space.decisions
            self._losses = choice_losses(decisions, [self._anchors.of(one) for one in decisions], self._heard)
        if (metric, budget) not in self._by_budget:
            self._by_budget[metric, budget] = self._designs.at(metric, budget, self._losses)
        return self._by_budget[metric, budget]
