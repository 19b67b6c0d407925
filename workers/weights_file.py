"""Weights as safetensors files: plain arrays with names, which run no code when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from service.files import write_atomically
from workers.weights import Weights, WeightsError


def save_weights(weights: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically."""
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    write_atomically(path, save(arrays, dict(metadata)))


def load_weights(path: Path) -> Weights:
    """Read a safetensors file.

    Raises:
        FileNotFoundError: there is none.
        WeightsError: it is damaged.
    """
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise WeightsError(f"{path.name} is no whole safetensors file: {error}") from error


def read_origin(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself: what `save_weights` was given as metadata.

    Raises:
        FileNotFoundError: there is no file.
        WeightsError: it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(f"{path.name} is no whole safetensors file: {error}") from error
