"""How good the base is that a search begins with: told of every base in the same way as of what is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

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


@dataclass(frozen=True, slots=True)
class BaseScore:
    """How good a base's own file is.

    Attributes:
        values: by score, with their intervals.
        renumbered: the accuracy that it would have with its outputs in the best order; 0 for regression.
    """

    values: dict[str, float]
    renumbered: float


def score_base(base: Base, split: Split, scores: Sequence[str], home: Path, threads: int) -> BaseScore:
    """Score a base's own file: from the cache or now.

    Raises:
        FloatingPointError: its output is not finite.
    """
    labels = hashlib.sha256(big_endian(split.labels).tobytes()).hexdigest()  # as the network's outputs are numbered
    origin = {"base": base.key, "images": split.digest, "labels": labels, "scores": list(scores)}
    key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()
    path = home / "base_scores" / f"{key}.json"
    try:
        return BaseScore(**json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError):
        pass
    with training():
        outputs = run_file(
            write_onnx(*fold_batch_norms(base.network, base.weights)), split, base.network.input, threads
        )
        values = score_outputs(scores, outputs, split.labels) | score_intervals(scores, outputs, split.labels)
    found = BaseScore(values, renumbered_accuracy(outputs, split.labels))
    write_atomically(path, json.dumps(asdict(found)).encode())
    return found


def renumbered_accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that are right when each output stands for the class that suits it best, each for one.

    Args:
        outputs: float32 (n, classes or more).
        labels: int64 (n); for values there is nothing to number, and the answer is 0.
    """
    if labels.dtype.kind != "i":
        return 0.0
    told, classes = outputs.argmax(axis=1), outputs.shape[1]
    counts = np.bincount(told * classes + labels, minlength=classes**2).reshape(classes, classes)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))


def warnings_about(found: BaseScore, dataset: DatasetInfo, split: Split) -> list[str]:
    """For people: what makes a search on this base senseless, though nothing stops it."""
    told = found.values[MAIN_SCORE[dataset.task]]
    if dataset.task is Task.CLASSIFICATION and found.renumbered > told + MISNUMBERED:
        return [
            f"the base gets {100 * told:.1f} % right, and would get {100 * found.renumbered:.1f} % if its outputs "
            "stood for the classes in another order: import it with their names, in the order of its outputs"
        ]
    return list(_chance_warnings(told, dataset, split))


MISNUMBERED = 0.15
"""So much more accuracy in another order is no chance: a base that is right as it is gains next to nothing."""


def _chance_warnings(told: float, dataset: DatasetInfo, split: Split) -> Iterator[str]:
    """A base that knows no more than what is common: its labels, its normalisation or its input are likely wrong."""
    remedy = "check the order of the classes, mean and std, and what the network expects of images"
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
