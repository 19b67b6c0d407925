import fcntl
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.network import InputContract, Network, Node, Op
from tests.workers.torch_accuracy import accuracy
from workers.base import BaseUnavailableError, base_key, get_base, load_base
from workers.datasets import load_dataset
from workers.recipe import Recipe
from workers.splits import Splits, make_splits

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(load_dataset("digits", Path("unused")))


@pytest.fixture(scope="module")
def network() -> Network:
    nodes = (
        Node("x", Op.INPUT),
        Node("conv", Op.CONV, ("x",), 8, (3, 3), (2, 2), (1, 1, 1, 1)),
        Node("norm", Op.BATCH_NORM, ("conv",)),
        Node("relu", Op.RELU, ("norm",)),
        Node("flat", Op.FLATTEN, ("relu",)),
        Node("classifier", Op.LINEAR, ("flat",), 10, bias=True),
    )
    return Network("small", InputContract((1, 8, 8), (0.3,), (0.4,)), nodes, "classifier")


class Steps:
    """Counts training steps; a cached base takes none."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_trained_once_then_found(network, splits, tmp_path):
    steps = Steps()
    first = get_base(network, splits, RECIPE, tmp_path, yield_to=steps)
    trained = steps.count
    second = get_base(network, splits, RECIPE, tmp_path, yield_to=steps)
    assert trained == steps.count == 24
    assert first.key == second.key
    assert accuracy(network, first.weights, splits.score) > 0.5
    assert second.network == network
    assert second.report == first.report
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_the_report_tells_where_the_base_comes_from(network, splits, tmp_path):
    report = get_base(network, splits, RECIPE, tmp_path).report
    assert report["recipe"] == RECIPE.to_json()
    assert report["splits"] == splits.digests()
    assert report["images"] == 24 * 64
    assert report["images_per_s"] == pytest.approx(report["images"] / report["seconds"], rel=0.05)
    assert report["torch"] == torch.__version__


def test_the_key_names_all_that_decides(network, splits):
    key = base_key(network, "digits", splits.train.digest, RECIPE)
    other_nodes = (*network.nodes[:-1], replace(network.nodes[-1], bias=False))
    others = {
        base_key(replace(network, nodes=other_nodes), "digits", splits.train.digest, RECIPE),
        base_key(network, "cifar10", splits.train.digest, RECIPE),
        base_key(network, "digits", splits.score.digest, RECIPE),
        base_key(network, "digits", splits.train.digest, replace(RECIPE, seed=1)),
    }
    assert len(others | {key}) == 5
    assert key == base_key(network, "digits", splits.train.digest, RECIPE)


@pytest.mark.parametrize("name", ["weights.safetensors", "base.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "changed"])
def test_a_damaged_base_is_trained_again(network, splits, tmp_path, name, damage):
    whole = get_base(network, splits, RECIPE, tmp_path)
    path = tmp_path / "bases" / whole.key / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "changed" and name == "base.json":
        document = json.loads(content)
        document["network"]["nodes"].pop(1)
        path.write_text(json.dumps(document))
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "changed": flipped}[damage])
    with pytest.raises(BaseUnavailableError, match="no whole base"):
        load_base(whole.key, tmp_path)

    again = get_base(network, splits, RECIPE, tmp_path)

    assert all(np.array_equal(again.weights[name], array) for name, array in whole.weights.items())
    assert load_base(whole.key, tmp_path).report == again.report
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == [whole.key, f"{whole.key}.lock"]


def test_who_waits_says_so_and_yields(network, splits, tmp_path):
    lock = tmp_path / "bases" / f"{base_key(network, 'digits', splits.train.digest, RECIPE)}.lock"
    lock.parent.mkdir()
    messages: list[str] = []
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        get_base(
            network,
            splits,
            RECIPE,
            tmp_path,
            lambda _stage, _done, message: messages.append(message),
            lambda: fcntl.flock(holder, fcntl.LOCK_UN),
        )
    assert messages[0] == "waiting for another process that trains this base"
    assert "epoch 2.00 of 2" in messages[-1]


@pytest.mark.parametrize("key", ["", "../../etc", "a" * 63, "A" * 64, "0" * 64])
def test_other_keys_are_answered_with_an_error(tmp_path, key):
    with pytest.raises(BaseUnavailableError):
        load_base(key, tmp_path)


def ask(network: Network, home: Path, results: Any, step_s: float) -> None:
    """In a process of its own: get the base, tell of each step, and at last what the base reports."""
    torch.set_num_threads(1)

    def yield_to() -> None:
        results.put(os.getpid())
        time.sleep(step_s)

    base = get_base(network, make_splits(load_dataset("digits", home)), RECIPE, home, yield_to=yield_to)
    results.put(base.report)


def test_of_two_processes_one_trains_and_the_other_waits(network, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=ask, args=(network, tmp_path, results, 0.01)) for _ in range(2)]
    for process in processes:
        process.start()
    reports: list[dict[str, Any]] = []
    while len(reports) < 2:
        told = results.get(timeout=60)
        if isinstance(told, dict):
            reports.append(told)
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    # Two trainings would not have taken the same time to the millisecond.
    assert reports[0] == reports[1]


def test_a_killed_training_leaves_nothing_that_stops_the_next(network, splits, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=ask, args=(network, tmp_path, results, 5.0))
    process.start()
    assert results.get(timeout=60) == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    steps = Steps()
    get_base(network, splits, RECIPE, tmp_path, yield_to=steps)
    assert steps.count == 24


def test_a_base_that_another_process_has_made_elsewhere_is_missed_with_the_likely_reason(tmp_path):
    with pytest.raises(BaseUnavailableError, match=r"no whole base 0000.*have the same ESPALIER_HOME"):
        load_base("0" * 64, tmp_path)
