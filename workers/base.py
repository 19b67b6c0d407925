"""Bases: trained networks, kept by what they came from; those trained here are trained once, however many ask.

Knows nothing of searches. `home/bases/<key>/` holds `weights.safetensors` and `base.json`; while it is trained,
`home/bases/<key>.partial.safetensors` holds how far the training is, for who goes on after a kill.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.network import Network, network_digest, network_from_json, network_to_json
from service.artifacts.store import SAME_HOME
from service.files import write_folder_atomically
from workers.norms import settle_norms
from workers.progress import Progress, ignore_progress
from workers.recipe import Recipe, count_steps, size_of_batch
from workers.single_flight import only_one
from workers.splits import Splits, normalise
from workers.train import train_resumably
from workers.weights import Weights, WeightsError, check_weights
from workers.weights_file import load_weights, save_weights

FORMAT_VERSION = 1
"""Part of every key: raise it when the same recipe no longer leads to the same base."""

_WEIGHTS_FILE, _REPORT_FILE = "weights.safetensors", "base.json"
_KEY = re.compile(r"[0-9a-f]{64}")


class BaseUnavailableError(RuntimeError):
    """There is no whole base of this key in the cache."""


@dataclass(frozen=True, eq=False)
class Base:
    """A trained network and where it comes from. Found again by identity: weights are too large to compare.

    Attributes:
        report: JSON-safe provenance. Of one trained here: recipe, split digests, seconds, images per second, versions;
            of an imported one: what was found in its file.
    """

    key: str
    network: Network
    weights: Weights
    report: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the outputs; empty where they are those of the data set, or nobody knows."""
        return tuple(self.report.get("class_names", ()))


def base_key(network: Network, dataset: str, train_digest: str, recipe: Recipe) -> str:
    """SHA-256 of all that decides what a base becomes."""
    origin = {
        "format": FORMAT_VERSION,
        "network": network_digest(network),
        "dataset": dataset,
        "train": train_digest,
        "recipe": recipe.to_json(),
    }
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


def store_imported(network: Network, weights: Weights, report: dict[str, Any], home: Path) -> str:
    """Keep a network that was trained elsewhere, and return its key: of all that candidates depend on."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    origin = {
        "format": FORMAT_VERSION,
        "network": network_digest(network),
        "weights": digest.hexdigest(),
        "class_names": report["class_names"],
    }
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    with only_one(home / "bases" / f"{key}.lock", lambda: None):
        try:
            load_base(key, home)  # what is there stays: searches may be reading it
        except BaseUnavailableError:
            _store(Base(key, network, weights, report), home)
    return key


SETTLED_ON = 512
"""Images of the split `calibrate`, at most, that tell what batch norms say that were folded away."""


def get_settled(imported: Base, splits: Splits, home: Path) -> Base:
    """The base that a search on an imported network begins with, from the cache or made now.

    It computes what the imported one does; the batch norms that the import has put back say what these images tell.
    """
    norms = imported.report["added_norms"]
    if not norms:
        return imported
    seen = splits.calibrate.first(SETTLED_ON)
    origin = {"format": FORMAT_VERSION, "imported": imported.key, "images": seen.digest}
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    with only_one(home / "bases" / f"{key}.lock", lambda: None):
        try:
            return load_base(key, home)
        except BaseUnavailableError:
            images = normalise(seen.images, imported.network.input)
            weights = settle_norms(imported.network, imported.weights, norms, images)
            base = Base(key, imported.network, weights, imported.report | {"imported": imported.key})
            _store(base, home)
            return base


def get_base(
    network: Network,
    splits: Splits,
    recipe: Recipe,
    home: Path,
    progress: Progress = ignore_progress,
    yield_to: Callable[[], None] = lambda: None,
) -> Base:
    """The base from the cache, else trained now. Of several processes that ask at once, one trains and the others wait.

    Args:
        yield_to: called between training steps, and while another process trains.

    Raises:
        TrainingDivergedError: the recipe does not suit the network.
    """
    key = base_key(network, splits.dataset, splits.train.digest, recipe)

    def wait() -> None:
        progress("train", 0.0, "waiting for another process that trains this base")
        yield_to()

    with only_one(home / "bases" / f"{key}.lock", wait):
        try:
            base = load_base(key, home)
        except BaseUnavailableError:
            partial = home / "bases" / f"{key}.partial.safetensors"
            base = _train_base(key, network, splits, recipe, partial, progress, yield_to)
            _store(base, home)
            partial.unlink(missing_ok=True)
    return base


def load_base(key: str, home: Path) -> Base:
    """Read a base from the cache.

    Raises:
        BaseUnavailableError: it is not there, or damaged.
    """
    if not _KEY.fullmatch(key):
        raise BaseUnavailableError(f"{key!r} is no key of a base")
    folder = home / "bases" / key
    try:
        document = json.loads((folder / _REPORT_FILE).read_bytes())
        _check_digest(folder / _WEIGHTS_FILE, document["weights_sha256"])
        network = network_from_json(document["network"])
        weights = load_weights(folder / _WEIGHTS_FILE)
        check_weights(network, weights)
        return Base(key, network, weights, document["report"])
    except (OSError, ValueError, KeyError, TypeError, WeightsError) as error:
        hint = "" if folder.exists() else f"; {SAME_HOME}"
        raise BaseUnavailableError(f"no whole base {key[:12]} in the cache: {error}{hint}") from error


def _check_digest(path: Path, expected: str) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise WeightsError(f"{path.name} is not what was written")


def _train_base(
    key: str,
    network: Network,
    splits: Splits,
    recipe: Recipe,
    partial: Path,
    progress: Progress,
    yield_to: Callable[[], None],
) -> Base:
    trained = train_resumably(network, None, splits.train, recipe, partial, progress, yield_to)
    images = count_steps(len(splits.train), recipe) * size_of_batch(len(splits.train), recipe)
    report = {
        "dataset": splits.dataset,
        "splits": splits.digests(),
        "recipe": recipe.to_json(),
        "images": images,
        "seconds": round(trained.seconds, 3),
        "images_per_s": round(images / trained.seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **trained.report,
    }
    return Base(key, network, trained.weights, report)


def _store(base: Base, home: Path) -> None:
    """Put it in its place whole. What was there was damaged, or we had used it."""
    with write_folder_atomically(home / "bases" / base.key) as scratch:
        save_weights(base.weights, scratch / _WEIGHTS_FILE, {"base": base.key})
        document = {
            "key": base.key,
            "network": network_to_json(base.network),
            "report": base.report,
            "weights_sha256": hashlib.sha256((scratch / _WEIGHTS_FILE).read_bytes()).hexdigest(),
        }
        (scratch / _REPORT_FILE).write_text(json.dumps(document, indent=1))
