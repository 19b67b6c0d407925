"""From scores of atoms and a pruning ratio of the whole network to a Design, and how a ratio is spread over rounds.

Ratios are shares of filters: of the output channels of all convs and linears that may lose any, depthwise ones
included, as Lubana and Dick count (ICLR 2021, arXiv 2009.11839). It must not know where scores come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from search_spaces.apply import structure_of
from search_spaces.coupling import Coupling
from search_spaces.design import Design, Kind, decision_name
from search_spaces.network import Network

LEAST_SHARE = 0.05
"""Of each channel group that stays, whatever its scores: the paper's code takes no more than 95% of a layer."""


class Ranking(StrEnum):
    """Where channels compete."""

    LOCAL = "local"  # within their channel group; every group loses the same share
    GLOBAL = "global"  # in the whole network, by score per filter, with no normalisation between layers


class PruningSchedule(StrEnum):
    """How many filters are left after each round."""

    EXACT = "exact"  # what r_i says, rounded once: the last round leaves the ratio that was asked for
    PAPER_CODE = "paper_code"  # as published for VGG and MobileNet: a whole number of filters goes in each round
    PAPER_CODE_RESIDUAL = "paper_code_residual"  # as published for ResNet: what is left is cut to whole per cent


def round_ratio(ratio: float, number: int, rounds: int) -> float:
    """The share of the filters there are that goes in round `number`, from 1: r_i = p / (i p + n (1 - p)).

    What is left after all rounds is 1 - p; after round i it is n (1 - p) / (i p + n (1 - p)).
    """
    return ratio / (number * ratio + rounds * (1 - ratio))


def filters_left(filters: int, ratio: float, rounds: int, schedule: PruningSchedule) -> tuple[int, ...]:
    """How many of `filters` are left after each round.

    Raises:
        ValueError: the ratio is not from 0 to below 1, or there is no round.
    """
    if not 0 <= ratio < 1 or rounds < 1:
        raise ValueError(f"a ratio from 0 to below 1 and at least one round are needed, not {ratio} in {rounds}")
    numbers = range(1, rounds + 1)
    if schedule is PruningSchedule.EXACT:
        kept = rounds * (1 - ratio)
        return tuple(round(filters * kept / (number * ratio + kept)) for number in numbers)
    left, per_cent, counts = filters, 100, []
    for number in numbers:
        goes = round_ratio(ratio, number, rounds)
        if schedule is PruningSchedule.PAPER_CODE:
            left -= int(left * goes)
        else:
            per_cent = int(per_cent * (1 - goes))
            left = round(filters * per_cent / 100)
        counts.append(left)
    return tuple(counts)


def count_filters(network: Network) -> int:
    """Filters that could go: those of channels that need not all stay."""
    coupling = structure_of(network).coupling
    free = np.array([not group.frozen for group in coupling.groups])
    return int(_filters_of_atoms(network)[free[coupling.group_of_atom]].sum())


def keep_filters(
    network: Network,
    filters: int,
    scores: np.ndarray,
    ranking: Ranking,
    divisor: int = 1,
    least_share: float = LEAST_SHARE,
) -> Design:
    """The design that keeps about so many filters.

    Globally, the channels of least score per filter go first, until the number is as near as it can be: channels go
    by as many as divisor and grouped convs want, and with all their filters. What several convs make together (a
    residual sum) is so compared by the mean of their filters, which is as near to single filters as the graph allows.

    Args:
        network: the base.
        filters: to keep, of `count_filters(network)`.
        scores: importance of each atom; the one that the channels are chosen by.
        ranking: where channels compete. Locally scores play no part in the counts.
        divisor: what kept channel counts must be a multiple of, as the device likes it.
        least_share: of each group's channels that stays, at least; one multiple of the divisor always stays.
    """
    ladders = _ladders(network, scores, divisor, least_share)
    total = count_filters(network)
    if ranking is Ranking.LOCAL:
        kept = [ladder.nearest(filters / max(total, 1)) for ladder in ladders]
    else:
        kept = _keep_best(ladders, total - filters)
    groups = structure_of(network).coupling.groups
    named = zip(ladders, kept, strict=True)
    return Design.of(
        {
            decision_name(Kind.CHANNELS, groups[ladder.group].name): count
            for ladder, count in named
            if count < groups[ladder.group].size
        }
    )


def protect_last(network: Network, scores: np.ndarray) -> np.ndarray:
    """Scores as the paper's code caps a layer for VGG and MobileNet: its last 5% of filters and one more never go.

    By their place, not by their importance; for comparison with it alone.
    """
    coupling = structure_of(network).coupling
    capped = scores.copy()
    for index, group in enumerate(coupling.groups):
        members = np.flatnonzero(coupling.group_of_atom == index)
        capped[members[-(int(LEAST_SHARE * group.size) + 1) :]] = _OUT_OF_REACH
    return capped


_OUT_OF_REACH = 1e7


@dataclass(frozen=True, slots=True, eq=False)
class _Ladder:
    """The counts that a channel group may be brought to, one bundle of atoms after the other.

    Attributes:
        group: its index.
        counts: atoms kept, descending, from the whole group.
        scores: per filter, of the bundle that goes with each count but the first; ascending.
        filters: in each bundle.
    """

    group: int
    counts: np.ndarray
    scores: np.ndarray
    filters: np.ndarray

    def nearest(self, share: float) -> int:
        return int(self.counts[np.abs(self.counts - share * self.counts[0]).argmin()])


def _ladders(network: Network, scores: np.ndarray, divisor: int, least_share: float) -> list[_Ladder]:
    coupling = structure_of(network).coupling
    filters, made = _filters_of_atoms(network), _filters_of_atoms(network, are_made=True)
    ladders = []
    for index, group in enumerate(coupling.groups):
        if group.frozen:
            continue
        atom = int(np.flatnonzero(coupling.group_of_atom == index)[0])  # all atoms of a group have as many filters
        step = _step(coupling, index, divisor)
        least = max(math.ceil(least_share * group.size / step), 1) * step
        counts = np.array([group.size, *range((group.size - 1) // step * step, least - 1, -step)])
        best = _best_first(coupling, index, scores) / made[atom]
        rows = counts // group.multiple_of
        means = [best[low:high].mean() for high, low in pairwise(rows)]
        ladders.append(_Ladder(index, counts, np.array(means), (counts[:-1] - counts[1:]) * filters[atom]))
    return ladders


def _step(coupling: Coupling, index: int, divisor: int) -> int:
    """In atoms: what balances grouped convs and what the device likes."""
    group = coupling.groups[index]
    channels = [dict(coupling.channels_per_atom[producer])[index] for producer in group.producers]
    return math.lcm(group.multiple_of, *(divisor // math.gcd(count, divisor) for count in channels))


def _best_first(coupling: Coupling, index: int, scores: np.ndarray) -> np.ndarray:
    """Scores of a group, best first; of balance classes, which lose equally many, the mean of their ranks."""
    members = np.flatnonzero(coupling.group_of_atom == index)
    classes = coupling.class_of_atom[members]
    ranked = [-np.sort(-scores[members[classes == kind]]) for kind in np.unique(classes)]
    return np.asarray(np.mean(ranked, axis=0))


def _filters_of_atoms(network: Network, *, are_made: bool = False) -> np.ndarray:
    """How many filters go with each atom, (atoms,); `are_made`: not those of depthwise layers, which hand it on."""
    structure = structure_of(network)
    counts = np.zeros(len(structure.coupling.group_of_atom), dtype=int)
    for name in structure.layers:
        if not (are_made and name in structure.depthwise):
            np.add.at(counts, structure.coupling.atoms[name], 1)
    return counts


def _keep_best(ladders: list[_Ladder], to_remove: int) -> list[int]:
    """Counts by group, once the bundles of least score have gone."""
    if not ladders:
        return []
    owner = np.concatenate([np.full(len(ladder.scores), number) for number, ladder in enumerate(ladders)])
    order = np.argsort(np.concatenate([ladder.scores for ladder in ladders]), kind="stable")
    removed = np.cumsum(np.concatenate([[0], np.concatenate([ladder.filters for ladder in ladders])[order]]))
    gone = owner[order[: int(np.abs(removed - to_remove).argmin())]]
    bundles = np.bincount(gone.astype(int), minlength=len(ladders))
    return [int(ladder.counts[number]) for ladder, number in zip(ladders, bundles, strict=True)]
