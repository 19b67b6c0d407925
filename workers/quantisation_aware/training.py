"""Trains a quantised network for a while, through its rounding: the last transform before its file is written.

From folded weights and calibrated ranges it makes better ones, of the same form. Batches, losses and schedule are those
of `workers.train`; the optimiser is Adam, since channels of folded weights differ by orders of magnitude, and no one
rate of SGD suits them all (docs/decisions/0022).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from search_spaces.network import Network
from search_spaces.spec import Estimator
from workers.arithmetic import computing_in, rounding_arithmetic
from workers.batches import draw_batches
from workers.checkpoint import Checkpoint, Clock, State, read_checkpoint, training_identity, write_checkpoint
from workers.losses import Teacher, distilled_loss, loss_of, target_of, teach, teacher_module
from workers.onnx_quantize import TensorRange
from workers.optimisers import read_state, set_learning_rate, write_state
from workers.progress import Progress
from workers.quantisation_aware.module import QuantisedModule, build_quantised_module
from workers.recipe import Recipe, count_steps, learning_rate_at
from workers.splits import Split
from workers.train import TrainingDivergedError, head_parameters
from workers.weights import Weights

_LARGEST_GRADIENT = 1.0
"""Of all parameters together. Few bits make a loss of cliffs, and one step from an edge of one can undo many."""

_STEPS_PER_PROGRESS = 10


def train_quantised(
    network: Network,
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, TensorRange],
    split: Split,
    recipe: Recipe,
    estimator: Estimator,
    progress: Progress,
    yield_to: Callable[[], None],
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Weights, dict[str, TensorRange]]:
    """Train folded weights, and the steps that the estimator learns, on what the file will compute.

    The same arguments give the same bits on the same machine with the same number of torch threads.

    Args:
        network: folded, with the precisions that are wanted.
        weights: float32, of the folded network, not rounded.
        ranges: of each of `calibrated_tensors(network)`, as calibrated for these weights.
        split: to train on.
        recipe: a fine-tuning's, see `fine_tuning`; momentum is Adam's own.
        estimator: of the gradients.
        progress: told each few steps.
        yield_to: called between steps; it may take its time.
        teacher: whom the recipe's distillation learns from.
        checkpoint: where the state is kept; a training that finds one goes on from it.

    Returns:
        Weights that lie on their grids, and ranges: `write_onnx` makes of them the integers that were trained.

    Raises:
        TrainingDivergedError: the loss became infinite or not a number.
        CheckpointError: the checkpoint is of another training, or damaged.
        WeightsError: `weights` are not those of `network`.
        ValueError: a range is missing, or is none; or the recipe distils without a teacher.
    """
    run = _Run(build_quantised_module(network, weights, ranges, estimator), split, recipe, teacher)
    identity = "" if checkpoint is None else identity_of(network, weights, ranges, split, recipe, estimator, teacher)
    state = None if checkpoint is None else read_checkpoint(checkpoint.path, identity)
    if state is not None:
        run.restore(state)
    clock, steps = Clock(run.seconds), count_steps(len(split), recipe)
    with computing_in(run.arithmetic):
        for images, labels in draw_batches(split, network.input, recipe, steps, first=run.step):
            run.take_step(images, labels, steps)
            if run.step % _STEPS_PER_PROGRESS == 0 or run.step == steps:
                progress("quantise", run.step / steps, f"step {run.step} of {steps}, loss {run.last_loss:.3f}")
            yield_to()
            if checkpoint is not None and clock.since_mark_s() >= checkpoint.every_s:
                run.seconds = clock.seconds()
                write_checkpoint(checkpoint.path, identity, run.snapshot())
                clock.mark()
    return run.module.deployed()


def identity_of(
    network: Network,
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, TensorRange],
    split: Split,
    recipe: Recipe,
    estimator: Estimator,
    teacher: Teacher | None,
) -> str:
    """SHA-256 of all that decides how a training through the rounding goes on; see `train_quantised`."""
    told = [training_identity(network, dict(weights), split, recipe, teacher), str(estimator), dict(ranges)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class _Run:
    """A training through the rounding between two steps: all that the next one depends on."""

    def __init__(self, module: QuantisedModule, split: Split, recipe: Recipe, teacher: Teacher | None) -> None:
        self.arithmetic = rounding_arithmetic(module.network)
        self.module = module
        module.move_to(self.arithmetic.device)
        self._recipe, self._target = recipe, target_of(split)
        self._teacher = teacher_module(recipe, teacher, self.arithmetic.device)
        self._moved = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._optimiser = _make_optimiser(module, recipe, self._target.scale)
        self.step, self.seconds, self.last_loss = 0, 0.0, math.nan

    def take_step(self, images: Tensor, labels: Tensor, steps: int) -> None:
        """One of so many. Raises `TrainingDivergedError`."""
        learning_rate = learning_rate_at(self._recipe, self.step, steps)
        set_learning_rate(self._optimiser, learning_rate)
        images, labels = images.to(self.arithmetic.device), labels.to(self.arithmetic.device)
        loss = _take_step(self.module, self._optimiser, self._loss(images, labels))
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss or its gradient is {loss} at step {self.step + 1} of {steps} of quantisation-aware "
                f"training, learning rate {learning_rate:.4g}: try a smaller one, or more bits"
            )
        self.step, self.last_loss = self.step + 1, loss

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.module(images)
        loss = loss_of(outputs, labels, self._recipe, self._target)
        if self._teacher is None or self._recipe.distillation is None:
            return loss
        return distilled_loss(loss, outputs, teach(self._teacher, images), self._recipe.distillation)

    def snapshot(self) -> State:
        tensors: dict[str, Tensor] = {f"{_PARAMETER}{name}": value for name, value in self._moved.items()}
        tensors |= {f"{_FIRST_STEP}{name}": value for name, value in self.module.first_steps().items()}
        return State(self.step, 1, self.seconds, self.last_loss, tensors | read_state(self._optimiser, self._moved))

    def restore(self, state: State) -> None:
        self.step, self.seconds, self.last_loss = state.step, state.seconds, state.last_loss
        memory = dict(state.tensors)
        with torch.no_grad():
            for name, value in self._moved.items():
                value.copy_(memory.pop(f"{_PARAMETER}{name}"))
        self.module.set_first_steps({name: memory.pop(f"{_FIRST_STEP}{name}") for name in self.module.first_steps()})
        write_state(self._optimiser, self._moved, memory)


_PARAMETER, _FIRST_STEP = "parameter/", "first step/"


def _take_step(module: QuantisedModule, optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    """The loss before the step; not finite where the loss or its gradient is not, and then nothing is changed."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    size = torch.nn.utils.clip_grad_norm_(module.parameters(), _LARGEST_GRADIENT).item()
    if math.isfinite(size):
        optimiser.step()
        module.settle()
    return loss.item() if math.isfinite(size) else size


def _make_optimiser(module: QuantisedModule, recipe: Recipe, scale: float) -> torch.optim.Optimizer:
    """Kernels decay, and so do PACT's clips, as its authors have it; steps and biases do not.

    The head goes by the unit of what is told, which is `scale`, as in `workers.train`.
    """
    ratios = {id(ratio) for ratio in module.ratios()}
    last = head_parameters(module.network)
    head = {id(parameter) for name, parameter in module.named_parameters() if name.replace("/", ".") in last}
    decays_ratios = module.estimator is Estimator.PACT
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for parameter in module.parameters():
        decays = decays_ratios if id(parameter) in ratios else parameter.dim() > 1
        groups.setdefault((decays, id(parameter) in head), []).append(parameter)
    return torch.optim.Adam(
        [
            {
                "params": parameters,
                "rate": scale if is_head else 1.0,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (decays, is_head), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
    )
