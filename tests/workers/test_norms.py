"""Batch norms that are put back: they change nothing, say what images tell, and let a network be trained on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings

from search_spaces.catalog import build_network
from search_spaces.network import Network, Op, infer_shapes
from search_spaces.spec import Family, NetworkSpec
from tests.random_networks import networks
from tests.workers.test_parity import random_weights
from workers.fold import fold_batch_norms
from workers.norms import add_norms, settle_norms
from workers.torch_network import build_module
from workers.weights import Weights, check_weights


def outputs(network: Network, weights: Weights, images: np.ndarray, *, training: bool = False) -> np.ndarray:
    with torch.no_grad():
        return build_module(network, weights).train(training)(torch.from_numpy(images)).numpy()


def images_of(network: Network, count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *network.input.shape)).astype(np.float32)


def exported(name: Family) -> tuple[Network, Weights]:
    """As files are: batch norms folded away, with weights that are not neutral."""
    network = build_network(NetworkSpec(family=name, width=0.25, input=(3, 32, 32)), 10, (0.5,) * 3, (0.5,) * 3)
    weights = {key: array.astype(np.float32) for key, array in random_weights(network, 0).items()}
    return fold_batch_norms(network, weights)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_nothing_changes_before_and_after_images_were_seen(network: Network) -> None:
    weights = {key: array.astype(np.float32) for key, array in random_weights(network, 0).items()}
    images = images_of(network)
    expected = outputs(network, weights, images)
    scale = max(1.0, np.abs(expected).max())
    added, neutral, norms = add_norms(network, weights)
    check_weights(added, neutral)
    np.testing.assert_allclose(outputs(added, neutral, images), expected, atol=1e-4 * scale)
    settled = settle_norms(added, neutral, norms, images)
    check_weights(added, settled)
    np.testing.assert_allclose(outputs(added, settled, images), expected, atol=1e-4 * scale)


def test_every_conv_that_makes_a_map_has_one_again() -> None:
    network, weights = exported(Family.MOBILENET_V3_SMALL)
    added, _, norms = add_norms(network, weights)
    shapes, readers = infer_shapes(added), added.consumers()
    assert len(norms) > 20
    for node in added.nodes:
        if node.op is Op.CONV:
            has_norm = any(reader.op is Op.BATCH_NORM for reader in readers[node.name])
            assert has_norm == (max(shapes[node.name][1:]) > 1), f"{node.name}: gates and heads have none"


def test_adding_them_again_adds_nothing() -> None:
    added, weights, _ = add_norms(*exported(Family.RESNET_18))
    again, same, norms = add_norms(added, weights)
    assert norms == ()
    assert again == added
    assert same.keys() == weights.keys()


def test_their_statistics_are_those_of_the_images() -> None:
    """What training sees of the same images is then what evaluation sees."""
    added, neutral, norms = add_norms(*exported(Family.RESNET_18))
    images = images_of(added, 32)
    settled = settle_norms(added, neutral, norms, images)
    expected = outputs(added, settled, images)
    in_training = outputs(added, settled, images, training=True)
    np.testing.assert_allclose(in_training, expected, atol=1e-3 * np.abs(expected).max())
    before = outputs(added, neutral, images, training=True)
    assert np.abs(before - expected).max() > 0.1 * np.abs(expected).max(), "neutral ones would change everything"


def test_filters_vary_by_about_one() -> None:
    added, neutral, norms = add_norms(*exported(Family.VGG_13))
    settled = settle_norms(added, neutral, norms, images_of(added, 16))
    for norm in norms:
        variance = settled[f"{norm}.running_var"]
        assert variance.max() <= 1.0 + 1e-6
        assert np.median(variance) > 0.9


def test_a_channel_that_never_moves_is_left_in_peace() -> None:
    network, weights = exported(Family.VGG_13)
    first = next(node.name for node in network.nodes if node.op is Op.CONV)
    weights[f"{first}.weight"][0] = 0
    images = images_of(network)
    expected = outputs(network, weights, images)
    added, neutral, norms = add_norms(network, weights)
    settled = settle_norms(added, neutral, norms, images)
    assert all(np.isfinite(array).all() for array in settled.values())
    np.testing.assert_allclose(outputs(added, settled, images), expected, atol=1e-3 * np.abs(expected).max())
