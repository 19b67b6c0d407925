"""The samplers, in the order in which they are shown. Importing this imports none of them, and no optuna."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

from search_spaces.choose_sampler import choose_sampler
from search_spaces.extensions import look_up, with_installed
from search_spaces.samplers.base import Proposal, Sampler, ToldTrial
from search_spaces.space import Space
from search_spaces.spec import SamplerName, SearchSpec

__all__ = ["SAMPLERS", "Proposal", "Sampler", "ToldTrial", "installed_samplers", "make_sampler"]

MakeSampler = Callable[[SearchSpec, Space], Sampler]


def _from(module: str, name: str) -> MakeSampler:
    """Each is imported when it is made: optuna takes a second to import, and most processes never sample."""

    def make(spec: SearchSpec, space: Space) -> Sampler:
        sampler: Sampler = getattr(import_module(f"{__name__}.{module}"), name)(spec, space)
        return sampler

    return make


def _chosen(spec: SearchSpec, space: Space) -> Sampler:
    return SAMPLERS[choose_sampler(spec, space).name](spec, space)


SAMPLERS: dict[str, MakeSampler] = {
    str(SamplerName.AUTO): _chosen,
    str(SamplerName.UNIFORM): _from("uniform", "UniformSampler"),
    str(SamplerName.GRID): _from("grid", "GridSampler"),
    str(SamplerName.RANDOM): _from("random", "RandomSampler"),
    str(SamplerName.TPE): _from("tpe", "TpeSampler"),
    str(SamplerName.NSGA2): _from("nsga2", "Nsga2Sampler"),
    str(SamplerName.GP): _from("gp", "GpSampler"),
    str(SamplerName.GREEDY): _from("greedy", "GreedySampler"),
    str(SamplerName.DDPG): _from("ddpg", "DdpgSampler"),
    str(SamplerName.EVOLUTION): _from("evolution", "EvolutionSampler"),
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
