"""The uniform sweep: one ratio and one precision everywhere. What every search must beat, and the smallest sampler."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.design import Design
from search_spaces.foreseen import ForeseenLimits
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.space import Space
from search_spaces.spec import SearchSpec


class UniformSampler(Sampler):
    """Proposes the designs of `space.uniform` in their order, and then nothing.

    Designs are compared by their choice indices, in which a decision that is left out and one that is set to the
    base's value are the same. Those that miss a limit which is judged by design alone are left out. A search whose
    baseline has been run already has nothing left to propose.
    """

    def __init__(self, spec: SearchSpec, space: Space) -> None:
        self._space = space
        rows = [space.indices_of(design) for design in space.uniform]
        kept = ForeseenLimits(space, spec).keep(rows)
        self._designs = [design for design, keeps in zip(space.uniform, kept, strict=True) if keeps]
        self._told: set[tuple[int, ...]] = set()

    def tell(self, trials: Sequence[ToldTrial]) -> None:
        self._told.update(self._space.indices_of(trial.design) for trial in trials)

    def ask(self, count: int, first_number: int, open_designs: Sequence[Design]) -> list[Proposal]:
        taken = self._told.union(self._space.indices_of(design) for design in open_designs)
        left = [design for design in self._designs if self._space.indices_of(design) not in taken]
        return [Proposal(design, {}) for design in left[:count]]
