"""What every Importance must do, as tests. Subclass it in a test module and say which importance.

class TestMyImportance(ImportanceContract):
    def make_importance(self) -> Importance:
        return MyImportance()
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import pytest

from search_spaces.apply import structure_of
from search_spaces.catalog import build_network
from search_spaces.network import Network
from search_spaces.spec import Family, NetworkSpec
from workers.importance.base import Evidence, Importance
from workers.splits import Split, normalise
from workers.testing import random_weights
from workers.transforms.reconstruct import observe
from workers.weights import Weights

CLASSES = 4
SMALL = {
    Family.MOBILENET_V1: 0.1,
    Family.RESNET_18: 0.1,
    Family.MOBILENET_V3_SMALL: 0.1,  # gates: one more reader of a channel
    Family.SHUFFLENET_V2: 0.1,  # slices and shuffles
    Family.VGG_13: 0.1,  # a flattened map
}


class ImportanceContract:
    """See `workers.importance.base.Importance`. Tried on networks of the catalog with random weights."""

    @abstractmethod
    def make_importance(self) -> Importance:
        """The importance under test."""

    @pytest.fixture(params=SMALL, ids=str)
    def network(self, request: pytest.FixtureRequest) -> Network:
        spec = NetworkSpec(family=request.param, width=SMALL[request.param], input=(3, 32, 32))
        return build_network(spec, CLASSES, (0.5,) * 3, (0.5,) * 3)

    @pytest.fixture
    def weights(self, network: Network) -> Weights:
        return random_weights(network, seed=3)

    @pytest.fixture
    def evidence(self, network: Network, weights: Weights) -> Evidence:
        images = np.random.default_rng(0).integers(0, 256, (16, *network.input.shape), dtype=np.uint8)
        train = Split("train", images[8:], np.arange(8) % CLASSES, "")
        return Evidence(observe(network, weights, normalise(images[:8], network.input)), train)

    def test_every_atom_has_a_finite_score(self, network: Network, weights: Weights, evidence: Evidence) -> None:
        scores = self.make_importance().atom_scores(network, weights, evidence)
        assert scores.shape == (len(structure_of(network).coupling.group_of_atom),)
        assert np.isfinite(scores).all()

    def test_the_same_base_has_the_same_scores(self, network: Network, weights: Weights, evidence: Evidence) -> None:
        first, second = (self.make_importance().atom_scores(network, weights, evidence) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_the_base_is_left_as_it_was(self, network: Network, weights: Weights, evidence: Evidence) -> None:
        before = {name: array.copy() for name, array in weights.items()}
        images = evidence.observed.images.copy(), evidence.train.images.copy()
        self.make_importance().atom_scores(network, weights, evidence)
        assert all(np.array_equal(weights[name], array) for name, array in before.items())
        np.testing.assert_array_equal(evidence.observed.images, images[0])
        np.testing.assert_array_equal(evidence.train.images, images[1])

    def test_it_prefers_some_channels_to_others(self, network: Network, weights: Weights, evidence: Evidence) -> None:
        coupling = structure_of(network).coupling
        scores = self.make_importance().atom_scores(network, weights, evidence)
        free = [number for number, group in enumerate(coupling.groups) if not group.frozen and group.size > 1]
        assert any(np.ptp(scores[coupling.group_of_atom == number]) > 0 for number in free)
