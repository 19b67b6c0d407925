"""A candidate as arrays with names: what is kept of a finalist, so that its file can be made again without training.

The raw weights are under their own names. Where weights and ranges were trained through their rounding, these are
there too, as `rounded/<weight>` and `range/<tensor>`: no name of a weight has a slash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from workers.candidate import Candidate
from workers.onnx_quantize import calibrated_tensors
from workers.weights import Weights, WeightsError, check_weights

REFINED = "refined"
"""Of what stored weights say of themselves: how they were trained on, as JSON; absent where they were not."""

_ROUNDED, _RANGE = "rounded/", "range/"


def arrays_of(candidate: Candidate) -> Weights:
    """Everything that `restored` needs beside the network."""
    if not candidate.is_rounded:
        return candidate.raw_weights
    rounded = {f"{_ROUNDED}{name}": array for name, array in candidate.weights.items()}
    ranges = {f"{_RANGE}{name}": np.array(ends) for name, ends in candidate.ranges.items()}
    return {**candidate.raw_weights, **rounded, **ranges}


def raw_weights_of(arrays: Mapping[str, np.ndarray]) -> Weights:
    """The raw weights alone."""
    return {name: array for name, array in arrays.items() if "/" not in name}


def restored(candidate: Candidate, arrays: Mapping[str, np.ndarray]) -> Candidate:
    """A candidate that was finished from raw weights, with what was trained through its rounding, if that is there.

    Raises:
        WeightsError: the arrays are of another network.
    """
    rounded = _under(_ROUNDED, arrays)
    if not rounded:
        return candidate
    check_weights(candidate.network, rounded)
    ranges = _under(_RANGE, arrays)
    if ranges.keys() != set(calibrated_tensors(candidate.network)):
        raise WeightsError("the ranges are not those of the network's quantised tensors")
    ends = {name: (float(array[0]), float(array[1])) for name, array in ranges.items()}
    return replace(candidate, weights=rounded, ranges=ends, is_rounded=True)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Weights:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
