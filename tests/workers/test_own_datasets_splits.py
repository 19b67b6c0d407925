"""Which image of a user's data set is in which split, by the whole path: arrays are archived, indexed, added to."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.datasets import held_out_shares
from tests.workers.own_data import make_npz, numbered, split_of
from workers.datasets.assignment import NOT_ASSIGNED, assign_splits, due
from workers.datasets.index import Index, SplitNumber
from workers.datasets.indexing import index_dataset
from workers.datasets.refusal import DatasetRefusedError
from workers.strata import IN_EVERY_SPLIT, find_bins, find_edges

HELD_OUT = ("SCORE", "CONFIRM", "CALIBRATE")
FEWEST = 60


@dataclass(frozen=True)
class Made:
    """What goes into an archive: numbers, each of which is an image, and their labels."""

    values: np.ndarray
    labels: np.ndarray
    test_values: np.ndarray


def made_of(values: np.ndarray, classes: int | None, tests: int = 0) -> Made:
    """Images of so many classes, the later ones rarer; None for values. The first few are for testing."""
    pool, test_values = values[tests:], values[:tests]
    if classes is None:
        return Made(pool, np.sqrt(pool), test_values)
    return Made(pool, class_of(pool, classes), test_values)


def class_of(values: np.ndarray, classes: int) -> np.ndarray:
    """The class of a number: 0 for about half of them, 1 for a quarter, and so on."""
    bits = np.array([bin((value * 40503) & 0xFFFF | 1 << (classes - 1))[::-1].index("1") for value in values.tolist()])
    return np.minimum(bits, classes - 1).astype(np.int64)


@st.composite
def data_sets(draw: st.DrawFn) -> Made:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.one_of(st.none(), st.integers(2, 5)))
    count = draw(st.integers(FEWEST, 400))
    values = generator.choice(draw(st.sampled_from([1000, 65_536])), size=count, replace=draw(st.booleans()))
    return made_of(values, classes, draw(st.sampled_from([0, 20])))


def archive(folder: str, name: str, parts: Made, order: np.ndarray | None = None) -> Path:
    order = np.arange(len(parts.values)) if order is None else order
    tests = {}
    if len(parts.test_values):
        test_labels = np.sqrt(parts.test_values) if parts.labels.dtype.kind == "f" else parts.test_values * 0
        tests = {"test_images": numbered(parts.test_values), "test_labels": test_labels}
    return make_npz(Path(folder) / name, numbered(parts.values[order]), parts.labels[order], **tests)


def index(paths: Sequence[Path], earlier: Index | None = None) -> Index | None:
    """None when too little is left to be a data set."""
    try:
        return index_dataset(paths, "mine", earlier)
    except DatasetRefusedError:
        return None


def strata_of(made: Index) -> np.ndarray:
    return made.rows.labels if made.class_names else find_bins(made.rows.labels, made.edges)


few = settings(max_examples=60, deadline=None)


@few
@given(data_sets())
def test_every_image_is_in_one_split_and_none_is_lost(parts):
    with tempfile.TemporaryDirectory() as folder:
        made = index([archive(folder, "a.npz", parts)])
    if made is None:
        return
    assert len(np.unique(made.rows.digests)) == len(made)
    assert np.isin(made.splits, list(SplitNumber)).all()
    assert (np.diff(made.rows.digests.astype(object)) > 0).all()
    tested = int((made.splits == SplitNumber.TEST).sum())
    pool = set(parts.values.tolist()) - set(parts.test_values.tolist())
    assert len(made) - tested <= len(pool)
    if parts.labels.dtype.kind == "f":  # no two images disagree on a square root
        assert (len(made) - tested, tested) == (len(pool), len(set(parts.test_values.tolist())))


@few
@given(data_sets(), st.integers(0, 2**32))
def test_the_order_of_the_archive_does_not_matter(parts, seed):
    order = np.random.default_rng(seed).permutation(len(parts.values))
    with tempfile.TemporaryDirectory() as folder:
        one = index([archive(folder, "a.npz", parts)])
        other = index([archive(folder, "b.npz", parts, order)])
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.digest == other.digest
        assert split_of(one) == split_of(other)


@few
@given(data_sets())
def test_each_class_is_within_one_image_of_its_share_in_each_split(parts):
    with tempfile.TemporaryDirectory() as folder:
        made = index([archive(folder, "a.npz", parts)])
    if made is None:
        return
    strata, in_pool = strata_of(made), made.splits != SplitNumber.TEST
    sizes = np.bincount(strata[in_pool])
    shares = held_out_shares(int(in_pool.sum()))
    for name in HELD_OUT:
        there = np.bincount(strata[made.splits == SplitNumber[name]], minlength=len(sizes))
        assert (np.abs(there - sizes * shares[name.lower()]) <= 1).all()
        assert (there[sizes >= IN_EVERY_SPLIT] >= 1).all()
    trained = np.bincount(strata[made.splits == SplitNumber.TRAIN], minlength=len(sizes))
    assert (2 * trained >= sizes).all()


@few
@given(data_sets(), st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_images_keep_split_and_label_whatever_is_added(parts, seeds):
    with tempfile.TemporaryDirectory() as folder:
        paths = [archive(folder, "0.npz", parts)]
        made = index(paths)
        for number, seed in enumerate(seeds, 1):
            if made is None:
                return
            generator = np.random.default_rng(seed)
            values = generator.integers(65_536, size=int(generator.integers(1, 300)))
            classes = len(made.class_names) + int(generator.integers(2)) if made.class_names else None
            paths.append(
                archive(
                    folder, f"{number}.npz", made_of(values, classes, int(generator.integers(2)) * len(values) // 3)
                )
            )
            later = index(paths, made)
            if later is None:
                return
            before, after = split_of(made), split_of(later)
            assert {digest: after[digest] for digest in before} == before
            assert later.class_names[: len(made.class_names)] == made.class_names
            assert (
                Counter(split for split, _ in after.values())["TRAIN"]
                >= Counter(split for split, _ in before.values())["TRAIN"]
            )
            made = later


class TestAssignment:
    def test_known_quotas(self):
        seats = due(np.array([120, 60, 8, 7, 3, 1]))
        assert seats[SplitNumber.SCORE].tolist() == [20, 10, 1, 1, 1, 0]
        assert seats[SplitNumber.CONFIRM].tolist() == [20, 10, 1, 1, 0, 0]
        assert seats[SplitNumber.CALIBRATE].tolist() == [12, 6, 1, 1, 0, 0]

    def test_large_data_sets_hold_out_less_and_small_classes_are_still_in_every_split(self):
        seats = due(np.array([59_992, 8]))
        assert {split.name: counts.tolist() for split, counts in seats.items()} == {
            "SCORE": [3000, 1],
            "CONFIRM": [4999, 1],
            "CALIBRATE": [2000, 1],
        }

    def test_of_many_small_classes_each_split_gets_some(self):
        seats = due(np.full(100, 5))
        assert {split.name: int(counts.sum()) for split, counts in seats.items()} == {
            "SCORE": 83,
            "CONFIRM": 83,
            "CALIBRATE": 34,
        }
        assert max(sum(seats.values()).tolist()) == 2

    def test_what_is_too_much_stays_and_what_is_missing_is_filled_in_order(self):
        strata = np.zeros(60, dtype=np.int64)
        splits = np.full(60, NOT_ASSIGNED, dtype=np.uint8)
        splits[:20] = SplitNumber.SCORE  # twice what 60 images are due
        out = assign_splits(strata, splits)
        assert (out[:20] == SplitNumber.SCORE).all()
        assert (out[20:30] == SplitNumber.CONFIRM).all()
        assert (out[30:36] == SplitNumber.CALIBRATE).all()
        assert (out[36:] == SplitNumber.TRAIN).all()

    def test_the_test_set_is_left_alone_and_counts_for_no_share(self):
        splits = np.array([SplitNumber.TEST] * 60 + [NOT_ASSIGNED] * 60, dtype=np.uint8)
        out = assign_splits(np.zeros(120, dtype=np.int64), splits)
        assert np.bincount(out).tolist() == [34, 6, 10, 10, 60]

    def test_bins_hold_equally_many_values(self):
        values = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
        edges = find_edges(values)
        assert len(edges) == 9
        assert set(np.bincount(find_bins(values, edges)).tolist()) == {100}

    @pytest.mark.parametrize(
        ("values", "bins"), [(np.arange(30), 3), (np.arange(7), 1), (np.ones(100), 1), (np.arange(2).repeat(50), 2)]
    )
    def test_few_or_equal_values_make_fewer_bins(self, values, bins):
        assert len(find_edges(values.astype(np.float32))) + 1 == bins
