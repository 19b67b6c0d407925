"""Every family of the catalog, pruned at random: shapes as ONNX infers them, and values as masking gives them."""

from __future__ import annotations

import pytest

from search_spaces.apply import structure_of
from search_spaces.catalog import build_network
from search_spaces.spec import Family, NetworkSpec
from workers import testing
from workers.testing import prune_at_random
from workers.transforms.prune import slice_weights

pytestmark = pytest.mark.usefixtures("one_thread")

DESIGNS, AT_ONCE = 200, 50
WIDTH = 0.1
SIDES = {Family.INCEPTION_V3: 75}
"""From which on the stem is unpadded and pools; the others have all that they can have at 16 pixels."""


def narrow(family):
    side = SIDES.get(family, 16)
    spec = NetworkSpec(family=family, width=WIDTH, input=(3, side, side))
    return build_network(spec, 10, (0.5,) * 3, (0.3,) * 3)


@pytest.mark.parametrize("family", Family)
def test_slicing_any_channels_is_masking_them(family):
    network = narrow(family)
    designs = list(prune_at_random(network, DESIGNS, AT_ONCE, seed=len(family)))
    named = {name for design in designs for name in design}
    structure = structure_of(network)
    assert len(designs) == DESIGNS
    assert {f"channels/{group.name}" for group in structure.coupling.groups if not group.frozen} <= named
    assert {f"group_size/{layer}" for layer in structure.depthwise} <= named


def test_a_wrong_channel_is_noticed(monkeypatch):
    def sliced_elsewhere(network, weights, kept):
        kept = kept | {"block2.pointwise": kept["block2.pointwise"][::-1]}
        return slice_weights(network, weights, kept)

    monkeypatch.setattr(testing, "slice_weights", sliced_elsewhere)
    with pytest.raises(AssertionError, match=r"block2\.\w+ is off by"):
        list(prune_at_random(narrow(Family.MOBILENET_V1), 5, 5, seed=0))
