"""Which group sizes a conv can have, and which of them is nearest to one that it cannot."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.grouping import nearest_group_count, nearest_group_size, possible_group_counts

CHANNELS = st.integers(1, 2000)


@given(CHANNELS, CHANNELS)
def test_every_number_that_divides_both_is_possible(inputs, outputs):
    expected = [count for count in range(1, inputs + 1) if inputs % count == 0 and outputs % count == 0]
    assert list(possible_group_counts(inputs, outputs)) == expected


@given(CHANNELS, CHANNELS, st.integers(1, 10**6))
def test_no_possible_number_is_nearer(inputs, outputs, wanted):
    counts = possible_group_counts(inputs, outputs)
    found = nearest_group_count(inputs, outputs, wanted)
    assert found in counts
    assert max(found, wanted) / min(found, wanted) <= min(max(n, wanted) / min(n, wanted) for n in counts) * (1 + 1e-8)
    size = nearest_group_size(inputs, outputs, wanted)
    assert inputs % size == 0
    assert inputs // size in counts
    distances = [abs(math.log(inputs / count / wanted)) for count in counts]
    assert abs(math.log(size / wanted)) <= min(distances) + 1e-8


@given(CHANNELS)
def test_what_divides_stays(channels):
    for count in possible_group_counts(channels, channels):
        assert nearest_group_count(channels, channels, count) == count
        assert nearest_group_size(channels, channels, channels // count) == channels // count


@pytest.mark.parametrize(
    ("channels", "wanted", "count", "size"),
    [(48, 32, 24, 24), (32, 128, 32, 32), (47, 16, 47, 47), (128, 10**400, 128, 128), (8, 1, 1, 1)],
)
def test_the_rule_by_example(channels, wanted, count, size):
    assert nearest_group_count(channels, channels, wanted) == count
    assert nearest_group_size(channels, channels, wanted) == size
