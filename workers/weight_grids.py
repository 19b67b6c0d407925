"""The values that a layer's weights may take in few bits, and how weights are brought to them. Pure numpy.

- 32 bits are floating point, and leave weights as they are.
- Uniform grids are symmetric, per output channel: scale times -top to top, top = 2^(bits-1) - 1.
- 1 bit is a scaled sign (XNOR-Net, Rastegari et al., ECCV 2016), 2 bits are ternary (Li and Liu, 2016), both with the
  scale of least squared error: how a range is told makes no difference to them.
- A codebook (k-means, Han et al., ICLR 2016) has 2^bits values per tensor.

Weights that are on a grid already stay exactly as they are, whichever way they came to it: the largest of a channel is
`top` times its scale, and that product is exact in single precision (for 16 bits, to a part in a million).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.network import Network
from search_spaces.precision import FLOAT_BITS, Precision
from search_spaces.spec import Calibration
from workers.weights import Weights

PERCENTILE = 99.9
"""Of magnitudes of a channel, by `Calibration.PERCENTILE`."""

_FRACTIONS = np.linspace(0.25, 1.0, 31)
"""Of a channel's peak: the ends of grids that are tried for the least squared error."""

_EXACT_BITS = 8
"""Up to as many bits a product of integer and scale is exact, since scales keep 16 significant bits."""

_ON_GRID = 1e-6
"""Of a channel's peak: a thirtieth of a step of 16 bits."""

_LLOYD_STEPS = 100


def top_of(bits: int) -> int:
    """The largest integer of a symmetric grid; 1 for one bit, which has no zero."""
    return max((1 << (bits - 1)) - 1, 1)


def weight_scales(weight: np.ndarray, bits: int, method: Calibration = Calibration.MIN_MAX) -> np.ndarray:
    """A scale for each output channel, float32 (O,), positive; 1 for a channel of zeros.

    Args:
        weight: float32 (O, ...).
        bits: 1 to 16.
        method: how the end of a grid of 3 bits or more is told. KL looks at activations; weights then reach their peak.
    """
    magnitudes = np.abs(weight.reshape(len(weight), -1))
    if bits == 1:
        scales = magnitudes.mean(axis=1, dtype=np.float64)
    elif bits == 2:
        scales = _ternary_scales(magnitudes)
    else:
        scales = _ends(magnitudes, bits, method) / top_of(bits)
    return _storable(scales, bits)


def round_to_grid(weight: np.ndarray, bits: int, scales: np.ndarray) -> np.ndarray:
    """The nearest integers of the grid, int8 or (for 16 bits) int16, of the same shape. One bit: 1 or -1."""
    per_output = _per_output(scales, weight)
    dtype = np.int8 if bits <= _EXACT_BITS else np.int16
    if bits == 1:
        integers: np.ndarray = np.where(weight < 0, dtype(-1), dtype(1))
        integers[~weight.reshape(len(weight), -1).any(axis=1)] = 0  # a dead channel stays one
        return integers
    top = top_of(bits)
    integers = np.clip(np.rint(weight / per_output), -top, top).astype(dtype)
    return integers


def fits_bits(integers: np.ndarray, bits: int) -> bool:
    """Whether integers are of the grid of so many bits. In one bit, channels of zeros are 1 or -1 times nothing."""
    magnitudes = np.abs(integers.reshape(len(integers), -1).astype(np.int32))
    if bits == 1:
        alive = magnitudes.any(axis=1)
        return bool((magnitudes[alive] == 1).all())
    return bool(magnitudes.max(initial=0) <= top_of(bits))


def from_grid(integers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weights that integers stand for, float32."""
    weight: np.ndarray = integers.astype(np.float32) * _per_output(scales, integers)
    return weight


def make_codebook(weight: np.ndarray, bits: int) -> np.ndarray:
    """2^bits values, ascending, of small squared error: Lloyd's algorithm in one dimension, from quantiles.

    Deterministic. Weights that have as few values already get exactly those, repeated.
    """
    count = 2**bits
    ordered = np.sort(weight, axis=None)
    distinct = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    if len(distinct) <= count:
        return np.concatenate([distinct, np.full(count - len(distinct), distinct[-1])]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    centres = ordered[(np.arange(count) * 2 + 1) * len(ordered) // (2 * count)].astype(np.float64)
    for _ in range(_LLOYD_STEPS):
        middles = (centres[1:] + centres[:-1]) / 2
        ends = np.searchsorted(ordered, middles.astype(ordered.dtype))  # of one type, or all would be copied
        bounds = np.concatenate([[0], ends, [len(ordered)]])
        members = np.diff(bounds)
        moved = np.where(members > 0, np.diff(sums[bounds]) / np.maximum(members, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.sort(centres).astype(np.float32)


def find_in_codebook(weight: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the nearest value of an ascending codebook of at most 256, uint8, of the weight's shape."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    return np.searchsorted(middles, weight).astype(np.uint8)


def quantised_weight(weight: np.ndarray, precision: Precision, method: Calibration = Calibration.MIN_MAX) -> np.ndarray:
    """The weights of a layer on the grid or codebook of its precision, float32."""
    bits = precision.weight_bits
    if bits == FLOAT_BITS:
        return weight
    if precision.is_codebook:
        codebook = make_codebook(weight, bits)
        rounded: np.ndarray = codebook[find_in_codebook(weight, codebook)]
        return rounded
    scales = weight_scales(weight, bits, method)
    return from_grid(round_to_grid(weight, bits, scales), scales)


def quantise_weights(
    network: Network, weights: Mapping[str, np.ndarray], method: Calibration = Calibration.MIN_MAX
) -> Weights:
    """All weights of a folded network, those of its layers on the grids of their precisions; biases stay."""
    rounded = {
        f"{layer.name}.weight": quantised_weight(weights[f"{layer.name}.weight"], layer.precision, method)
        for layer in network.compute_nodes()
    }
    return {**weights, **rounded}


def is_on_grid(weight: np.ndarray, precision: Precision) -> bool:
    """Whether a layer's floats are values that its precision has."""
    peaks = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    away = np.abs(quantised_weight(weight, precision) - weight)
    return bool((away <= _ON_GRID * _per_output(peaks, weight)).all())


def _per_output(scales: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return scales.reshape(-1, *[1] * (weight.ndim - 1))


def _storable(scales: np.ndarray, bits: int) -> np.ndarray:
    scales = scales.astype(np.float32)
    if bits <= _EXACT_BITS:
        scales = ((scales.view(np.uint32) + 0x80) & np.uint32(0xFFFFFF00)).view(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    return scales


def _ternary_scales(magnitudes: np.ndarray) -> np.ndarray:
    """With the k largest at +-s and all others at 0 the error is least for s their mean, and falls by (sum)^2 / k."""
    sums = np.cumsum(-np.sort(-magnitudes, axis=1), axis=1, dtype=np.float64)
    counts = np.arange(1, magnitudes.shape[1] + 1)
    best = np.argmax(sums**2 / counts, axis=1)
    means: np.ndarray = np.take_along_axis(sums, best[:, None], axis=1)[:, 0] / counts[best]
    return means


def _ends(magnitudes: np.ndarray, bits: int, method: Calibration) -> np.ndarray:
    """Where the grid of each channel ends, (O,)."""
    peaks: np.ndarray = magnitudes.max(axis=1).astype(np.float64)
    match method:
        case Calibration.PERCENTILE:
            ends = np.percentile(magnitudes, PERCENTILE, axis=1)
            return np.where(ends > 0, ends, peaks)  # of a channel with hardly a weight that is not zero
        case Calibration.MSE:
            return np.asarray(peaks * _best_fractions(magnitudes, peaks, top_of(bits)))
        case _:
            return peaks


def _best_fractions(magnitudes: np.ndarray, peaks: np.ndarray, top: int) -> np.ndarray:
    shares = magnitudes / np.maximum(peaks, np.finfo(np.float32).tiny).astype(np.float32)[:, None]
    errors = np.stack([_squared_error(shares, np.float32(fraction), top) for fraction in _FRACTIONS])
    return np.asarray(_FRACTIONS[errors.argmin(axis=0)])


def _squared_error(shares: np.ndarray, end: np.float32, top: int) -> np.ndarray:
    """Of each channel, when the grid ends at `end`; one at a time, so that a layer stays in the cache."""
    rounded = np.minimum(np.rint(shares * (top / end)), np.float32(top))
    rounded *= end / np.float32(top)
    rounded -= shares
    return np.asarray(np.einsum("on,on->o", rounded, rounded))
