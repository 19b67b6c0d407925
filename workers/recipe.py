"""Recipes: all that decides how a network is trained, and which one suits a data set and a family.

A recipe is part of the key of a base, so its JSON says nothing that older recipes did not say, unless it has to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from search_spaces.datasets import SMALL_DATASET_IMAGES, DatasetInfo
from search_spaces.spec import Family, NetworkSpec, Optimizer, RegulariserName, Schedule, SearchSpec

_WARM_UP_SHARE = 0.25
_FIRST_SHARE_OF_PEAK = 0.1
_STEP_SHARES, _STEP_FACTOR = (0.5, 0.75), 0.1


@dataclass(frozen=True, slots=True)
class Regulariser:
    """A loss of the weights of every convolution and linear layer: `weight` times the sum over layers."""

    name: RegulariserName
    weight: float = 0.01


@dataclass(frozen=True, slots=True)
class Distillation:
    """Learn from a teacher's outputs as well as from labels (Hinton et al., 2015).

    Attributes:
        temperature: divides the logits of both.
        weight: share of the teacher in the loss; the labels have the rest.
    """

    temperature: float = 4.0
    weight: float = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the split; may be a fraction.
        learning_rate: the peak.
        momentum: of SGD; for AdamW the decay of the first moment.
        weight_decay: of kernels only, not of batch norms and biases.
        shift_pixels: images are moved by up to so many pixels each way, at random; zeros come in.
        flip: whether images are mirrored left to right, at random.
        seed: of the order of images, of the augmentation, and of the first weights.
        activation_l1: weight of the L1 norm of the maps behind ReLUs, all alike or by the name of the ReLU
            (Georgiadis, 2019): summed over a map, averaged over the batch.
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
    optimizer: Optimizer = Optimizer.SGD
    regulariser: Regulariser | None = None
    distillation: Distillation | None = None
    activation_l1: float | Mapping[str, float] = 0.0

    def to_json(self) -> dict[str, Any]:
        """What a base is found by. Parts that came later are left out at their defaults, so that keys stay."""
        document = {name: str(value) if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}
        kept = {name for name in document if name not in _ADDED or getattr(self, name) != getattr(_USUAL, name)}
        return {name: value for name, value in document.items() if name in kept}


_ADDED = ("optimizer", "regulariser", "distillation", "activation_l1")
_USUAL = Recipe(epochs=1)


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


# A MobileNet-V1 (width 0.25) on digits gets .53, .84 and .94 right at 8, 30 and 80 % of the rate that SGD gets .91
# with; larger networks want less. Decay is a share of the learning rate, so that it has to be larger.
_ADAMW_LEARNING_RATE, _ADAMW_WEIGHT_DECAY = 0.2, 0.01


def recipe_of(spec: SearchSpec, dataset: DatasetInfo) -> Recipe:
    """The recipe that a spec trains its catalog network by: the usual one but for what it says."""
    assert isinstance(spec.network, NetworkSpec), "an imported network is trained already"
    asked, usual = spec.recipe, recipe_for(dataset, spec.network.family)
    if asked.optimizer is Optimizer.ADAMW:
        rate = usual.learning_rate * _ADAMW_LEARNING_RATE
        usual = replace(usual, learning_rate=rate, weight_decay=_ADAMW_WEIGHT_DECAY)
    return replace(
        usual,
        epochs=asked.epochs or usual.epochs,
        learning_rate=asked.learning_rate or usual.learning_rate,
        optimizer=asked.optimizer,
        schedule=asked.schedule,
        regulariser=None if asked.regulariser is None else Regulariser(**dict(asked.regulariser)),
        seed=asked.seed,
    )


def fine_tuning(recipe: Recipe, epochs: float, learning_rate: float) -> Recipe:
    """How weights that are already good are trained on: the same images, no warm-up, a smaller rate."""
    return replace(recipe, epochs=epochs, learning_rate=learning_rate, schedule=Schedule.COSINE)


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one of `steps` steps, counted from 0."""
    warm_up = _WARM_UP_SHARE * steps if recipe.schedule is Schedule.ONE_CYCLE else 0.0
    if step < warm_up:
        return recipe.learning_rate * (_FIRST_SHARE_OF_PEAK + (1 - _FIRST_SHARE_OF_PEAK) * step / warm_up)
    if recipe.schedule is Schedule.CONSTANT:
        return recipe.learning_rate
    if recipe.schedule is Schedule.STEP:
        return recipe.learning_rate * _STEP_FACTOR ** sum(step >= share * steps for share in _STEP_SHARES)
    done = (step - warm_up) / (steps - warm_up)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def count_steps(images: int, recipe: Recipe) -> int:
    """Full batches only, at least one in all."""
    return max(1, round(recipe.epochs * (images // size_of_batch(images, recipe))))


def size_of_batch(images: int, recipe: Recipe) -> int:
    """Images in each batch: no more than there are."""
    return min(recipe.batch_size, images)
