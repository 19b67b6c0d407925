"""Which sampler a search gets that asks for `auto`, and why. It must not import any: the service tells the reason."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.space import Space
from search_spaces.spec import SamplerName, SearchSpec


@dataclass(frozen=True, slots=True)
class ChosenSampler:
    """Its name, and the reason for people; empty where the spec names it."""

    name: str
    why: str


def choose_sampler(spec: SearchSpec, space: Space) -> ChosenSampler:
    """The sampler that the spec names, or the one that suits the space and the budget."""
    if spec.sampler.name != SamplerName.AUTO:
        return ChosenSampler(spec.sampler.name, "")
    designs, trials = space.size(), spec.budget.trials
    if designs <= trials:
        why = f"the budget of {trials:,} trials suffices for all of the {designs:,} designs: each is tried once"
        return ChosenSampler(str(SamplerName.GRID), why)
    why = (
        f"{trials:,} trials are few of {designs:,} designs: costs are computed, accuracy is predicted from what was "
        "found, and what promises to improve the front most is tried"
    )
    return ChosenSampler(str(SamplerName.EVOLUTION), why)
