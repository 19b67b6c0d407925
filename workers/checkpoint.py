"""Checkpoints: a training that was killed goes on from the last one and ends with the same weights.

One safetensors file, tensors with names and a header of text, which runs no code when it is read. It is written whole
or not at all, and says which training it is of.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from search_spaces.network import Network, network_digest
from service.files import write_atomically
from workers.arithmetic import arithmetic_here
from workers.losses import Teacher
from workers.recipe import Recipe
from workers.splits import Split
from workers.weights import Weights

FORMAT_VERSION = "1"
EVERY_S = 30.0

_log = logging.getLogger(__name__)

Made = TypeVar("Made")


class CheckpointError(RuntimeError):
    """A file is no whole checkpoint, or one of another training."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training keeps its state, and how often it writes it.

    Attributes:
        path: of the file.
        every_s: seconds of training between two writes, at least.
    """

    path: Path
    every_s: float


class Clock:
    """Seconds of training, those of earlier processes included, and since the last checkpoint."""

    def __init__(self, before_s: float) -> None:
        self._begun_s = time.perf_counter() - before_s
        self.mark()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun_s

    def mark(self) -> None:
        self._marked_s = time.perf_counter()

    def since_mark_s(self) -> float:
        return time.perf_counter() - self._marked_s


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """A training after some steps.

    Attributes:
        step: steps done.
        parts: that each batch is divided into, since it did not fit into memory whole.
        seconds: of training so far.
        last_loss: of the last step.
        tensors: weights, optimiser state and what a regulariser has learned, by names of the training's own.
    """

    step: int
    parts: int
    seconds: float
    last_loss: float
    tensors: Mapping[str, Tensor]


def training_identity(
    network: Network, weights: Weights | None, split: Split, recipe: Recipe, teacher: Teacher | None
) -> str:
    """SHA-256 of all that decides how a training goes on; on another kind of processor it would come to other bits."""
    digest = hashlib.sha256()
    origin = [network_digest(network), split.digest, recipe.to_json(), str(arithmetic_here(network)), FORMAT_VERSION]
    digest.update(json.dumps(origin, sort_keys=True).encode())
    taught = {} if teacher is None else teacher.weights
    for kind, arrays in (("first", weights or {}), ("teacher", taught)):
        for name in sorted(arrays):
            digest.update(f"{kind} {name}".encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def go_on(path: Path, train: Callable[[Checkpoint], Made]) -> Made:
    """What a training makes that goes on from what is kept at `path`; what cannot be trusted there is thrown away.

    A training that diverges leaves nothing to go on from.
    """
    checkpoint = Checkpoint(path, EVERY_S)
    try:
        return train(checkpoint)
    except CheckpointError as error:
        _log.warning("training from the start: %s", error)
        path.unlink(missing_ok=True)  # another process may have been first
        return train(checkpoint)
    except ArithmeticError:
        path.unlink(missing_ok=True)
        raise


def write_checkpoint(path: Path, identity: str, state: State) -> None:
    """Put a state in the place of the one before."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    header = {
        "identity": identity,
        "sha256": _digest(tensors),
        "step": str(state.step),
        "parts": str(state.parts),
        "seconds": repr(state.seconds),
        "last_loss": repr(state.last_loss),
    }
    write_atomically(path, save(tensors, header))


def read_checkpoint(path: Path, identity: str) -> State | None:
    """The state that was written last by the training of that identity; None when there is no file.

    Raises:
        CheckpointError: the file is damaged, or of another training.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("identity", identity) != identity:
                raise CheckpointError(
                    f"{path.name} is of another network, recipe, data set, first weights or kind of processor; "
                    "remove it, or name another"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        if header["sha256"] != _digest(tensors):
            raise CheckpointError(f"{path.name} is not what was written")
        numbers = (int(header["step"]), int(header["parts"]), float(header["seconds"]), float(header["last_loss"]))
        return State(*numbers, tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path.name} is no whole checkpoint: {error}") from error


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
