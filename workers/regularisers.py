"""Losses of the weights themselves, which make a base's weights easier to quantise: R2's three, and KURE.

R2: Kundu, Yoo, Mishra, Cho, Adya: "Range Regularization", 2023 (arXiv 2303.08253). KURE: Chmiel et al., 2020
(arXiv 2002.07686). The first values of what is learned, and the limits that it is kept in, are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_spaces.network import Network, Op
from search_spaces.spec import RegulariserName

FIRST_TEMPERATURE = 0.1
FIRST_MARGIN_IN_STDS = 2.0
UNIFORM_KURTOSIS = 1.8


def l_inf(weights: Tensor) -> Tensor:
    """The largest magnitude. Its gradient is one element's, its sign; elements that tie share it evenly."""
    return weights.abs().amax()


def margin(weights: Tensor, bound: Tensor) -> Tensor:
    """|M| + sum of max(|W| - |M|, 0), for a learned bound M.

    The derivative for |M| is 1 less the number of weights outside, so that the bound stops next to the largest weights.
    By a mean instead of the sum it would be positive everywhere, and the bound would go to zero.
    """
    size = bound.abs()
    return size + torch.relu(weights.abs() - size).sum()


def soft_min_max(weights: Tensor, temperature: Tensor) -> Tensor:
    """The distance of the two soft extremes of W, plus exp(-a), for a learned temperature a.

    The extremes are means of W under softmax(aW) and softmax(-aW): both the plain mean at a = 0, the largest and the
    smallest weight as a grows. The derivative for a is the sum of the variances under both, less exp(-a).
    """
    value: Tensor = _SoftMinMax.apply(weights, temperature)  # type: ignore[no-untyped-call]
    return value


class _SoftMinMax(torch.autograd.Function):
    """Its derivatives in closed form, which takes half of the time: under p = softmax(aW), p (1 + a (W - mean))."""

    @staticmethod
    def forward(context: Any, weights: Tensor, temperature: Tensor) -> Tensor:
        flat = _flat(weights)
        upper, above, upper_variance = _soft_extreme(flat, temperature)
        lower, below, lower_variance = _soft_extreme(flat, -temperature)
        push = torch.exp(-temperature)
        context.save_for_backward(above.sub_(below), upper_variance + lower_variance - push)
        context.shape = weights.shape
        return upper - lower + push

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        of_weights, of_temperature = context.saved_tensors
        return _unflat(of_weights * gradient, context.shape), of_temperature * gradient


def _soft_extreme(flat: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of `flat` under softmax(temperature * flat), its derivatives for each element, and the variance."""
    shares = torch.softmax(temperature * flat, 0)
    mean = torch.dot(shares, flat)
    centred = flat - mean
    spread = shares * centred
    variance = torch.dot(spread, centred)
    return mean, spread.mul_(temperature).add_(shares), variance


def kure(weights: Tensor) -> Tensor:
    """(kurtosis - 1.8)^2: how far the weights are from a uniform distribution's. 1.8^2 where all weights are equal."""
    kurtosis: Tensor = _Kurtosis.apply(weights)  # type: ignore[no-untyped-call]
    return (kurtosis - UNIFORM_KURTOSIS).square()


class _Kurtosis(torch.autograd.Function):
    """The fourth moment over the squared second; 0, without a gradient, where all weights are equal.

    It knows no unit: with the range of the weights as the unit, fourth powers of small weights do not vanish.
    """

    @staticmethod
    def forward(context: Any, weights: Tensor) -> Tensor:
        flat = _flat(weights)
        lowest, highest = torch.aminmax(flat)
        per_range = torch.where(highest > lowest, 1 / (highest - lowest), 0.0)
        centred = (flat - flat.mean()).mul_(per_range)
        squares = centred.square()
        variance = squares.mean().clamp(min=0.25 / len(flat))  # it is more wherever two weights differ
        fourth = torch.dot(squares, squares) / len(flat)
        third = torch.dot(squares, centred) / len(flat)
        slope = squares.sub_(fourth / variance).mul_(centred).sub_(third)
        context.save_for_backward(slope.mul_(4 * per_range / (len(flat) * variance.square())))
        context.shape = weights.shape
        return fourth / variance.square()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (slope,) = context.saved_tensors
        return _unflat(slope * gradient, context.shape)


def _flat(weights: Tensor) -> Tensor:
    """All elements in the order that they are stored in, without a copy: kernels are stored channels last."""
    return (weights.permute(0, 2, 3, 1) if weights.dim() == 4 else weights).flatten()


def _unflat(flat: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_flat`."""
    if len(shape) != 4:
        return flat.view(shape)
    outputs, inputs, height, width = shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class _Learned:
    """A regulariser with a number for each layer that is trained along.

    Attributes:
        called: what a report says the numbers are.
        loss: of a layer's weights and its number.
        first: the number to begin with, of a layer's weights.
    """

    called: str
    loss: Callable[[Tensor, Tensor], Tensor]
    first: Callable[[Tensor], Tensor]


def _first_margin(weights: Tensor) -> Tensor:
    return FIRST_MARGIN_IN_STDS * weights.std(correction=0)


def _first_temperature(weights: Tensor) -> Tensor:
    return weights.new_full((), FIRST_TEMPERATURE)


_FIXED: dict[RegulariserName, Callable[[Tensor], Tensor]] = {RegulariserName.L_INF: l_inf, RegulariserName.KURE: kure}
_LEARNED = {
    RegulariserName.MARGIN: _Learned("margin", margin, _first_margin),
    RegulariserName.SOFT_MIN_MAX: _Learned("temperature", soft_min_max, _first_temperature),
}


class WeightLoss:
    """A regulariser of some layers' weights: the sum over layers, and what it learns of them.

    Attributes:
        learned: (layers) numbers to be trained with the weights, without weight decay; None where there are none.
    """

    def __init__(self, name: RegulariserName, weights: Mapping[str, Tensor]) -> None:
        """Begin with `weights`, a kernel for the name of each layer; their later values are looked at in place."""
        self._name, self._weights = name, dict(weights)
        self._form = _LEARNED.get(name)
        self.learned: torch.nn.Parameter | None = None
        if self._form is not None:
            first = torch.stack([self._form.first(value.detach()) for value in self._weights.values()])
            self.learned = torch.nn.Parameter(first)

    def __call__(self) -> Tensor:
        """The loss of the weights as they are now."""
        if self._form is None or self.learned is None:
            return torch.stack([_FIXED[self._name](weights) for weights in self._weights.values()]).sum()
        pairs = zip(self._weights.values(), self.learned.unbind(), strict=True)
        return torch.stack([self._form.loss(weights, number) for weights, number in pairs]).sum()

    def limit_step(self, weight: float) -> None:
        """Keep the step of a margin within that of one weight: to be called when the gradients are there.

        A sum counts weights, at first by the thousands: the bound would jump far out in one step and crawl back.
        """
        if self._name is RegulariserName.MARGIN and self.learned is not None and self.learned.grad is not None:
            self.learned.grad.clamp_(-weight, weight)

    def limit_values(self) -> None:
        """Keep temperatures from falling below the first: to be called after a step.

        Where weights vary by more than about one, they would become negative, and the soft extremes change places.
        """
        if self._name is RegulariserName.SOFT_MIN_MAX and self.learned is not None:
            self.learned.data.clamp_(min=FIRST_TEMPERATURE)

    def report(self) -> dict[str, dict[str, float]]:
        """What has been learned, by its kind and the name of the layer: bounds as magnitudes."""
        if self._form is None or self.learned is None:
            return {}
        values = self.learned.detach().abs() if self._name is RegulariserName.MARGIN else self.learned.detach()
        return {self._form.called: dict(zip(self._weights, values.tolist(), strict=True))}


def regularised_layers(network: Network) -> tuple[str, ...]:
    """The layers whose kernels a regulariser looks at: all convolutions and linear layers."""
    return tuple(node.name for node in network.nodes if node.op in (Op.CONV, Op.LINEAR))
