"""How good the base is that a search begins with: told of every base in the same way as of what is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from search_spaces.datasets import DatasetInfo, Task
from search_spaces.scores import MAIN_SCORE, wilson_interval
from service.files import write_atomically
from workers.base import Base
from workers.datasets.dataset import big_endian
from workers.fold import fold_batch_norms
from workers.host_lock import training
from workers.onnx_writer import write_onnx
from workers.score import run_file, score_intervals, score_outputs
from workers.splits import Split


def score_base(base: Base, split: Split, scores: Sequence[str], home: Path, threads: int) -> dict[str, float]:
    """The scores of a base's own file with their intervals, from the cache or computed now.

    Raises:
        FloatingPointError: its output is not finite.
    """
    labels = hashlib.sha256(big_endian(split.labels).tobytes()).hexdigest()  # as the network's outputs are numbered
    origin = {"base": base.key, "images": split.digest, "labels": labels, "scores": list(scores)}
    key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()
    path = home / "base_scores" / f"{key}.json"
    try:
        known: dict[str, float] = json.loads(path.read_bytes())
        return known
    except (OSError, ValueError):
        pass
    with training():
        outputs = run_file(
            write_onnx(*fold_batch_norms(base.network, base.weights)), split, base.network.input, threads
        )
        values = score_outputs(scores, outputs, split.labels) | score_intervals(scores, outputs, split.labels)
    write_atomically(path, json.dumps(values).encode())
    return values


def warnings_about(values: dict[str, float], dataset: DatasetInfo, split: Split) -> list[str]:
    """For people: what makes a search on this base senseless, though nothing stops it."""
    return list(_chance_warnings(values, dataset, split))


def _chance_warnings(values: dict[str, float], dataset: DatasetInfo, split: Split) -> Iterator[str]:
    """A base that knows no more than what is common: its labels, its normalisation or its input are likely wrong."""
    remedy = "check the order of the classes, mean and std, and what the network expects of images"
    told = values[MAIN_SCORE[dataset.task]]
    if dataset.task is Task.CLASSIFICATION:
        commonest = np.bincount(split.labels).max() / len(split)
        if told <= wilson_interval(float(commonest), len(split))[1]:
            yield (
                f"the base gets {100 * told:.1f} % right, and always telling the commonest class would get "
                f"{100 * commonest:.1f} %: {remedy}"
            )
        return
    middle = float(np.abs(split.labels - np.median(split.labels)).mean())
    if told >= middle:
        yield f"the base is off by {told:.4g} on average, and always telling the median by {middle:.4g}: {remedy}"
