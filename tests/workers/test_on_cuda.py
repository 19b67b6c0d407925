"""What runs on a graphics processor, on one: timing, energy, memory, and training. Left out where there is none."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.catalog import build_network
from search_spaces.datasets import DATASETS
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.precision import parse_precision
from search_spaces.spec import Family, NetworkSpec, RegulariserName
from tests.workers.small import small_network as small_learner
from tests.workers.test_resume import InterruptionError, StopAfter
from tests.workers.torch_accuracy import accuracy
from workers.arithmetic import arithmetic_here
from workers.checkpoint import Checkpoint
from workers.datasets import load_dataset
from workers.fold import fold_batch_norms
from workers.hardware import present_devices
from workers.hardware.base import Anchor, Deployed
from workers.hardware.energy import EnergyProtocol
from workers.hardware.testing import QUICK, DeviceContract, deploy, small_network
from workers.hardware.torch_cuda import NAME, TorchCuda
from workers.losses import Teacher
from workers.onnx_session import open_session
from workers.progress import ignore_progress
from workers.recipe import Distillation, Recipe, Regulariser, recipe_for
from workers.splits import Splits, make_splits
from workers.train import train_with_report
from workers.weights import Weights, init_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

ENERGY = EnergyProtocol(windows=3, window_s=1.0, idle_s=1.0)
RECIPE = Recipe(epochs=2.0, batch_size=64, shift_pixels=1, flip=True, seed=3)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(load_dataset("digits", Path("unused")))


@pytest.fixture
def device() -> TorchCuda:
    return TorchCuda(energy_protocol=ENERGY)


def on_imagenet(width: float) -> Network:
    info = DATASETS["fashion_mnist"]
    spec = NetworkSpec(family=Family.MOBILENET_V1, width=width, input=(3, 224, 224))
    return build_network(spec, 1000, info.mean * 3, info.std * 3)


def deployed(width: float, batch: int = 1) -> Deployed:
    network = on_imagenet(width)
    return deploy(fold_batch_norms(network, init_weights(network, seed=0))[0], batch)


class TestTorchCudaHere(DeviceContract):
    def make_device(self) -> TorchCuda:
        return TorchCuda(energy_protocol=ENERGY)

    def network_tried(self, precision: str) -> Network:
        return small_network(parse_precision(precision), channels=1024)


def test_a_machine_with_a_driver_offers_it():
    assert NAME in present_devices()


def test_a_wider_network_takes_longer_and_more_memory_and_energy(device: TorchCuda):
    small, large = (device.measure(deployed(width, 32), None, replace(QUICK, batch=32)) for width in (0.25, 1.0))
    for metric in (Metric.LATENCY_S, Metric.MEMORY_BYTES, Metric.ENERGY_J):
        assert large[metric].median > 2 * small[metric].median, metric
    evidence = large[Metric.ENERGY_J].evidence
    assert evidence["gross_j"] > large[Metric.ENERGY_J].median
    assert 20 < evidence["idle_w"] < 300
    assert "counter" in large[Metric.ENERGY_J].protocol["source"]


def test_repeats_agree(device: TorchCuda):
    one = deployed(1.0)
    anchor = Anchor(deployed(0.5), 1e-3)
    ratios = [device.measure(one, anchor, wanted=[Metric.LATENCY_S])[Metric.LATENCY_S].anchor_ratio for _ in range(3)]
    assert max(ratios) / min(ratios) < 1.05


def test_what_is_timed_computes_what_the_file_says(device: TorchCuda):
    """In floats proper: with TF32, outputs would be off by a thousandth."""
    one = deployed(0.5)
    images = np.random.default_rng(0).standard_normal((1, *one.network.input.shape), dtype=np.float32)
    (expected,) = open_session(one.model).run(None, {"image": images})
    found = device._cuda.open(one, QUICK)()
    torch.cuda.synchronize()
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=2e-5 * np.abs(expected).max())


def test_training_computes_in_bfloat16_and_learns(splits: Splits):
    info = DATASETS["digits"]
    spec = NetworkSpec(family=Family.MOBILENET_V1, width=0.25, input=info.shape, stem_stride=1)
    network = build_network(spec, info.classes, info.mean, info.std)
    recipe = recipe_for(info, Family.MOBILENET_V1)
    trained = train_with_report(network, None, splits.train, recipe, ignore_progress, lambda: None)
    assert trained.report["arithmetic"] == "bfloat16 on cuda"
    assert accuracy(network, trained.weights, splits.score) > 0.8  # an H200 reached .896


TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "R2": {"regulariser": Regulariser(RegulariserName.MARGIN)},
    "soft R2": {"regulariser": Regulariser(RegulariserName.SOFT_MIN_MAX)},
    "KURE": {"regulariser": Regulariser(RegulariserName.KURE)},
    "activation L1": {"activation_l1": {"relu": 1e-4}},
    "distilled": {"distillation": Distillation()},
}


def train_on(network: Network, recipe: Recipe, splits: Splits, **more: Any) -> Weights:
    teacher = None if recipe.distillation is None else Teacher(network, init_weights(network, seed=5))
    return train_with_report(
        network, None, splits.train, recipe, ignore_progress, more.pop("yield_to", lambda: None), teacher, **more
    ).weights


@pytest.mark.parametrize("name", TRAININGS)
def test_the_same_seed_gives_the_same_bits_also_after_an_interruption(name: str, splits: Splits, tmp_path: Path):
    network, recipe = small_learner(), replace(RECIPE, **TRAININGS[name])
    first, second = (train_on(network, recipe, splits) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    checkpoint = Checkpoint(tmp_path / "state", every_s=0.0)
    with pytest.raises(InterruptionError):
        train_on(network, recipe, splits, checkpoint=checkpoint, yield_to=StopAfter(9))
    third = train_on(network, recipe, splits, checkpoint=checkpoint)
    assert all(np.array_equal(first[key], third[key]) for key in first)


def test_a_batch_that_does_not_fit_is_taken_in_parts(splits: Splits):
    network = small_learner(64)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 40e6) / total)
    try:
        recipe = replace(RECIPE, epochs=1.0, batch_size=1000)
        trained = train_with_report(network, None, splits.train, recipe, ignore_progress, lambda: None)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert trained.report["images_at_once"] < 1000
    assert all(np.isfinite(array).all() for array in trained.weights.values())


def _says_its_arithmetic(told: Any) -> None:
    told.put(str(arithmetic_here(small_learner())))


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_other_processes_use_the_device_too(start: str):
    """As evaluators do: each a process of its own, beside one that has used the device."""
    torch.zeros(1, device="cuda")
    context: Any = multiprocessing.get_context(start)
    told = context.Queue()
    process = context.Process(target=_says_its_arithmetic, args=(told,))
    process.start()
    assert told.get(timeout=60) == "bfloat16 on cuda"
    process.join()
