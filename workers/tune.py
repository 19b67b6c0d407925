"""Trains weights on that are good already: candidates, finalists, designs that are refined.

Knows nothing of what the weights are for; what is killed in between goes on from where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from search_spaces.network import Network
from search_spaces.spec import NetworkSpec, QuantisationAwareSpec
from service.files import write_atomically
from workers.checkpoint import Checkpoint, go_on, training_identity
from workers.host_lock import TrainingTurn
from workers.losses import Teacher
from workers.onnx_quantize import TensorRange
from workers.progress import Progress
from workers.quantisation_aware.training import identity_of, train_quantised
from workers.recipe import Distillation, Recipe, count_steps, fine_tuning, recipe_for
from workers.train import train_resumably
from workers.weights import Weights
from workers.workbench import Workbench

ABANDONED_AFTER_S = 14 * 24 * 3600.0

TUNINGS = "tunings"
"""Where checkpoints are, under the home folder."""


def tune(
    bench: Workbench,
    network: Network,
    weights: Weights,
    epochs: float,
    learning_rate: float,
    progress: Progress,
    turn: TrainingTurn,
) -> Weights:
    """Train on, by the usual recipe and what the spec asks of fine-tuning.

    Raises:
        TrainingDivergedError: the learning rate does not suit the network.
    """
    tuning = Tuning(bench, network, weights, epochs, learning_rate)
    trained = tuning.train(progress, turn)
    tuning.forget()
    return trained


class Tuning:
    """A fine-tuning that may pause, to see what has come of it so far.

    The learning rate goes down over all of its epochs, pauses or not, so that the weights at the end are those of a
    training without pauses. Each pause has a file of its own: after a kill, what was seen there is seen again without
    training.
    """

    def __init__(
        self, bench: Workbench, network: Network, weights: Weights, epochs: float, learning_rate: float
    ) -> None:
        usual = replace(_taught(bench), activation_l1=bench.spec.evaluation.activation_l1)
        self._recipe = fine_tuning(usual, epochs, learning_rate)
        self._bench, self._network, self._weights = bench, network, weights
        self._teacher, self._split = _teacher(bench, self._recipe), bench.splits.train
        identity = training_identity(network, weights, self._split, self._recipe, self._teacher)
        self._end = _partial(bench, identity)
        self._left: list[Path] = []

    def train(self, progress: Progress, turn: TrainingTurn, until_epochs: float | None = None) -> Weights:
        """Train on from the last pause until so many epochs are done in all, or to the end.

        Raises:
            TrainingDivergedError: the learning rate does not suit the network.
        """
        until, path = None, self._end
        if until_epochs is not None and until_epochs < self._recipe.epochs:
            until = count_steps(len(self._split), replace(self._recipe, epochs=until_epochs))
            path = self._end.with_stem(f"{self._end.stem}-{until}")
        if self._left and not path.exists():
            with suppress(FileNotFoundError):  # then all of it is trained again
                write_atomically(path, self._left[-1].read_bytes())
        self._left.append(path)
        trained = train_resumably(
            self._network,
            self._weights,
            self._split,
            self._recipe,
            path,
            progress,
            turn.yield_,
            self._teacher,
            until,
        )
        return trained.weights

    def forget(self) -> None:
        """Remove what the training has left to go on from."""
        for path in self._left:
            path.unlink(missing_ok=True)


def tune_rounded(
    bench: Workbench,
    network: Network,
    weights: Weights,
    ranges: Mapping[str, TensorRange],
    rung: QuantisationAwareSpec,
    progress: Progress,
    turn: TrainingTurn,
) -> tuple[Weights, dict[str, TensorRange]]:
    """Train a folded network on through its rounding; see `train_quantised`.

    Raises:
        TrainingDivergedError: the learning rate does not suit the network.
    """
    recipe = fine_tuning(_taught(bench), rung.epochs, rung.learning_rate)
    teacher, split, estimator = _teacher(bench, recipe), bench.splits.train, rung.estimator
    partial = _partial(bench, identity_of(network, weights, ranges, split, recipe, estimator, teacher))

    def train(checkpoint: Checkpoint) -> tuple[Weights, dict[str, TensorRange]]:
        return train_quantised(
            network, weights, ranges, split, recipe, estimator, progress, turn.yield_, teacher, checkpoint
        )

    trained = go_on(partial, train)
    partial.unlink(missing_ok=True)
    return trained


def _teacher(bench: Workbench, recipe: Recipe) -> Teacher | None:
    return None if recipe.distillation is None else Teacher(bench.base.network, bench.base.weights)


def _partial(bench: Workbench, identity: str) -> Path:
    """Where a training's checkpoint is."""
    _forget_abandoned(bench.home / TUNINGS)
    return bench.home / TUNINGS / f"{identity}.safetensors"


def _forget_abandoned(folder: Path) -> None:
    """Remove what cancelled searches and jobs that failed have left: nobody comes back to it after so long."""
    oldest = time.time() - ABANDONED_AFTER_S
    for path in folder.glob("*.safetensors") if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another process may be doing the same
            if path.stat().st_mtime < oldest:
                path.unlink()


def _taught(bench: Workbench) -> Recipe:
    """As usual for the data set and the family, however the base was trained; with what the spec says of a teacher."""
    taught = bench.spec.evaluation.distillation
    return replace(usual_recipe(bench), distillation=None if taught is None else Distillation(**dict(taught)))


def usual_recipe(bench: Workbench) -> Recipe:
    """For the data set and the family."""
    network = bench.spec.network
    return recipe_for(bench.dataset, network.family if isinstance(network, NetworkSpec) else None)
