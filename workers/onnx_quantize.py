"""The numbers that quantised tensors of a file are stored by; which ones those are, `search_spaces.quantisation` says.

Low bits are stored as grid values in 8-bit containers. Pure data and numpy: it knows neither ONNX's protobuf nor a
runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.network import InputContract, Network, Op
from search_spaces.precision import CONTAINER_BITS, why_not_computable
from search_spaces.quantisation import plan_quantisation
from workers.weight_grids import round_to_grid, weight_scales

TensorRange = tuple[float, float]


def check_writable(network: Network) -> None:
    """Whether every layer can be in a file.

    Raises:
        ValueError: naming a layer whose precision cannot be, and what can.
    """
    for layer in network.compute_nodes():
        if reason := why_not_computable(layer.precision):
            raise ValueError(f"layer {layer.name!r} cannot be written in {reason}")


def calibrated_tensors(network: Network) -> tuple[str, ...]:
    """Tensors whose ranges `write_onnx` needs besides the image's, which the input contract tells."""
    inputs = {node.name for node in network.nodes if node.op is Op.INPUT}
    return tuple(name for name in plan_quantisation(network).bits if name not in inputs)


def image_range(contract: InputContract) -> TensorRange:
    """Smallest and largest normalised value that a pixel can have: 8 bits then hold 8-bit images nearly exactly."""
    lows = [-mean / std for mean, std in zip(contract.mean, contract.std, strict=True)]
    highs = [(1 - mean) / std for mean, std in zip(contract.mean, contract.std, strict=True)]
    return min(lows), max(highs)


@dataclass(frozen=True)
class ActivationGrid:
    """Unsigned asymmetric quantisation of one tensor: real = (integer - zero_point) * scale, 0 <= integer <= top."""

    scale: np.float32
    zero_point: int
    top: int

    def is_clipped_to(self, end: float) -> bool:
        """Whether it has few bits, to which integers are clipped, and the largest means at most `end`."""
        largest = (self.top - self.zero_point) * self.scale
        return self.top < 2**CONTAINER_BITS - 1 and bool(largest <= end * (1 + 1e-6))


def activation_grid(tensor_range: TensorRange, bits: int) -> ActivationGrid:
    """The grid over a range, widened to hold zero exactly, since zeros pad convolutions.

    Raises:
        ValueError: the range is not finite or is upside down.
    """
    low, high = min(tensor_range[0], 0.0), max(tensor_range[1], 0.0)
    if not np.isfinite([low, high]).all() or tensor_range[0] > tensor_range[1]:
        raise ValueError(f"{tensor_range} is not a range")
    top = 2**bits - 1
    scale = np.float32((high - low) / top)
    if scale < np.finfo(np.float32).tiny:  # A dead tensor: every value is zero on any grid.
        return ActivationGrid(np.float32(1.0), 0, top)
    return ActivationGrid(scale, int(np.clip(np.rint(-low / scale), 0, top)), top)


def quantise_weight(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric per-output-channel integers: int8 of the same shape, and float32 scales (O,).

    Grids of 3 bits or more reach a channel's peak, so weights that are on a grid are read off it exactly.
    """
    scale = weight_scales(weight, bits)
    return round_to_grid(weight, bits, scale), scale


def quantise_bias(bias: np.ndarray, input_scale: np.float32, weight_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bias in the unit of the integer accumulator: int32 (O,), and its scales s_x * s_w (O,)."""
    scale = (input_scale * weight_scale).astype(np.float32)
    limit = float(2**31 - 128)
    return np.clip(np.rint(bias / scale), -limit, limit).astype(np.int32), scale
