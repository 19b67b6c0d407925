"""What a training makes small of a network's outputs: their distance from labels, from a teacher, and map norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import Tensor

from search_spaces.network import Network, Op
from workers import opaque
from workers.recipe import Distillation, Recipe
from workers.splits import Split
from workers.torch_network import NetworkModule, build_module
from workers.weights import Weights


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be told: values around `mean`, so far apart as `scale` says. Classes have neither.

    Values of any unit are trained alike: the error is told in units of `scale`, and the last layer, which alone knows
    the unit, is moved by its square. That is the same as training on normalised values and scaling the last layer.
    """

    mean: float = 0.0
    scale: float = 1.0


def target_of(split: Split) -> Target:
    if split.labels.dtype.kind == "i":
        return Target()
    scale = float(split.labels.std(dtype=float))
    return Target(float(split.labels.mean(dtype=float)), scale if scale > 0 else 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class Teacher:
    """A trained network that another learns from. It sees the same images, in the same contract."""

    network: Network
    weights: Weights


def teacher_module(recipe: Recipe, teacher: Teacher | None, device: str = "cpu") -> NetworkModule | None:
    """The teacher as it is asked; None where the recipe does not distil.

    Raises:
        ValueError: it distils, and there is no teacher.
    """
    if recipe.distillation is None:
        return None
    if teacher is None:
        raise ValueError("the recipe distils: give it a teacher")
    return build_module(teacher.network, teacher.weights).to(device).eval()


def teach(teacher: NetworkModule, images: Tensor) -> Tensor:
    """What the teacher puts out, float32, without a gradient."""
    with torch.no_grad():
        taught: Tensor = teacher(images)
    return taught.float()


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
    return F.cross_entropy(_logits(outputs), labels, label_smoothing=recipe.label_smoothing)


def distilled_loss(hard: Tensor, outputs: Tensor, taught: Tensor, distillation: Distillation) -> Tensor:
    """(1 - weight) hard + weight T^2 KL(softmax(taught / T) || softmax(outputs / T)), the mean over a batch.

    T^2 keeps gradients as large as at T = 1 (Hinton, Vinyals, Dean, 2015, section 2).

    Args:
        hard: the loss by the labels.
        outputs: (n, classes), or (n, 1) for the second of two classes.
        taught: the teacher's, of the same shape; without a gradient.
        distillation: weight and T.
    """
    temperature, weight = distillation.temperature, distillation.weight
    student, teacher = (F.log_softmax(_logits(logits) / temperature, dim=1) for logits in (outputs, taught))
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - weight) * hard + weight * temperature**2 * soft


def _logits(outputs: Tensor) -> Tensor:
    """One logit for each class, also where a network tells only the second of two."""
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if outputs.shape[1] == 1 else outputs


def penalised_maps(network: Network, activation_l1: float | Mapping[str, float]) -> dict[str, float]:
    """The maps that an L1 norm is asked of, and its weight: those behind ReLUs, but for the network's output.

    A map before a part that no gradient passes is left alone: nothing would hold against its norm, and it would vanish.

    Raises:
        ValueError: a name is no such map.
    """
    held = _reached_by_the_loss(network) - {network.output}
    maps = [node.name for node in network.nodes if node.op in (Op.RELU, Op.RELU6) and node.name in held]
    if not isinstance(activation_l1, Mapping):
        return dict.fromkeys(maps, activation_l1) if activation_l1 else {}
    strangers = activation_l1.keys() - set(maps)
    if strangers:
        raise ValueError(f"activation_l1: {min(strangers)!r} is no ReLU of {network.name}; known are {', '.join(maps)}")
    return {name: weight for name, weight in activation_l1.items() if weight}


def _reached_by_the_loss(network: Network) -> set[str]:
    """The tensors that the gradient of the outputs comes to."""
    reached = {network.output}
    for node in reversed(network.nodes):
        if node.name in reached and (not node.body or opaque.is_differentiable(node.body)):
            reached.update(node.inputs)
    return reached


def map_loss(maps: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted L1 norms of maps: the sum over the elements of a map, the mean over the batch (Georgiadis, 2019).

    Maps behind a ReLU are never negative: their sum is their norm.
    """
    return torch.stack([weight * maps[name].sum() / len(maps[name]) for name, weight in weights.items()]).sum()
