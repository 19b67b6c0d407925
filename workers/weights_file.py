"""Weights as safetensors files: plain arrays with names, which run no code when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from service.files import write_atomically
from workers.weights import Weights, WeightsError

METADATA_KEY = "espalier"
"""Of the one entry that the metadata of a file has."""


def save_weights(weights: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically."""
    write_atomically(path, weights_as_bytes(weights, metadata))


def weights_as_bytes(weights: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file; the same bytes for the same arguments.

    The library puts entries of the metadata in any order, so that all are one entry, a JSON object.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    return save(arrays, {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)} if metadata else None)


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
    """What a safetensors file says of itself: the metadata that `weights_as_bytes` was given.

    Raises:
        FileNotFoundError: there is no file.
        WeightsError: it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
        # Older files have each as an entry of its own.
        told = json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else metadata
        return {str(name): str(text) for name, text in told.items()}
    except (SafetensorError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path.name} is no whole safetensors file: {error}") from error
