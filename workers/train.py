"""Trains a network: SGD with Nesterov momentum and one learning-rate schedule, the same bits for the same seed.

Knows nothing of where weights are kept or of who else uses the machine: between steps it calls `yield_to`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import Tensor

from search_spaces.datasets import SMALL_DATASET_IMAGES, DatasetInfo
from search_spaces.network import InputContract, Network, Op
from search_spaces.spec import Family
from workers.progress import Progress
from workers.splits import Split
from workers.torch_network import NetworkModule, build_module, read_weights
from workers.weights import Weights, init_weights

_WARM_UP_SHARE = 0.25
_FIRST_SHARE_OF_PEAK = 0.1
_PROGRESS_EVERY_S = 0.5


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer a finite number; the message names the step and the learning rate."""


class Schedule(StrEnum):
    """How the learning rate goes over the whole training."""

    ONE_CYCLE = "one_cycle"  # up to the peak over the first quarter, then down to zero along a cosine
    COSINE = "cosine"  # from the peak down to zero: for weights that are already good


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the split; may be a fraction.
        learning_rate: the peak.
        weight_decay: of kernels only, not of batch norms and biases.
        shift_pixels: images are moved by up to so many pixels each way, at random; zeros come in.
        flip: whether images are mirrored left to right, at random.
        seed: of the order of images, of the augmentation, and of the first weights.
    """

    epochs: float
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    schedule: Schedule = Schedule.ONE_CYCLE
    shift_pixels: int = 0
    flip: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Schedule) else value for name, value in asdict(self).items()}


# Fashion-MNIST's recipe is for the patience of a first visit: 100,000 images take three minutes of one core for
# a MobileNet-V1 of width 0.5 and lead to 0.90; more epochs would gain a point or two.
_RECIPES: dict[str, Recipe] = {
    "fashion_mnist": Recipe(epochs=2),
    "digits": Recipe(epochs=20, batch_size=32, learning_rate=0.05),
    "cifar10": Recipe(epochs=30, shift_pixels=4, flip=True),
    "cifar100": Recipe(epochs=30, shift_pixels=4, flip=True),
}

# Of digits at width 0.25 the inverted residuals get .96, .92 and .91 right at half the rate, .84, .48 and .90 at the
# whole one. For residual blocks, shuffles and branches the whole one is as good or better.
_FAMILY_LEARNING_RATE = dict.fromkeys(Family, 1.0) | {
    Family.EFFICIENTNET_LITE0: 0.5,
    Family.MOBILENET_V2: 0.5,
    Family.MOBILENET_V3_SMALL: 0.5,
    Family.VGG_13: 0.5,
}


_USUAL_IMAGES, _USUAL_EPOCHS = 300_000, (5, 40)
"""Of a data set that has no recipe of its own: so many images are shown, in so many passes at least and at most."""


def recipe_for(dataset: DatasetInfo, family: Family | None) -> Recipe:
    """The recipe that bases of a family are trained with on a data set, or that a base without one is tuned by."""
    recipe = _RECIPES.get(dataset.name) if not dataset.digest else None
    recipe = recipe or _usual_recipe(dataset)
    factor = 1.0 if family is None else _FAMILY_LEARNING_RATE[family]
    return replace(recipe, learning_rate=recipe.learning_rate * factor)


def _usual_recipe(dataset: DatasetInfo) -> Recipe:
    """Small data sets get small batches, so that there are steps enough. Nothing is mirrored: it may mean something."""
    least, most = _USUAL_EPOCHS
    epochs = min(max(_USUAL_IMAGES / max(dataset.images, 1), least), most)
    shift = min(dataset.shape[1:]) // 8
    if dataset.images < SMALL_DATASET_IMAGES:
        return Recipe(epochs=epochs, batch_size=32, learning_rate=0.05, shift_pixels=shift)
    return Recipe(epochs=epochs, shift_pixels=shift)


def fine_tuning(recipe: Recipe, epochs: float, learning_rate: float) -> Recipe:
    """How weights that are already good are trained on: the same images, no warm-up, a smaller rate."""
    return replace(recipe, epochs=epochs, learning_rate=learning_rate, schedule=Schedule.COSINE)


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one of `steps` steps, counted from 0."""
    warm_up = _WARM_UP_SHARE * steps if recipe.schedule is Schedule.ONE_CYCLE else 0.0
    if step < warm_up:
        return recipe.learning_rate * (_FIRST_SHARE_OF_PEAK + (1 - _FIRST_SHARE_OF_PEAK) * step / warm_up)
    done = (step - warm_up) / (steps - warm_up)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def train(
    network: Network,
    weights: Weights | None,
    split: Split,
    recipe: Recipe,
    progress: Progress,
    yield_to: Callable[[], None],
) -> Weights:
    """Train from `weights`, or from He-normal ones, and return the trained weights.

    The same arguments give the same bits on the same machine with the same number of torch threads.

    Args:
        yield_to: called between steps; it may take its time.

    Raises:
        TrainingDivergedError: the loss became infinite or not a number.
    """
    target = _target_of(split)
    if weights is None:
        weights = _aimed(network, init_weights(network, recipe.seed), target)
    module = build_module(network, weights)
    module.train()
    optimiser = _make_optimiser(module, recipe, _head_parameters(network), target)
    steps = count_steps(len(split), recipe)
    watch = _Watch(progress, steps, recipe)
    for step, (images, labels) in enumerate(draw_batches(split, network.input, recipe, steps)):
        learning_rate = learning_rate_at(recipe, step, steps)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * group["rate"]
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(module(images), labels, recipe, target)
        torch.autograd.backward(loss)
        optimiser.step()
        _check_finite(loss.item(), step, learning_rate)
        watch.step(step + 1, loss.item())
        yield_to()
    return read_weights(module)


def count_steps(images: int, recipe: Recipe) -> int:
    """Full batches only, at least one in all."""
    return max(1, round(recipe.epochs * (images // _batch_size(images, recipe))))


def _batch_size(images: int, recipe: Recipe) -> int:
    return min(recipe.batch_size, images)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be told: values around `mean`, so far apart as `scale` says. Classes have neither.

    Values of any unit are trained alike: the error is told in units of `scale`, and the last layer, which alone knows
    the unit, is moved by its square. That is the same as training on normalised values and scaling the last layer.
    """

    mean: float = 0.0
    scale: float = 1.0


def loss_of(outputs: Tensor, labels: Tensor, recipe: Recipe, target: Target) -> Tensor:
    """Mean loss of a batch.

    Args:
        outputs: (n, classes), (n, 1) for the second of two classes, or (n, 1) values.
        labels: int64 (n) classes, or float32 (n) values.
        recipe: its label smoothing.
        target: of the values.

    Returns:
        Cross entropy of classes; of values the squared error in units of the target's scale.
    """
    if labels.dtype.is_floating_point:
        return (((outputs[:, 0] - labels) / target.scale) ** 2).mean()
    if outputs.shape[1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return F.cross_entropy(outputs, labels, label_smoothing=recipe.label_smoothing)


def _target_of(split: Split) -> Target:
    if split.labels.dtype.kind == "i":
        return Target()
    scale = float(split.labels.std(dtype=float))
    return Target(float(split.labels.mean(dtype=float)), scale if scale > 0 else 1.0)


def _head_parameters(network: Network) -> tuple[str, ...]:
    """Names of the last layer's own arrays, when the network ends with a linear layer."""
    last = network.by_name()[network.output]
    return (f"{last.name}.weight", f"{last.name}.bias") if last.op is Op.LINEAR else ()


def _aimed(network: Network, weights: Weights, target: Target) -> Weights:
    """First weights whose outputs are as far apart, and around, what is to be told."""
    head = _head_parameters(network)
    aimed = {name: (array * target.scale).astype("float32") for name, array in weights.items() if name in head[:1]}
    aimed |= {name: (array + target.mean).astype("float32") for name, array in weights.items() if name in head[1:]}
    return weights | aimed


def _make_optimiser(
    module: NetworkModule, recipe: Recipe, head: tuple[str, ...], target: Target
) -> torch.optim.Optimizer:
    """Three kinds of parameters: kernels decay, others do not; those of the head go by the target's own unit."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    own = {id(module.weight(name)) for name in head}
    for parameter in module.parameters():
        groups.setdefault((parameter.dim() > 1, id(parameter) in own), []).append(parameter)
    return torch.optim.SGD(
        [
            {
                "params": parameters,
                "rate": target.scale**2 if is_head else 1.0,
                "weight_decay": recipe.weight_decay / (target.scale**2 if is_head else 1.0) if is_kernel else 0.0,
            }
            for (is_kernel, is_head), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
    )


def _check_finite(loss: float, step: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"the loss is {loss} after step {step + 1} at learning rate {learning_rate:.4g}")


def draw_batches(split: Split, contract: InputContract, recipe: Recipe, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, normalised batches: float32 (n, C, H, W) channels last, and labels (n)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    rows = _shuffled_rows(len(split), _batch_size(len(split), recipe), generator)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (contract.mean, contract.std))
    for _ in range(steps):
        pixels, labels = map(torch.from_numpy, split.take(next(rows).numpy()))
        images = _augment(pixels, recipe, generator)
        normal = images.float().mul_(1 / (255 * std)).sub_(mean / std)
        yield normal.contiguous(memory_format=torch.channels_last), labels


def _shuffled_rows(images: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless row numbers, a batch at a time, in a new order for each epoch; what fills no batch is left out."""
    while True:
        order = torch.randperm(images, generator=generator)
        yield from torch.split(order[: images - images % batch_size], batch_size)


def _augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Mirror and shift each image of a uint8 batch (n, C, H, W) by its own lot."""
    count, _, height, width = images.shape
    columns = torch.arange(width).expand(count, width)
    rows = torch.arange(height).expand(count, height)
    if recipe.flip:
        is_flipped = torch.randint(2, (count, 1), generator=generator).bool()
        columns = torch.where(is_flipped, columns.flip(1), columns)
    reach = recipe.shift_pixels
    if reach:
        shifts = torch.randint(2 * reach + 1, (2, count, 1), generator=generator)
        rows, columns = rows + shifts[0], columns + shifts[1]
        images = F.pad(images, (reach, reach, reach, reach))
    if not recipe.flip and not reach:
        return images
    return images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class _Watch:
    """Turns steps into progress: the place in the training, the loss, the speed and the time left."""

    def __init__(self, progress: Progress, steps: int, recipe: Recipe) -> None:
        self._progress, self._steps, self._recipe = progress, steps, recipe
        self._begun_s = self._reported_s = time.perf_counter()

    def step(self, done: int, loss: float) -> None:
        now_s = time.perf_counter()
        if done < self._steps and now_s - self._reported_s < _PROGRESS_EVERY_S:
            return
        self._reported_s = now_s
        per_step_s = (now_s - self._begun_s) / done
        share = done / self._steps
        left = round(per_step_s * (self._steps - done))
        message = (
            f"epoch {share * self._recipe.epochs:.2f} of {self._recipe.epochs:g}, loss {loss:.3f}, "
            f"{self._recipe.batch_size / per_step_s:.0f} images/s, {left // 60}:{left % 60:02d} left"
        )
        self._progress("train", share, message)
