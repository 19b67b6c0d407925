"""The samplers, in the order in which they are shown. Importing this imports none of them, and no optuna."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from search_spaces.choose_sampler import choose_sampler
from search_spaces.extensions import look_up, with_installed
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.space import Space
from search_spaces.spec import SamplerName, SearchSpec

__all__ = ["SAMPLERS", "Proposal", "Sampler", "ToldTrial", "installed_samplers", "make_sampler"]

# Each is imported when it is made: optuna and scipy take a second to import, and most processes never sample.


def _make_auto(spec: SearchSpec, space: Space) -> Sampler:
    return SAMPLERS[choose_sampler(spec, space).name](spec, space)


def _make_uniform(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.uniform import UniformSampler

    return UniformSampler(spec, space)


def _make_grid(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.grid import GridSampler

    return GridSampler(spec, space)


def _make_random(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.random import RandomSampler

    return RandomSampler(spec, space)


def _make_tpe(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.tpe import TpeSampler

    return TpeSampler(spec, space)


def _make_nsga2(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.nsga2 import Nsga2Sampler

    return Nsga2Sampler(spec, space)


def _make_gp(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.gp import GpSampler

    return GpSampler(spec, space)


def _make_evolution(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.evolution import EvolutionSampler

    return EvolutionSampler(spec, space)


def _make_greedy(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.greedy import GreedySampler

    return GreedySampler(spec, space)


def _make_ddpg(spec: SearchSpec, space: Space) -> Sampler:
    from search_spaces.samplers.ddpg import DdpgSampler

    return DdpgSampler(spec, space)


MakeSampler = Callable[[SearchSpec, Space], Sampler]

SAMPLERS: dict[str, MakeSampler] = {
    str(SamplerName.AUTO): _make_auto,
    str(SamplerName.UNIFORM): _make_uniform,
    str(SamplerName.GRID): _make_grid,
    str(SamplerName.RANDOM): _make_random,
    str(SamplerName.TPE): _make_tpe,
    str(SamplerName.NSGA2): _make_nsga2,
    str(SamplerName.GP): _make_gp,
    str(SamplerName.GREEDY): _make_greedy,
    str(SamplerName.DDPG): _make_ddpg,
    str(SamplerName.EVOLUTION): _make_evolution,
}


@lru_cache(maxsize=1)
def installed_samplers() -> dict[str, MakeSampler]:
    """Those here, and those that the operator installed (`espalier.samplers`): classes made with a spec and a space."""
    return with_installed(SAMPLERS, "espalier.samplers", Sampler)


def make_sampler(spec: SearchSpec, space: Space) -> Sampler:
    """A fresh sampler for one search, as the spec names and seeds it. It must be told the whole history.

    Raises:
        NotInstalledError: there is none of that name here.
    """
    sampler: Sampler = look_up("sampler", spec.sampler.name, installed_samplers())(spec, space)
    return sampler
