"""The optimisers of a recipe, and their state by the names of what they move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from search_spaces.spec import Optimizer
from workers.recipe import Recipe

_SECOND_MOMENT_DECAY = 0.999


def make_optimiser(
    parameters: Mapping[str, Tensor],
    recipe: Recipe,
    head: Sequence[str],
    unit: float,
    learned: torch.nn.Parameter | None = None,
) -> torch.optim.Optimizer:
    """Kernels decay, others do not; those of the head go by the unit of what is told.

    Args:
        parameters: of the network, by name.
        recipe: its optimiser, learning rate, momentum and weight decay.
        head: names of the last layer's.
        unit: of the target: 1 for classes.
        learned: what a regulariser learns; it does not decay.
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((parameter.dim() > 1, name in head), []).append(parameter)
    # Adam's steps know no unit of the loss, so its head goes by the unit alone, and SGD's by its square.
    power = 2 if recipe.optimizer is Optimizer.SGD else 1
    described = [
        {
            "params": members,
            "rate": unit**power if is_head else 1.0,
            "weight_decay": recipe.weight_decay / (unit**power if is_head else 1.0) if is_kernel else 0.0,
        }
        for (is_kernel, is_head), members in groups.items()
    ]
    if learned is not None:
        described.append({"params": [learned], "rate": 1.0, "weight_decay": 0.0})
    if recipe.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(
            described, lr=recipe.learning_rate, betas=(recipe.momentum, _SECOND_MOMENT_DECAY), foreach=True
        )
    return torch.optim.SGD(
        described, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=True
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["rate"]


def read_state(optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that the optimiser remembers, as `<slot>/<name of the parameter>`."""
    return {
        f"{slot}/{name}": value
        for name, parameter in parameters.items()
        for slot, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def write_state(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """The inverse of `read_state`; what belongs to a weight is laid out in memory as the weight is."""
    for place, value in state.items():
        slot, _, name = place.partition("/")
        parameter = parameters[name]
        like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimiser.state[parameter][slot] = like.copy_(value)
