"""Tree-structured Parzen estimator (Bergstra et al. 2011; several objectives: Ozaki et al. 2022), by Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from search_spaces.samplers.optuna_view import OptunaSampler, view
from search_spaces.space import Indices, Space
from search_spaces.spec import SearchSpec


class TpeSampler(OptunaSampler):
    """Draws where good trials are dense and the others are not; one joint density over all decisions.

    Open designs count as bad ones until they are told (constant liar), so that several slots look at different
    places. The first ten trials are random, told baseline trials included.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        super().__init__(spec, space)
        self._trials: list[FrozenTrial] = []

    def _add(self, trial: FrozenTrial) -> None:
        self._trials.append(trial)

    def _infer(self, seed: int, running: Sequence[Indices]) -> dict[str, Any]:
        liars = [self._freeze(self._learnt + i, indices, None, 0.0) for i, indices in enumerate(running)]
        asked = self._freeze(self._learnt + len(liars), (0,) * len(self._levels), None, 0.0)
        sampler = TPESampler(multivariate=True, constant_liar=True, seed=seed)
        return sampler.sample_relative(view(self._directions, self._trials + liars), asked, self._distributions)
