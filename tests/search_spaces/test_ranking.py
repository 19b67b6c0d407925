"""From scores to channel counts: the schedule telescopes, and what goes is what scores least, as far as it may go."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from search_spaces.apply import apply, atoms_kept, structure_of
from search_spaces.catalog import build_network
from search_spaces.network import Network
from search_spaces.ranking import (
    PruningSchedule,
    Ranking,
    count_filters,
    filters_left,
    keep_filters,
    protect_last,
    round_ratio,
)
from search_spaces.spec import Family, NetworkSpec
from tests.random_networks import networks

ratios = st.floats(0.0, 0.99)


def build(family: Family, width: float = 1.0) -> Network:
    return build_network(NetworkSpec(family=family, width=width, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)


@given(ratios, st.integers(1, 100))
def test_what_the_rounds_leave_telescopes(ratio: float, rounds: int) -> None:
    left = 1.0
    for number in range(1, rounds + 1):
        left *= 1 - round_ratio(ratio, number, rounds)
        assert left == pytest.approx(rounds * (1 - ratio) / (number * ratio + rounds * (1 - ratio)))
    assert left == pytest.approx(1 - ratio)


@given(st.integers(1, 20_000), ratios, st.integers(1, 60))
def test_exact_rounds_end_at_the_ratio(filters: int, ratio: float, rounds: int) -> None:
    left = filters_left(filters, ratio, rounds, PruningSchedule.EXACT)
    assert len(left) == rounds
    assert left[-1] == pytest.approx(filters * (1 - ratio), abs=0.5 + 1e-6)
    assert list(left) == sorted(left, reverse=True)


def test_most_goes_in_the_first_rounds() -> None:
    assert round_ratio(0.75, 1, 25) == pytest.approx(0.107, abs=5e-4)
    assert round_ratio(0.75, 25, 25) == pytest.approx(0.03, abs=5e-4)
    assert [round_ratio(0.75, number, 5) for number in (1, 5)] == pytest.approx([0.375, 0.15])


@pytest.mark.parametrize(
    ("nominal", "effective"),
    [(60, (60, 62, 68)), (50, (50, 51, 59)), (65, (65, 67, 73)), (75, (75, 77, 82))],
)
def test_the_published_code_prunes_residual_networks_by_more_than_it_says(nominal, effective) -> None:
    """What its cut to whole per cent leads to, at 1, 5 and 25 rounds; the exact schedule does as it says."""
    for rounds, per_cent in zip((1, 5, 25), effective, strict=True):
        left = filters_left(2128, nominal / 100, rounds, PruningSchedule.PAPER_CODE_RESIDUAL)[-1]
        assert 100 * (1 - left / 2128) == pytest.approx(per_cent, abs=0.03)
        exact = filters_left(2128, nominal / 100, rounds, PruningSchedule.EXACT)[-1]
        assert 100 * (1 - exact / 2128) == pytest.approx(nominal, abs=0.03)


def test_the_published_code_prunes_others_by_a_little_less() -> None:
    left = filters_left(2944, 0.75, 25, PruningSchedule.PAPER_CODE)[-1]
    assert 1 - left / 2944 == pytest.approx(0.747, abs=5e-4)


@pytest.mark.parametrize(("ratio", "rounds"), [(1.0, 1), (-0.1, 1), (0.5, 0), (math.nan, 2)])
def test_rounds_that_make_no_sense_are_refused(ratio: float, rounds: int) -> None:
    with pytest.raises(ValueError, match="at least one round"):
        filters_left(100, ratio, rounds, PruningSchedule.EXACT)


def test_filters_are_counted_as_in_the_paper() -> None:
    counts = {family: count_filters(build(family)) for family in (Family.VGG_13, Family.MOBILENET_V1, Family.RESNET_56)}
    assert counts == {Family.VGG_13: 2944, Family.MOBILENET_V1: 10_944, Family.RESNET_56: 2128}


def draw_scores(network: Network, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(structure_of(network).coupling.group_of_atom))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_globally_the_lowest_scores_go(ratio: float) -> None:
    """In a chain of convs every atom is one filter, so the number is met exactly."""
    network = build(Family.VGG_13, 0.25)
    structure, scores = structure_of(network), draw_scores(network, 0)
    wanted = round(count_filters(network) * (1 - ratio))
    design = keep_filters(network, wanted, scores, Ranking.GLOBAL, least_share=0.0)
    kept = atoms_kept(network, design)
    free = [index for index, group in enumerate(structure.coupling.groups) if not group.frozen]
    threshold = np.sort(scores[np.isin(structure.coupling.group_of_atom, free)])[-wanted]
    for index in free:
        group = structure.coupling.groups[index]
        own = scores[structure.coupling.group_of_atom == index]
        assert kept.get(group.name, group.size) == (own >= threshold).sum()
    assert count_filters(apply(network, design)) == wanted


def test_a_layer_that_scores_low_is_not_lost() -> None:
    network = build(Family.VGG_13, 0.25)
    structure, scores = structure_of(network), draw_scores(network, 1)
    index = structure.group_index["stage5.conv2"]
    scores[structure.coupling.group_of_atom == index] *= 1e-6
    wanted = count_filters(network) // 2
    kept = atoms_kept(network, keep_filters(network, wanted, scores, Ranking.GLOBAL))
    assert kept["stage5.conv2"] == math.ceil(0.05 * 128)
    assert atoms_kept(network, keep_filters(network, wanted, scores, Ranking.GLOBAL, 16))["stage5.conv2"] == 16


def test_channels_of_a_sum_go_by_the_mean_of_the_filters_that_make_them() -> None:
    """Else many layers' scores together would save each sum."""
    network = build(Family.RESNET_56, 0.5)
    coupling = structure_of(network).coupling
    makers = np.zeros(len(coupling.group_of_atom))
    for layer in structure_of(network).layers:
        np.add.at(makers, coupling.atoms[layer], 1)
    kept = atoms_kept(network, keep_filters(network, count_filters(network) // 2, makers, Ranking.GLOBAL))
    shares = [kept.get(group.name, group.size) for group in coupling.groups if not group.frozen]
    assert 0 < len(kept) < len(shares)  # all score alike, so that the first ones go, sums among them
    assert "stem" in kept


def test_locally_all_lose_the_same_share() -> None:
    network = build(Family.MOBILENET_V1, 0.5)
    total = count_filters(network)
    design = keep_filters(network, total // 4, draw_scores(network, 2), Ranking.LOCAL)
    kept = atoms_kept(network, design)
    for group in structure_of(network).coupling.groups:
        if not group.frozen:
            assert kept[group.name] == group.size // 4
    assert not keep_filters(network, total, draw_scores(network, 2), Ranking.LOCAL).to_json()


@settings(max_examples=60, deadline=None)
@given(networks(), st.floats(0.0, 1.0), st.sampled_from(Ranking), st.sampled_from([1, 2, 3, 8]), st.integers(0, 9))
def test_any_network_keeps_about_as_many_as_it_may(network, share, ranking, divisor, seed) -> None:
    scores, total = draw_scores(network, seed), count_filters(network)
    structure = structure_of(network)
    design = keep_filters(network, round(total * share), scores, ranking, divisor)
    applied = apply(network, design)  # fits grouped convs and shuffles, or is refused
    kept = atoms_kept(network, design)
    for group in structure.coupling.groups:
        count = kept.get(group.name, group.size)
        assert 1 <= count <= group.size
        made = dict(structure.coupling.channels_per_atom[group.producers[0]])[structure.group_index[group.name]]
        assert count == group.size or count * made % divisor == 0
    assert count_filters(applied) <= total
    if share == 1.0:
        assert not design.to_json()


def test_more_filters_wanted_are_more_filters_kept() -> None:
    network = build(Family.SHUFFLENET_V2, 0.5)
    scores, total = draw_scores(network, 3), count_filters(network)
    found = [
        count_filters(apply(network, keep_filters(network, wanted, scores, Ranking.GLOBAL)))
        for wanted in range(0, total + 1, total // 20)
    ]
    assert found == sorted(found)
    assert found[10] == pytest.approx(total / 2, rel=0.02)


def test_the_published_cap_is_by_place() -> None:
    network = build(Family.VGG_13, 0.25)
    coupling = structure_of(network).coupling
    capped = protect_last(network, np.zeros(len(coupling.group_of_atom)))
    members = np.flatnonzero(coupling.group_of_atom == structure_of(network).group_index["stage4.conv1"])
    assert len(members) == 128
    assert capped[members].tolist() == [0.0] * 121 + [1e7] * 7
    kept = atoms_kept(network, keep_filters(network, 0, capped, Ranking.GLOBAL, least_share=0.0))
    assert kept["stage4.conv1"] == 1
