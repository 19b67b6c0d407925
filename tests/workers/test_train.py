from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F

from search_spaces.catalog import build_network
from search_spaces.datasets import DATASETS
from search_spaces.network import InputContract, Network
from search_spaces.spec import Family, NetworkSpec
from tests.workers.torch_accuracy import accuracy
from workers.batches import draw_batches
from workers.datasets import load_dataset
from workers.progress import ignore_progress
from workers.recipe import Recipe, count_steps, fine_tuning, recipe_for
from workers.splits import Split, Splits, make_splits, normalise
from workers.torch_network import build_module
from workers.train import TrainingDivergedError, train
from workers.weights import Weights, init_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(load_dataset("digits", Path("unused")))


def for_digits(family: Family, width: float = 0.25) -> Network:
    info = DATASETS["digits"]
    spec = NetworkSpec(family=family, width=width, input=info.shape, stem_stride=1)
    return build_network(spec, info.classes, info.mean, info.std)


@pytest.fixture(scope="module")
def network() -> Network:
    return for_digits(Family.MOBILENET_V1)


def no_wait() -> None:
    """Nobody to yield to."""


def are_equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_base_learns_digits_and_fine_tuning_keeps_it(network, splits):
    recipe = recipe_for(DATASETS["digits"], Family.MOBILENET_V1)
    seen: list[tuple[float, str]] = []
    turns: list[None] = []

    weights = train(
        network,
        None,
        splits.train,
        recipe,
        lambda _stage, done, message: seen.append((done, message)),
        lambda: turns.append(None),
    )

    reached = accuracy(network, weights, splits.score)
    assert reached > 0.9
    assert len(turns) == count_steps(len(splits.train), recipe)
    assert seen[-1][0] == 1.0
    assert "images/s" in seen[-1][1]
    assert "0:00 left" in seen[-1][1]

    tuned = train(network, weights, splits.train, fine_tuning(recipe, 0.5, 0.001), ignore_progress, no_wait)
    assert not are_equal(tuned, weights)
    assert accuracy(network, tuned, splits.score) > reached - 0.05


def test_the_same_seed_gives_the_same_bits_whatever_torch_has_drawn_before(network, splits):
    recipe = Recipe(epochs=0.5, batch_size=64, shift_pixels=1, flip=True, seed=5)
    torch.manual_seed(1)
    one = train(network, None, splits.train, recipe, ignore_progress, no_wait)
    torch.manual_seed(2)
    torch.rand(10)
    state = torch.get_rng_state()
    other = train(network, None, splits.train, recipe, ignore_progress, no_wait)
    assert are_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not are_equal(one, train(network, None, splits.train, replace(recipe, seed=6), ignore_progress, no_wait))


@pytest.mark.parametrize("family", Family)
def test_every_family_begins_to_learn_at_once(family, splits):
    network = for_digits(family, width=0.1)
    before = init_weights(network, seed=0)
    recipe = replace(recipe_for(DATASETS["digits"], family), epochs=1)
    after = train(network, before, splits.train, recipe, ignore_progress, no_wait)
    assert loss(network, after, splits.train) < 0.97 * loss(network, before, splits.train)


def loss(network: Network, weights: Weights, split: Split) -> float:
    """Of 256 images, with batch norms as in training: a few steps are too few for running statistics."""
    images, labels = (
        torch.from_numpy(normalise(split.images[:256], network.input)),
        torch.from_numpy(split.labels[:256]),
    )
    with torch.no_grad():
        return float(F.cross_entropy(build_module(network, weights).train()(images), labels))


def test_given_weights_are_not_changed(network, splits):
    weights = init_weights(network, seed=0)
    train(network, weights, splits.train, Recipe(epochs=0.1), ignore_progress, no_wait)
    assert are_equal(weights, init_weights(network, seed=0))


def test_training_that_diverges_says_where(network, splits):
    with pytest.raises(TrainingDivergedError, match=r"the loss is (nan|inf) after step \d+ at learning rate"):
        train(network, None, splits.train, Recipe(epochs=3, learning_rate=1e20), ignore_progress, no_wait)


def made_split(count: int, size: int) -> Split:
    images = np.random.default_rng(0).integers(1, 256, size=(count, 1, size, size)).astype(np.uint8)
    return Split("train", images, np.arange(count), "")


def drawn(split: Split, recipe: Recipe, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    contract = InputContract(split.images.shape[1:], (0.0,), (1 / 255,))
    batches = draw_batches(split, contract, recipe, steps)
    return [(np.rint(images.numpy()).astype(np.uint8), labels.numpy()) for images, labels in batches]


def test_each_epoch_shows_each_image_once_in_a_new_order():
    split = made_split(64, 4)
    batches = drawn(split, Recipe(epochs=2, batch_size=16), 8)
    first, second = (np.concatenate([labels for _, labels in half]) for half in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(64))
    assert first.tolist() != second.tolist()
    for images, labels in batches:
        assert np.array_equal(images, split.images[labels])


def test_shifts_and_flips_move_whole_images():
    split = made_split(200, 5)
    ((images, labels),) = drawn(split, Recipe(epochs=1, batch_size=200, shift_pixels=1, flip=True), 1)
    kinds = set()
    for image, label in zip(images, labels, strict=True):
        kinds.add(find_move(image[0], split.images[label, 0]))
    assert len(kinds) == 18


def find_move(moved: np.ndarray, original: np.ndarray) -> tuple[bool, int, int]:
    """Which flip and which shift, of the 18 that there are, `moved` is of `original`."""
    for is_flipped in (False, True):
        padded = np.pad(original[:, ::-1] if is_flipped else original, 1)
        for top, left in np.ndindex(3, 3):
            if np.array_equal(padded[top : top + 5, left : left + 5], moved):
                return is_flipped, top, left
    raise AssertionError("no shift or flip of the original")
