"""Teachers and map norms: their closed forms, and that training follows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.network import Network, Node, Op
from tests.workers.small import small_network
from tests.workers.test_opaque import body_of_two_nodes
from tests.workers.torch_accuracy import accuracy
from workers.datasets import load_dataset
from workers.losses import Teacher, distilled_loss, map_loss, penalised_maps
from workers.progress import ignore_progress
from workers.recipe import Distillation, Recipe
from workers.splits import Split, Splits, make_splits, normalise
from workers.torch_network import build_module
from workers.train import train
from workers.weights import Weights, init_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(load_dataset("digits", Path("unused")))


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network()


def trained(network: Network, split: Split, recipe: Recipe, teacher: Teacher | None = None) -> Weights:
    return train(network, None, split, recipe, ignore_progress, lambda: None, teacher)


def are_equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# --- teachers ---------------------------------------------------------------------------------------------------


def test_a_teacher_without_weight_changes_nothing(network, splits):
    recipe = Recipe(epochs=0.5, batch_size=64)
    teacher = Teacher(network, init_weights(network, seed=1))
    plain, ignored, heard = (
        trained(network, splits.train, replace(recipe, distillation=distillation), teacher)
        for distillation in (None, Distillation(weight=0.0), Distillation(weight=0.5))
    )
    assert are_equal(plain, ignored)
    assert not are_equal(plain, heard)


def test_a_teacher_alone_is_followed_whatever_the_labels_say(network, splits):
    recipe = Recipe(epochs=4, batch_size=32, learning_rate=0.05)
    teacher = Teacher(network, trained(network, splits.train, recipe))
    shuffled = replace(splits.train, labels=np.random.default_rng(0).permutation(splits.train.labels))
    taught = replace(recipe, distillation=Distillation(temperature=2.0, weight=1.0), seed=1)
    assert accuracy(network, trained(network, shuffled, taught, teacher), splits.score) > 0.8
    assert accuracy(network, trained(network, shuffled, recipe), splits.score) < 0.3


@pytest.mark.parametrize("columns", [1, 4])
def test_the_distance_from_a_teacher_is_that_of_the_softened_outputs(columns):
    generator = torch.Generator().manual_seed(0)
    outputs, taught = (torch.randn(6, columns, generator=generator, dtype=torch.float64) for _ in range(2))
    found = distilled_loss(torch.tensor(2.0), outputs, taught, Distillation(temperature=3.0, weight=0.25))

    def softened(logits: torch.Tensor) -> torch.Tensor:
        whole = logits if columns > 1 else torch.cat([torch.zeros_like(logits), logits], 1)
        return (whole / 3).softmax(1)

    p, q = softened(taught), softened(outputs)
    assert float(found) == pytest.approx(0.75 * 2 + 0.25 * 9 * float((p * (p / q).log()).sum(1).mean()))
    same = distilled_loss(torch.tensor(0.0), outputs, outputs, Distillation())
    assert float(same) == pytest.approx(0.0, abs=1e-12)


def test_distillation_needs_somebody_to_learn_from(network, splits):
    with pytest.raises(ValueError, match="give it a teacher"):
        trained(network, splits.train, Recipe(1, distillation=Distillation()))


# --- map norms --------------------------------------------------------------------------------------------------


def test_map_norms_are_summed_over_a_map_and_averaged_over_the_batch():
    maps = {"a": torch.arange(24.0).reshape(2, 3, 2, 2), "b": torch.ones(2, 5)}
    assert float(map_loss(maps, {"a": 0.1, "b": 2.0})) == pytest.approx(0.1 * 276 / 2 + 2 * 5)


def test_map_norms_leave_fewer_activations(network, splits):
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05)
    maps = list(penalised_maps(network, 1.0))

    def shares(alpha: float | dict[str, float]) -> dict[str, float]:
        weights = trained(network, splits.train, replace(recipe, activation_l1=alpha))
        images = torch.from_numpy(normalise(splits.score.images, network.input))
        with torch.no_grad():
            seen = build_module(network, weights).eval().observe(images, maps)
        return {name: float((value > 0).float().mean()) for name, value in seen.items()}

    plain, sparse, sparse_at_one = shares(0.0), shares(3e-3), shares({maps[0]: 3e-2})
    assert sum(sparse.values()) < 0.8 * sum(plain.values())
    assert sparse_at_one[maps[0]] < 0.8 * plain[maps[0]]


def test_the_maps_are_those_behind_relus_and_others_are_refused(network):
    maps = penalised_maps(network, 1e-6)
    assert maps == dict.fromkeys((node.name for node in network.nodes if node.op in (Op.RELU, Op.RELU6)), 1e-6)
    assert penalised_maps(network, 0.0) == {}
    with pytest.raises(ValueError, match=r"activation_l1: 'elsewhere' is no ReLU of .*; known are "):
        penalised_maps(network, {"elsewhere": 1.0})
    ends_with_relu = replace(network, output=list(maps)[-1])
    assert list(maps)[-1] not in penalised_maps(ends_with_relu, 1e-6)


def test_maps_that_no_gradient_of_the_loss_comes_to_are_left_alone(splits):
    fixed = Node("fixed", Op.OPAQUE, ("relu", "relu"), shape=(8, 6, 6), body=body_of_two_nodes(), body_bytes=4)
    image, conv, norm, relu, conv2, *others = small_network(8).nodes
    nodes = (image, replace(conv, padding=(0, 0, 0, 0)), norm, relu, fixed, replace(conv2, inputs=("fixed",)), *others)
    network = replace(small_network(8), nodes=nodes)
    assert list(penalised_maps(network, 1e-3)) == ["relu2"]
    first = init_weights(network, seed=0)
    after = train(network, first, splits.train, Recipe(epochs=0.2, activation_l1=1e-2), ignore_progress, lambda: None)
    assert np.array_equal(after["conv.weight"], first["conv.weight"])
    assert not np.array_equal(after["conv2.weight"], first["conv2.weight"])
