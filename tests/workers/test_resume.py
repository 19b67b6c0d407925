"""Trainings that are interrupted, also by a kill, end with the same bits as those that are not."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workers.checkpoint
import workers.train
from search_spaces.network import Network
from search_spaces.spec import Optimizer, RegulariserName
from tests.workers.small import small_network
from workers.arithmetic import Arithmetic
from workers.base import base_key, get_base
from workers.checkpoint import Checkpoint, CheckpointError
from workers.datasets import load_dataset
from workers.losses import Teacher
from workers.progress import ignore_progress
from workers.recipe import Distillation, Recipe, Regulariser
from workers.splits import Splits, make_splits
from workers.train import Trained, TrainingDivergedError, train_resumably, train_with_report
from workers.weights import Weights, init_weights

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(
    epochs=1.5, batch_size=64, shift_pixels=1, flip=True, regulariser=Regulariser(RegulariserName.MARGIN), seed=3
)
STEPS = 18


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(load_dataset("digits", Path("unused")))


def are_equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


class InterruptionError(Exception):
    """Stops a training between two steps."""


class StopAfter:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            raise InterruptionError


def interrupted(network: Network, splits: Splits, recipe: Recipe, path: Path, after: int, **more: Any) -> Trained:
    """A training that writes its state after each step, is stopped after some, and goes on in a new one."""
    checkpoint = Checkpoint(path, every_s=0.0)
    with pytest.raises(InterruptionError):
        train_with_report(
            network, None, splits.train, recipe, ignore_progress, StopAfter(after), checkpoint=checkpoint, **more
        )
    told: list[str] = []
    trained = train_with_report(
        network,
        None,
        splits.train,
        recipe,
        lambda _stage, _done, message: told.append(message),
        lambda: told.append("step"),
        checkpoint=checkpoint,
        **more,
    )
    assert told.count("step") == STEPS - after + 1  # the state of the last step was not written any more
    assert "images/s" in told[-2]
    return trained


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, optimizer=Optimizer.ADAMW, learning_rate=0.002),
        replace(RECIPE, regulariser=Regulariser(RegulariserName.SOFT_MIN_MAX), activation_l1=1e-5),
        replace(RECIPE, regulariser=None, momentum=0.0),
    ],
    ids=["margin", "adamw", "soft_min_max", "plain"],
)
def test_an_interrupted_training_ends_with_the_same_bits(splits, recipe, tmp_path):
    network = small_network()
    whole = train_with_report(network, None, splits.train, recipe, ignore_progress, lambda: None)
    # In the second epoch, so that the order of images is not the first.
    trained = interrupted(network, splits, recipe, tmp_path / "state.safetensors", after=14)
    assert are_equal(trained.weights, whole.weights)
    assert trained.report == whole.report
    assert trained.seconds > 0


def test_a_taught_training_goes_on_too(splits, tmp_path):
    network = small_network()
    teacher = Teacher(network, init_weights(network, seed=9))
    recipe = replace(RECIPE, distillation=Distillation())
    whole = train_with_report(network, None, splits.train, recipe, ignore_progress, lambda: None, teacher)
    trained = interrupted(network, splits, recipe, tmp_path / "state.safetensors", after=3, teacher=teacher)
    assert are_equal(trained.weights, whole.weights)


def test_a_checkpoint_of_another_training_is_refused(splits, tmp_path):
    network, checkpoint = small_network(), Checkpoint(tmp_path / "state.safetensors", every_s=0.0)

    def go_on(network: Network, weights: Weights | None, recipe: Recipe) -> Trained:
        split = splits.train
        return train_with_report(network, weights, split, recipe, ignore_progress, StopAfter(2), checkpoint=checkpoint)

    with pytest.raises(InterruptionError):
        go_on(network, None, RECIPE)
    others = [
        (small_network(channels=8), None, RECIPE),
        (network, None, replace(RECIPE, seed=4)),
        (network, None, replace(RECIPE, regulariser=None)),
        (network, init_weights(network, 0), RECIPE),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="is of another network, recipe, data set, first weights"):
            go_on(*other)
    with pytest.raises(InterruptionError):
        go_on(network, None, RECIPE)


def test_a_checkpoint_of_another_kind_of_processor_is_refused(splits, tmp_path, monkeypatch):
    """Its numbers are other ones: what goes on from it would end with bits that neither processor comes to."""
    network, checkpoint = small_network(), Checkpoint(tmp_path / "state.safetensors", every_s=0.0)

    def go_on() -> None:
        train_with_report(network, None, splits.train, RECIPE, ignore_progress, StopAfter(2), checkpoint=checkpoint)

    with pytest.raises(InterruptionError):
        go_on()
    monkeypatch.setattr("workers.checkpoint.arithmetic_here", lambda network: Arithmetic("another"))
    with pytest.raises(CheckpointError, match="or kind of processor"):
        go_on()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_a_damaged_checkpoint_is_refused(splits, tmp_path, damage):
    path, network = tmp_path / "state.safetensors", small_network()
    checkpoint = Checkpoint(path, every_s=0.0)
    with pytest.raises(InterruptionError):
        train_with_report(network, None, splits.train, RECIPE, ignore_progress, StopAfter(2), checkpoint=checkpoint)
    content = path.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"empty": b"", "cut": content[:-99], "flipped": flipped, "foreign": b"{}" * 50}[damage])
    with pytest.raises(CheckpointError, match="is no"):
        train_with_report(network, None, splits.train, RECIPE, ignore_progress, StopAfter(2), checkpoint=checkpoint)


KILLED_AFTER = 14


def ask(home: Path, steps: Any) -> None:
    """In a process of its own: train the base, tell of each step, and wait at one to be killed."""
    torch.set_num_threads(1)
    workers.checkpoint.EVERY_S = 0.0
    done = count(1)

    def yield_to() -> None:
        steps.put(os.getpid())
        if next(done) == KILLED_AFTER:
            time.sleep(600)

    get_base(small_network(), make_splits(load_dataset("digits", home)), RECIPE, home, yield_to=yield_to)


def test_a_base_whose_training_was_killed_goes_on_and_is_the_same(splits, tmp_path):
    context = multiprocessing.get_context("spawn")
    steps = context.Queue()
    process = context.Process(target=ask, args=(tmp_path / "killed", steps))
    process.start()
    for _ in range(KILLED_AFTER):
        assert steps.get(timeout=60) == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    network = small_network()
    key = base_key(network, "digits", splits.train.digest, RECIPE)
    assert (tmp_path / "killed" / "bases" / f"{key}.partial.safetensors").exists()

    done: list[None] = []
    resumed = get_base(network, splits, RECIPE, tmp_path / "killed", yield_to=lambda: done.append(None))
    whole = get_base(network, splits, RECIPE, tmp_path / "whole")

    assert len(done) == STEPS - KILLED_AFTER + 1  # the last one's state had not been written
    assert are_equal(resumed.weights, whole.weights)
    assert resumed.report["margin"] == whole.report["margin"]
    report = resumed.report
    assert report["images_per_s"] == pytest.approx(report["images"] / report["seconds"], rel=0.05)
    assert sorted(path.name for path in (tmp_path / "killed" / "bases").iterdir()) == [key, f"{key}.lock"]


def test_a_base_does_not_trust_what_is_no_checkpoint_of_it(splits, tmp_path, caplog):
    network = small_network()
    path = tmp_path / "bases" / f"{base_key(network, 'digits', splits.train.digest, RECIPE)}.partial.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with caplog.at_level(logging.WARNING):
        base = get_base(network, splits, RECIPE, tmp_path)
    assert "training from the start" in caplog.text
    assert not path.exists()
    assert are_equal(base.weights, get_base(network, splits, RECIPE, tmp_path / "other").weights)


def test_a_training_that_diverges_leaves_no_checkpoint(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.checkpoint, "EVERY_S", 0.0)
    with pytest.raises(TrainingDivergedError):
        get_base(small_network(), splits, Recipe(epochs=3, learning_rate=1e20), tmp_path)
    assert [path.suffix for path in (tmp_path / "bases").iterdir()] == [".lock"]


def test_a_checkpoint_that_another_process_removes_meanwhile_does_no_harm(splits, tmp_path, monkeypatch):
    path = tmp_path / "shared.safetensors"
    path.write_bytes(b"of another process, which ends just now")

    def open_too_late(path: Path, **_: Any) -> None:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(workers.checkpoint, "safe_open", open_too_late)
    short = Recipe(epochs=0.2, batch_size=64)
    arguments = (small_network(), None, splits.train, short)
    trained = train_resumably(*arguments, path, ignore_progress, lambda: None)
    assert are_equal(trained.weights, train_with_report(*arguments, ignore_progress, lambda: None).weights)
