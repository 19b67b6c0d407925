"""Trains a network by a recipe, the same bits for the same seed, also when it was killed in between.

Knows nothing of bases or of who else uses the machine: between steps it calls `yield_to`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.network import Network, Op
from workers.arithmetic import arithmetic_here, computing_in, is_out_of_memory
from workers.batches import draw_batches
from workers.checkpoint import Checkpoint, Clock, State, go_on, read_checkpoint, training_identity, write_checkpoint
from workers.losses import (
    Target,
    Teacher,
    distilled_loss,
    loss_of,
    map_loss,
    penalised_maps,
    target_of,
    teach,
    teacher_module,
)
from workers.optimisers import make_optimiser, read_state, set_learning_rate, write_state
from workers.progress import Progress
from workers.recipe import Recipe, count_steps, learning_rate_at, size_of_batch
from workers.regularisers import WeightLoss, regularised_layers
from workers.splits import Split
from workers.torch_network import NetworkModule, build_module, read_weights
from workers.weights import Weights, init_weights

_log = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 0.5
_LEAST_IMAGES_OF_A_NORM = 8


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer a finite number; the message names the step, the learning rate and the last loss."""


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """What a training leads to.

    Attributes:
        weights: of the network, without what a regulariser has learned.
        seconds: of training, also those before it was killed.
        report: JSON-safe: `arithmetic`; `images_at_once` where memory was short; what the regulariser has learned.
    """

    weights: Weights
    seconds: float
    report: dict[str, Any]


def train(
    network: Network,
    weights: Weights | None,
    split: Split,
    recipe: Recipe,
    progress: Progress,
    yield_to: Callable[[], None],
    teacher: Teacher | None = None,
) -> Weights:
    """Train from `weights`, or from He-normal ones, and return the trained weights; see `train_with_report`."""
    return train_with_report(network, weights, split, recipe, progress, yield_to, teacher).weights


def train_with_report(
    network: Network,
    weights: Weights | None,
    split: Split,
    recipe: Recipe,
    progress: Progress,
    yield_to: Callable[[], None],
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
) -> Trained:
    """Train from `weights`, or from He-normal ones.

    The same arguments give the same bits on the same machine with the same number of torch threads.

    Args:
        yield_to: called between steps; it may take its time.
        teacher: whom the recipe's distillation learns from.
        checkpoint: where the state is kept; a training that finds one goes on from it.
        until: the step that it pauses behind, with its state in the checkpoint; default: the recipe's last. However
            often it pauses, it ends with the bits of a training that did not.

    Raises:
        TrainingDivergedError: the loss became infinite or not a number.
        CheckpointError: the checkpoint is of another training, or damaged.
        ValueError: the recipe names maps that the network has not, or distils without a teacher.
    """
    run = _Run(network, weights, split, recipe, teacher)
    identity = "" if checkpoint is None else training_identity(network, weights, split, recipe, teacher)
    state = None if checkpoint is None else read_checkpoint(checkpoint.path, identity)
    if state is not None:
        run.restore(state)
    steps = count_steps(len(split), recipe)
    clock = Clock(run.seconds)
    last = steps if until is None else min(until, steps)
    watch = _Watch(progress, steps, recipe, run.step, size_of_batch(len(split), recipe))
    with computing_in(run.arithmetic):
        for images, labels in draw_batches(split, network.input, recipe, last, first=run.step):
            run.take_step(images, labels, learning_rate_at(recipe, run.step, steps))
            watch.step(run.step, run.last_loss)
            yield_to()
            if checkpoint is not None and clock.since_mark_s() >= checkpoint.every_s:
                run.seconds = clock.seconds()
                write_checkpoint(checkpoint.path, identity, run.snapshot())
                clock.mark()
    run.seconds = clock.seconds()
    trained = run.result(size_of_batch(len(split), recipe))
    if checkpoint is not None and until is not None:
        write_checkpoint(checkpoint.path, identity, run.snapshot())
    return trained


def train_resumably(
    network: Network,
    weights: Weights | None,
    split: Split,
    recipe: Recipe,
    path: Path,
    progress: Progress,
    yield_to: Callable[[], None],
    teacher: Teacher | None = None,
    until: int | None = None,
) -> Trained:
    """As `train_with_report`, going on from what is kept at `path`; what cannot be trusted there is thrown away.

    The file stays when the training is done: remove it once the weights are where they belong.
    """
    train_on = partial(train_with_report, network, weights, split, recipe, progress, yield_to, teacher, until=until)
    return go_on(path, train_on)


class _Run:
    """A training between two steps: all that the next one depends on."""

    def __init__(
        self, network: Network, weights: Weights | None, split: Split, recipe: Recipe, teacher: Teacher | None
    ) -> None:
        self.arithmetic = arithmetic_here(network)
        self._recipe, self._target = recipe, target_of(split)
        self._maps = penalised_maps(network, recipe.activation_l1)
        self._network = network
        if weights is None:
            weights = _aimed(network, init_weights(network, recipe.seed), self._target)
        self._module = build_module(network, weights).to(self.arithmetic.device)
        self._module.train()
        self._teacher = teacher_module(recipe, teacher, self.arithmetic.device)
        self._weight_loss = _weight_loss(network, self._module, recipe)
        learned = None if self._weight_loss is None else self._weight_loss.learned
        self._moved = self._module.named_weights() | ({} if learned is None else {_LEARNED: learned})
        self._optimiser = make_optimiser(
            {name: value for name, value in self._module.named_weights().items() if value.requires_grad},
            recipe,
            head_parameters(network),
            self._target.scale,
            learned,
        )
        self.step, self.parts, self.seconds, self.last_loss = 0, 1, 0.0, math.nan

    def take_step(self, images: Tensor, labels: Tensor, learning_rate: float) -> None:
        """One step of the optimiser, in as many parts as fit into memory.

        Batch norms see a part at a time, and their running statistics have seen what was given up.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        set_learning_rate(self._optimiser, learning_rate)
        images, labels = images.to(self.arithmetic.device), labels.to(self.arithmetic.device)
        while (loss := self._try_step(images, labels)) is None:
            self.parts *= 2
            _log.warning("out of memory: going on with %d images at once", -(-len(images) // self.parts))
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss is {loss} after step {self.step + 1} at learning rate {learning_rate:.4g}; "
                f"the last finite one was {self.last_loss:.4g}: try a smaller learning rate"
            )
        self.step, self.last_loss = self.step + 1, loss

    def _try_step(self, images: Tensor, labels: Tensor) -> float | None:
        """The loss of the batch before the step; None where memory was short, and would be less so in smaller parts."""
        try:
            return self._make_step(images, labels)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(images) // (2 * self.parts) < self._least_images():
                raise
        if self.arithmetic.device == "cuda":
            torch.cuda.empty_cache()
        return None

    def _make_step(self, images: Tensor, labels: Tensor) -> float:
        self._optimiser.zero_grad(set_to_none=True)
        losses = []
        for some, theirs in zip(images.chunk(self.parts), labels.chunk(self.parts), strict=True):
            loss = self._loss(some, theirs) * (len(some) / len(images))
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        if self._weight_loss is not None:
            assert self._recipe.regulariser is not None
            loss = self._recipe.regulariser.weight * self._weight_loss()
            torch.autograd.backward(loss)
            self._weight_loss.limit_step(self._recipe.regulariser.weight)
            losses.append(loss.detach())
        self._optimiser.step()
        if self._weight_loss is not None:
            self._weight_loss.limit_values()
        return sum(losses[1:], start=losses[0]).item()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of some images, without that of the weights."""
        output, products = self._network.output, self.arithmetic.products
        with torch.autocast(self.arithmetic.device, products, enabled=products is not None):
            tensors = self._module.observe(images, [output, *self._maps])
            taught = None if self._teacher is None else teach(self._teacher, images)
        outputs = tensors[output].float()
        loss = loss_of(outputs, labels, self._recipe, self._target)
        if taught is not None and self._recipe.distillation is not None:
            loss = distilled_loss(loss, outputs, taught, self._recipe.distillation)
        return loss + map_loss(tensors, self._maps) if self._maps else loss

    def _least_images(self) -> int:
        """Of a part: batch norms need some to tell a mean and a variance."""
        has_norms = any(node.op is Op.BATCH_NORM for node in self._network.nodes)
        return _LEAST_IMAGES_OF_A_NORM if has_norms else 1

    def snapshot(self) -> State:
        tensors = {f"{_WEIGHT}{name}": value for name, value in self._moved.items()}
        memory = read_state(self._optimiser, self._moved)
        return State(self.step, self.parts, self.seconds, self.last_loss, tensors | memory)

    def restore(self, state: State) -> None:
        self.step, self.parts, self.seconds, self.last_loss = state.step, state.parts, state.seconds, state.last_loss
        memory = dict(state.tensors)
        with torch.no_grad():
            for name, value in self._moved.items():
                value.copy_(memory.pop(f"{_WEIGHT}{name}"))
        write_state(self._optimiser, self._moved, memory)

    def result(self, batch_size: int) -> Trained:
        report: dict[str, Any] = {"arithmetic": str(self.arithmetic)}
        if self.parts > 1:
            report["images_at_once"] = -(-batch_size // self.parts)
        learned = {} if self._weight_loss is None else self._weight_loss.report()
        if not all(bool(torch.isfinite(value).all()) for value in self._moved.values()):
            # The loss is told before a step, so that no loss tells what the last one did.
            raise TrainingDivergedError(
                f"weights are not finite after the last step; the last loss was {self.last_loss:.4g}: try a smaller "
                "learning rate"
            )
        return Trained(read_weights(self._module), self.seconds, report | learned)


_WEIGHT, _LEARNED = "weight/", "learned by the regulariser"


def _weight_loss(network: Network, module: NetworkModule, recipe: Recipe) -> WeightLoss | None:
    if recipe.regulariser is None:
        return None
    weights = module.named_weights()
    return WeightLoss(
        recipe.regulariser.name, {name: weights[f"{name}.weight"] for name in regularised_layers(network)}
    )


def head_parameters(network: Network) -> tuple[str, ...]:
    """Names of the last layer's own arrays, when the network ends with a linear layer."""
    last = network.by_name()[network.output]
    return (f"{last.name}.weight", f"{last.name}.bias") if last.op is Op.LINEAR else ()


def _aimed(network: Network, weights: Weights, target: Target) -> Weights:
    """First weights whose outputs are as far apart, and around, what is to be told."""
    head = head_parameters(network)
    aimed = {name: (array * target.scale).astype(np.float32) for name, array in weights.items() if name in head[:1]}
    aimed |= {name: (array + target.mean).astype(np.float32) for name, array in weights.items() if name in head[1:]}
    return weights | aimed


class _Watch:
    """Turns steps into progress: the place in the training, the loss, the speed and the time left."""

    def __init__(self, progress: Progress, steps: int, recipe: Recipe, first: int, batch_size: int) -> None:
        self._progress, self._steps, self._recipe, self._first = progress, steps, recipe, first
        self._batch_size = batch_size
        self._begun_s = self._reported_s = time.perf_counter()

    def step(self, done: int, loss: float) -> None:
        now_s = time.perf_counter()
        if done < self._steps and now_s - self._reported_s < _PROGRESS_EVERY_S:
            return
        self._reported_s = now_s
        per_step_s = (now_s - self._begun_s) / (done - self._first)
        share = done / self._steps
        left = round(per_step_s * (self._steps - done))
        message = (
            f"epoch {share * self._recipe.epochs:.2f} of {self._recipe.epochs:g}, loss {loss:.3f}, "
            f"{self._batch_size / per_step_s:.0f} images/s, {left // 60}:{left % 60:02d} left"
        )
        self._progress("train", share, message)
