import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F

from search_spaces.catalog import build_network
from search_spaces.datasets import DATASETS
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.spec import Family, NetworkSpec, Optimizer, RegulariserName, Schedule
from tests.workers.small import small_network
from tests.workers.torch_accuracy import accuracy
from workers.arithmetic import Arithmetic, choose_arithmetic
from workers.batches import draw_batches
from workers.datasets import load_dataset
from workers.optimisers import make_optimiser
from workers.progress import ignore_progress
from workers.recipe import Recipe, Regulariser, count_steps, fine_tuning, recipe_for
from workers.regularisers import WeightLoss, kure, regularised_layers
from workers.splits import Split, Splits, make_splits, normalise
from workers.torch_network import NetworkModule, build_module
from workers.train import TrainingDivergedError, train, train_with_report
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


@pytest.fixture
def small() -> Network:
    return small_network()


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


DIVERGED = r"the loss is (nan|inf) after step \d+ at learning rate \S+; the last finite one was \d\S+: try a smaller"


def test_training_that_diverges_says_where(network, splits):
    with pytest.raises(TrainingDivergedError, match=DIVERGED):
        train(network, None, splits.train, Recipe(epochs=3, learning_rate=1e20), ignore_progress, no_wait)


def test_a_last_step_that_spoils_the_weights_is_seen(network, splits):
    one_step = Recipe(epochs=0.01, learning_rate=1e38, momentum=0.0, schedule=Schedule.CONSTANT)
    with pytest.raises(TrainingDivergedError, match="weights are not finite after the last step"):
        train(network, None, splits.train, one_step, ignore_progress, no_wait)


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


# --- what a recipe can ask for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(2, 32, 0.05, optimizer=Optimizer.SGD, schedule=Schedule.STEP),
        Recipe(2, 32, 0.005, optimizer=Optimizer.ADAMW, schedule=Schedule.CONSTANT),
        Recipe(2, 32, 0.005, optimizer=Optimizer.ADAMW, schedule=Schedule.ONE_CYCLE),
    ],
    ids=["sgd", "adamw constant", "adamw"],
)
def test_other_optimisers_and_schedules_learn(small, splits, recipe):
    weights = train(small, None, splits.train, recipe, ignore_progress, no_wait)
    assert loss(small, weights, splits.train) < 0.8 * loss(small, init_weights(small, 0), splits.train)


def test_a_step_is_by_the_gradients_of_the_task_and_of_the_regulariser(small, splits):
    plain = Recipe(0.001, batch_size=32, learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule=Schedule.CONSTANT)
    with_kure = replace(plain, regulariser=Regulariser(RegulariserName.KURE, 0.05))
    one, other = (train(small, None, splits.train, recipe, ignore_progress, no_wait) for recipe in (plain, with_kure))
    kernels = {f"{layer}.weight" for layer in regularised_layers(small)}
    for name, array in init_weights(small, 0).items():
        if name not in kernels:
            assert np.array_equal(one[name], other[name])
            continue
        weights = torch.from_numpy(array).requires_grad_()
        (0.05 * kure(weights)).backward()
        assert weights.grad is not None
        np.testing.assert_allclose(one[name] - other[name], 0.1 * weights.grad, rtol=1e-2, atol=1e-6)


WEIGHTS = {
    RegulariserName.L_INF: 0.01,
    RegulariserName.MARGIN: 0.01,
    RegulariserName.SOFT_MIN_MAX: 3.0,  # the temperature has few steps to rise in
    RegulariserName.KURE: 0.1,
}


@pytest.mark.parametrize("name", RegulariserName)
def test_a_regulariser_reaches_what_it_asks_for_and_is_not_among_the_weights(small, splits, name):
    is_kure = name is RegulariserName.KURE
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05)
    asked = replace(recipe, regulariser=Regulariser(name, WEIGHTS[name]))
    plain = train(small, None, splits.train, recipe, ignore_progress, no_wait)
    trained = train_with_report(small, None, splits.train, asked, ignore_progress, no_wait)

    def reached(weights: Weights) -> float:
        layers = {layer: torch.from_numpy(weights[f"{layer}.weight"]) for layer in regularised_layers(small)}
        return float(WeightLoss(RegulariserName.KURE if is_kure else RegulariserName.L_INF, layers)())

    assert reached(trained.weights) < 0.95 * reached(plain)
    assert trained.weights.keys() == plain.keys()
    learned = {RegulariserName.MARGIN: "margin", RegulariserName.SOFT_MIN_MAX: "temperature"}.get(name)
    assert trained.report.keys() == {"arithmetic"} | ({learned} if learned else set())
    if learned:
        assert trained.report[learned].keys() == set(regularised_layers(small))
        assert all(0.01 < value < math.inf for value in trained.report[learned].values())


@pytest.mark.parametrize("optimizer", Optimizer)
def test_what_a_regulariser_learns_does_not_decay(optimizer):
    learned = torch.nn.Parameter(torch.ones(3))
    parameters = {"kernel": torch.nn.Parameter(torch.ones(2, 2)), "shift": torch.nn.Parameter(torch.ones(2))}
    recipe = Recipe(epochs=1, learning_rate=0.5, weight_decay=0.1, momentum=0.0, optimizer=optimizer)
    optimiser = make_optimiser(parameters, recipe, (), 1.0, learned)
    for parameter in (learned, *parameters.values()):
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert torch.equal(learned, torch.ones(3))
    assert torch.equal(parameters["shift"], torch.ones(2))
    assert torch.allclose(parameters["kernel"], torch.full((2, 2), 0.95))


# --- short of memory --------------------------------------------------------------------------------------------


def holding(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Memory for so many images at once; returns the counts that fitted."""
    compute = NetworkModule.observe
    fitted: list[int] = []

    def observe(self: NetworkModule, images: torch.Tensor, outputs: Sequence[str]) -> dict[str, torch.Tensor]:
        if len(images) > most:
            raise error
        fitted.append(len(images))
        return compute(self, images, outputs)

    monkeypatch.setattr(NetworkModule, "observe", observe)
    return fitted


def without_norms(network: Network) -> Network:
    """The same with pools of one pixel, which pass on what they get, in the places of batch norms."""
    nodes = tuple(
        Node(node.name, Op.MAX_POOL, node.inputs, kernel=(1, 1), stride=(1, 1)) if node.op is Op.BATCH_NORM else node
        for node in network.nodes
    )
    return replace(network, nodes=nodes)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_batches_that_do_not_fit_are_taken_in_parts(small, splits, monkeypatch, caplog, error):
    bare = without_norms(small)
    recipe = Recipe(epochs=0.2, batch_size=64, learning_rate=0.01)
    whole = train(bare, None, splits.train, recipe, ignore_progress, no_wait)
    fitted = holding(monkeypatch, 16, error)
    with caplog.at_level(logging.WARNING):
        trained = train_with_report(bare, None, splits.train, recipe, ignore_progress, no_wait)
    assert fitted == [16] * 4 * count_steps(len(splits.train), recipe)
    assert trained.report["images_at_once"] == 16
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: going on with 32 images at once",
        "out of memory: going on with 16 images at once",
    ]
    for name, array in whole.items():
        np.testing.assert_allclose(trained.weights[name], array, rtol=1e-3, atol=1e-5)


def test_batch_norms_are_not_given_too_few_images(small, splits, monkeypatch):
    fitted = holding(monkeypatch, 7, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        train(small, None, splits.train, Recipe(epochs=0.1, batch_size=64), ignore_progress, no_wait)
    assert fitted == []


def test_other_faults_are_not_taken_for_a_lack_of_memory(small, splits, monkeypatch):
    holding(monkeypatch, 7, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(small, None, splits.train, Recipe(epochs=0.1, batch_size=64), ignore_progress, no_wait)


# --- numbers ----------------------------------------------------------------------------------------------------


def test_a_gpu_is_used_where_there_is_one_and_it_can_all_of_the_network(small):
    opaque = replace(small, nodes=(*small.nodes, Node("own", Op.OPAQUE, (small.output,), body="x")))
    assert choose_arithmetic(small, has_cuda=False, has_bfloat16=False) == Arithmetic("cpu", None)
    assert str(choose_arithmetic(small, has_cuda=True, has_bfloat16=True)) == "bfloat16 on cuda"
    assert str(choose_arithmetic(small, has_cuda=True, has_bfloat16=False)) == "float32 on cuda"
    assert str(choose_arithmetic(opaque, has_cuda=True, has_bfloat16=True)) == "float32 on cpu"


def test_bfloat16_products_learn_too(small, splits, monkeypatch):
    monkeypatch.setattr("workers.train.arithmetic_here", lambda _network: Arithmetic("cpu", torch.bfloat16))
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.05)
    trained = train_with_report(small, None, splits.train, recipe, ignore_progress, no_wait)
    assert trained.report["arithmetic"] == "bfloat16 on cpu"
    assert accuracy(small, trained.weights, splits.score) > 0.7
