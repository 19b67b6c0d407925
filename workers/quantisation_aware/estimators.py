"""Rounding to a grid in torch, with the gradients that stand in for its own, which is zero nearly everywhere.

The forward pass is the same for all: `integer * step`, the integer being `round(value / step)`, half to even, clipped.
They differ in what is sent back to the values and to the step:

- STE (Bengio et al., arXiv 1308.3432): the values get the gradient where nothing is clipped, the step none.
- LSQ (Esser et al., arXiv 1902.08153): the step also gets that of `step * round(value / step)`, rounding being passed.
- EWGS (Lee et al., arXiv 2104.00903): as LSQ, with gradients larger or smaller by how far a value is from its level.
- PACT (Choi et al., arXiv 1805.06085): the step gets the gradient of what is clipped only, so it learns where to clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_spaces.spec import Estimator

EWGS_DELTA = 1e-3
"""How much more a gradient is that pushes a value from one end of its rounding interval; of normalised values."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The integers of a grid: `lowest` to `highest`, or these two alone when they are the only ones."""

    lowest: int
    highest: int
    is_binary: bool = False

    @property
    def largest(self) -> int:
        """The largest magnitude of an integer: what LSQ calls Qp."""
        return max(-self.lowest, self.highest)


def weight_levels(bits: int) -> Levels:
    """Symmetric about zero: one bit has the two signs, two bits have three levels, n bits 2^n - 1."""
    if bits == 1:
        return Levels(-1, 1, is_binary=True)
    top = 2 ** (bits - 1) - 1
    return Levels(-top, top)


def to_integers(values: Tensor, step: Tensor, levels: Levels) -> Tensor:
    """The integers that the values are rounded to, as floats; half to even, as ONNX Runtime rounds."""
    scaled = values / step
    if levels.is_binary:
        return torch.where(scaled < 0, -1.0, 1.0).to(scaled.dtype)
    return scaled.round_().clamp_(levels.lowest, levels.highest)


def round_to_grid(
    values: Tensor,
    step: Tensor,
    levels: Levels,
    estimator: Estimator,
    step_share: float = 1.0,
    delta: float = EWGS_DELTA,
) -> Tensor:
    """The nearest points of the grid, with the gradients of an estimator.

    Args:
        values: of any shape.
        step: positive; of a shape that `values` can be summed to, such as () or (O, 1, 1, 1).
        levels: the grid's integers.
        estimator: what is sent back.
        step_share: the step's gradient is multiplied by it.
        delta: of EWGS; at 0 it is LSQ.
    """
    rounded: Tensor = _RoundToGrid.apply(values, step, levels, estimator, step_share, delta)  # type: ignore[no-untyped-call]
    return rounded


def lsq_step_share(values_per_step: int, levels: Levels) -> float:
    """1 / sqrt(N Qp): keeps updates of a step as large, relative to it, as those of its N values (LSQ, section 2.2)."""
    return float((values_per_step * levels.largest) ** -0.5)


class _RoundToGrid(torch.autograd.Function):
    """Few passes over the values, and no masks: on a processor those take longer than the rounding itself."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, levels: Levels, estimator: Estimator, step_share: float, delta: float
    ) -> Tensor:
        rounded = to_integers(values, step, levels).mul_(step)
        ctx.save_for_backward(values, step, rounded)
        ctx.levels, ctx.estimator, ctx.step_share, ctx.delta = levels, estimator, step_share, delta
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (values, step, rounded) = gradients[0], ctx.saved_tensors
        scaled = values / step
        # The gradient where lowest < scaled < highest, and zero elsewhere, in one pass.
        inside = torch.ops.aten.hardtanh_backward(gradient, scaled, ctx.levels.lowest, ctx.levels.highest)
        if ctx.estimator is Estimator.EWGS and ctx.delta:
            inside = _scale_elementwise(inside, scaled - rounded / step, ctx.delta, ctx.levels)
        of_step = None
        if ctx.needs_input_grad[1]:
            of_step = _gradient_of_step(gradient, inside, scaled, rounded / step, ctx.estimator)
            of_step = of_step.sum_to_size(step.shape) * ctx.step_share
        return inside, of_step, None, None, None, None


def _scale_elementwise(gradient: Tensor, beyond: Tensor, delta: float, levels: Levels) -> Tensor:
    """EWGS: g (1 + delta sign(g) (x_n - x_q)), both normalised to the grid's whole width."""
    return torch.addcmul(gradient, gradient.abs(), beyond, value=delta / (levels.highest - levels.lowest))


def _gradient_of_step(
    gradient: Tensor, inside: Tensor, scaled: Tensor, integers: Tensor, estimator: Estimator
) -> Tensor:
    """By element. Where nothing is clipped LSQ's is g (integer - scaled); where it is, all take g times the bound."""
    if estimator is Estimator.PACT:
        return (gradient - inside) * integers
    return (gradient * integers).addcmul_(inside, scaled, value=-1)
