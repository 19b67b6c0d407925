"""Trains a quantised network for a while, through its rounding: the last transform before its file is written.

From folded weights and calibrated ranges it makes better ones, of the same form. Batches, losses and schedule are those
of `workers.train`; the optimiser is Adam, since channels of folded weights differ by orders of magnitude, and no one
rate of SGD suits them all (docs/decisions/0022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from search_spaces.network import Network
from search_spaces.spec import Estimator
from workers.batches import draw_batches
from workers.losses import loss_of, target_of
from workers.onnx_quantize import TensorRange
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
) -> tuple[Weights, dict[str, TensorRange]]:
    """Train folded weights, and the steps that the estimator learns, on what the file will compute.

    Args:
        network: folded, with the precisions that are wanted.
        weights: float32, of the folded network, not rounded.
        ranges: of each of `calibrated_tensors(network)`, as calibrated for these weights.
        split: to train on.
        recipe: a fine-tuning's, see `fine_tuning`; momentum is Adam's own.
        estimator: of the gradients.
        progress: told each few steps.
        yield_to: called between steps; it may take its time.

    Returns:
        Weights that lie on their grids, and ranges: `write_onnx` makes of them the integers that were trained.

    Raises:
        TrainingDivergedError: the loss became infinite or not a number.
        WeightsError: `weights` are not those of `network`.
        ValueError: a range is missing, or is none.
    """
    module, target = build_quantised_module(network, weights, ranges, estimator), target_of(split)
    steps = count_steps(len(split), recipe)
    optimiser = _make_optimiser(module, recipe, target.scale)
    for step, (images, labels) in enumerate(draw_batches(split, network.input, recipe, steps)):
        learning_rate = learning_rate_at(recipe, step, steps)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * group["rate"]
        loss = _take_step(module, optimiser, loss_of(module(images), labels, recipe, target))
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss or its gradient is {loss} at step {step + 1} of {steps} of quantisation-aware training, "
                f"learning rate {learning_rate:.4g}: try a smaller one, or more bits"
            )
        if step % _STEPS_PER_PROGRESS == 0 or step + 1 == steps:
            progress("quantise", (step + 1) / steps, f"step {step + 1} of {steps}, loss {loss:.3f}")
        yield_to()
    return module.deployed()


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
