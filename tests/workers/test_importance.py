"""The importances that come with Espalier keep the contract, and are the formulas that they say they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.apply import structure_of
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import GRADIENT_IMPORTANCES
from workers.importance import IMPORTANCES, Evidence, Importance
from workers.importance.filters import filter_norms, sum_over_filters
from workers.importance.flow import BiasedLossPreservation, GradientNormPreservation, GraSP, LossPreservation
from workers.importance.gradients import draw_balanced, draw_first, hessian_gradient, loss_gradient
from workers.importance.norm_scale import BatchNormScale
from workers.importance.testing import ImportanceContract
from workers.splits import Split, normalise
from workers.testing import random_weights
from workers.transforms.reconstruct import observe
from workers.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", IMPORTANCES)
class TestEach(ImportanceContract):
    @pytest.fixture(autouse=True)
    def _take(self, name: str) -> None:
        self.name = name

    def make_importance(self) -> Importance:
        return IMPORTANCES[self.name]()


def residual() -> Network:
    """Two convs add to one sum; a depthwise conv hands it on."""
    nodes = (
        Node("image", Op.INPUT),
        Node("stem", Op.CONV, ("image",), channels=4, kernel=(3, 3), padding=(1, 1, 1, 1)),
        Node("stem.norm", Op.BATCH_NORM, ("stem",)),
        Node("stem.relu", Op.RELU, ("stem.norm",)),
        Node("inner", Op.CONV, ("stem.relu",), channels=4),
        Node("inner.norm", Op.BATCH_NORM, ("inner",)),
        Node("sum", Op.ADD, ("stem.relu", "inner.norm")),
        Node("sum.norm", Op.BATCH_NORM, ("sum",)),
        Node("depthwise", Op.CONV, ("sum.norm",), channels=4, groups=4, kernel=(3, 3), padding=(1, 1, 1, 1)),
        Node("depthwise.norm", Op.BATCH_NORM, ("depthwise",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("depthwise.norm",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("hidden", Op.LINEAR, ("flat",), channels=3, bias=True),
        Node("logits", Op.LINEAR, ("hidden",), channels=3, bias=True),
    )
    return Network("residual", InputContract((2, 6, 6), (0.4, 0.5), (0.3, 0.2)), nodes, "logits")


@pytest.fixture
def network() -> Network:
    return residual()


@pytest.fixture
def weights(network: Network) -> Weights:
    return random_weights(network, seed=5)


@pytest.fixture
def evidence(network: Network, weights: Weights) -> Evidence:
    generator = np.random.default_rng(2)
    images = generator.integers(0, 256, (20, 2, 6, 6), dtype=np.uint8)
    train = Split("train", images, generator.integers(0, 3, 20), "")
    return Evidence(observe(network, weights, normalise(images[:4], network.input)), train)


def test_what_is_summed_are_the_filters_of_all_that_make_a_channel(network: Network) -> None:
    """The sum's channels are made by two convs; the depthwise conv inherits."""
    values = {
        "stem": np.arange(4.0).repeat(18).reshape(4, 2, 3, 3),
        "inner": np.full((4, 4, 1, 1), 10.0),
        "depthwise": np.full((4, 1, 3, 3), 1000.0),
        "hidden": np.ones((3, 4)),
        "logits": np.zeros((3, 3)),
    }
    sums, atoms = sum_over_filters(network, values), structure_of(network).coupling.atoms
    np.testing.assert_allclose(sums[atoms["stem"]], [40.0, 58.0, 76.0, 94.0])
    np.testing.assert_allclose(sums[atoms["hidden"]], 4.0)


def test_norms_of_filters_are_added(network: Network, weights: Weights) -> None:
    scores = filter_norms(network, weights)[structure_of(network).coupling.atoms["depthwise"]]
    for channel, score in enumerate(scores):
        norms = [np.linalg.norm(weights[f"{layer}.weight"][channel].astype(float)) for layer in ("stem", "inner")]
        assert score == pytest.approx(sum(norms))


def test_norms_count_where_they_scale_what_a_layer_makes(network, weights, evidence) -> None:
    """The norm behind the sum scales what two layers make, and that of the depthwise conv what is handed on."""
    scores, atoms = BatchNormScale().atom_scores(network, weights, evidence), structure_of(network).coupling.atoms
    expected = np.abs(weights["stem.norm.weight"].astype(float)) + np.abs(weights["inner.norm.weight"])
    np.testing.assert_allclose(scores[atoms["sum"]], expected)
    norms = np.linalg.norm(weights["hidden.weight"].astype(float), axis=1)
    np.testing.assert_allclose(scores[atoms["hidden"]], norms)


def test_scores_are_their_formulas(network, weights, evidence) -> None:
    """Element by element, then over the filters of one channel of the sum."""
    first = loss_gradient(network, weights, draw_first(evidence.train))
    balanced = draw_balanced(evidence.train)
    cool, hot = (hessian_gradient(network, weights, balanced, temperature)[1] for temperature in (1.0, 200.0))
    channel = 2
    atom = structure_of(network).coupling.atoms["sum"][channel]

    def filters(arrays):
        return np.concatenate([arrays[layer][channel].ravel().astype(float) for layer in ("stem", "inner")])

    theta = filters({layer: weights[f"{layer}.weight"] for layer in ("stem", "inner")})
    expected = {
        LossPreservation: np.abs(theta * filters(first)).sum(),
        BiasedLossPreservation: (theta**2 * np.abs(filters(first))).sum(),
        GraSP: (theta * filters(hot)).sum(),
        GradientNormPreservation: abs((theta * filters(cool)).sum()),
    }
    for importance, value in expected.items():
        assert importance().atom_scores(network, weights, evidence)[atom] == pytest.approx(value, rel=1e-6)


def test_a_small_filter_changes_the_loss_by_what_is_said_of_it(network, weights, evidence) -> None:
    """To first order, which is exact in the limit; where all elements of a filter pull one way, |sum| is sum of |.|."""
    sample = draw_first(evidence.train)
    gradient = loss_gradient(network, weights, sample)["hidden"][1]
    weights["hidden.weight"][1] = 1e-3 * np.sign(gradient)
    atom = structure_of(network).coupling.atoms["hidden"][1]
    score = LossPreservation().atom_scores(network, weights, evidence)[atom]
    without = dict(weights) | {"hidden.weight": weights["hidden.weight"].copy()}
    without["hidden.weight"][1] = 0
    change = mean_loss(network, without, evidence.train) - mean_loss(network, weights, evidence.train)
    assert abs(change) == pytest.approx(score, rel=0.01)
    assert score > 1e-5


def mean_loss(network: Network, weights: Weights, split: Split) -> float:
    """By torch's own module, in float64."""
    from workers.torch_network import build_module

    module = build_module(network, weights).eval().double()
    images = torch.from_numpy(normalise(split.images, network.input)).double()
    with torch.inference_mode():
        return float(torch.nn.functional.cross_entropy(module(images), torch.from_numpy(split.labels)))


@pytest.mark.parametrize("name", sorted(GRADIENT_IMPORTANCES))
def test_others_get_their_turn_between_batches(network, weights, evidence, name: str) -> None:
    turns: list[int] = []
    alert = replace(evidence, yield_to=lambda: turns.append(1))
    scores = IMPORTANCES[name]().atom_scores(network, weights, alert)
    np.testing.assert_array_equal(scores, IMPORTANCES[name]().atom_scores(network, weights, evidence))
    assert len(turns) >= 1
