"""Views: reshapes and transposes of a tensor followed without computing them, held against numpy."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from workers.importing.views import (
    flat_order,
    is_axis,
    merged,
    plain_view,
    reshaped,
    same_arrangement,
    shuffle_groups,
    transposed,
)

SHAPE = (8, 3, 2)


def arranged(view) -> np.ndarray:
    """The ONNX tensor that the view stands for, of a tensor whose values are their own positions."""
    return flat_order(view).reshape(view.shape)


def test_a_plain_view_is_the_tensor_itself():
    view = plain_view("x", SHAPE)
    assert view.shape == SHAPE
    assert np.array_equal(arranged(view), np.arange(48).reshape(SHAPE))
    assert [is_axis(group, axis, size) for axis, (group, size) in enumerate(zip(view.groups, SHAPE, strict=True))] == [
        True,
        True,
        True,
    ]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_chain_of_transposes_and_reshapes_is_what_numpy_computes(data):
    view, expected = plain_view("x", SHAPE), np.arange(48).reshape(SHAPE)
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(expected.ndim)))
            view, expected = transposed(view, order), expected.transpose(order)
        else:
            shape = data.draw(st.sampled_from([(48,), (8, 6), (2, 4, 6), (4, 2, 3, 2), (1, 48, 1), (6, 8), (16, 3)]))
            following = reshaped(view, (1, *shape))
            if following is None:
                continue
            view, expected = following, expected.reshape(shape)
        assert view.shape == expected.shape
        assert np.array_equal(arranged(view), expected)


def test_going_there_and_back_is_recognised():
    view = plain_view("x", SHAPE)
    channels_last = transposed(view, (1, 2, 0))
    assert not same_arrangement(view, channels_last)
    assert same_arrangement(view, transposed(channels_last, (2, 0, 1)))
    flat = reshaped(view, (1, 48))
    assert same_arrangement(view, reshaped(flat, (1, *SHAPE)))
    split = reshaped(view, (1, 2, 2, 2, 3, 2))
    assert same_arrangement(view, reshaped(split, (1, *SHAPE)))


def test_a_shuffle_is_recognised_with_its_groups():
    split = reshaped(plain_view("x", SHAPE), (1, 2, 4, 3, 2))
    shuffled = reshaped(transposed(split, (1, 0, 2, 3)), (1, *SHAPE))
    assert shuffle_groups(shuffled.groups[0], 0, 8) == 2
    channels = np.arange(8).reshape(2, 4).T.reshape(-1)
    assert np.array_equal(arranged(shuffled)[:, 0, 0] // 6, channels)
    assert shuffle_groups(plain_view("x", SHAPE).groups[0], 0, 8) is None
    back = reshaped(transposed(reshaped(shuffled, (1, 4, 2, 3, 2)), (1, 0, 2, 3)), (1, *SHAPE))
    assert is_axis(back.groups[0], 0, 8)


def test_axes_of_one_come_and_go():
    view = plain_view("x", (5, 1, 1))
    assert view.shape == (5, 1, 1)
    assert reshaped(view, (1, 5)).groups == (merged(view.groups[0]),)
    assert same_arrangement(view, reshaped(reshaped(view, (1, 1, 5, 1)), (1, 5, 1, 1)))


def test_a_split_that_mixes_axes_is_not_followed():
    assert reshaped(transposed(plain_view("x", SHAPE), (1, 0, 2)), (1, 4, 12)) is None


def test_pixels_become_rows_and_maps_again():
    maps = transposed(plain_view("x", SHAPE), (1, 2, 0))
    rows = reshaped(maps, (6, 8))
    assert rows.whole_shape == (6, 8)
    assert not same_arrangement(rows, reshaped(maps, (1, 6, 8)))
    assert same_arrangement(reshaped(rows, (1, 3, 2, 8)), maps)
