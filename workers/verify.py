"""Whether stored files hold what was deployed. Each way in which they could differ is looked at; the first one ends it.

What is proved: the safetensors file holds this network, design and these weights to the bit; the ONNX file is what is
written from that, to the bit; packed weights are the same ones; parameters and payload are those of the network; the
runtime executes every layer, and no other, in its precision with the file's weights; and all runtimes that are here
compute the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.costs import symbolic_values
from search_spaces.network import Network
from workers.agreement import IMAGES, compare_runtimes
from workers.deployed_file import DeployedFileError, DeployedNetwork, load_deployed
from workers.onnx_session import check_executed, optimise
from workers.onnx_writer import write_onnx
from workers.packed_weights import unpack_weights
from workers.recount import FileMismatchError, check_activation_bits, recount, recount_optimised
from workers.splits import Split, normalise
from workers.weights import Weights, WeightsError, check_weights

_BIT_IMAGES = 2
"""That activation bits are counted on: one shows it, and whole maps are sorted."""


@dataclass(frozen=True)
class StoredFiles:
    """An export's files as they were stored.

    Attributes:
        model: the bytes of the ONNX file, at a batch of 1.
        weights: where the safetensors file is.
        packed: the bytes of the file of packed weights; None where nothing is in few bits.
    """

    model: bytes
    weights: Path
    packed: bytes | None = None


def verify(
    deployed: DeployedNetwork, stored: StoredFiles, metadata: Mapping[str, str], split: Split, threads: int = 1
) -> dict[str, Any]:
    """Check stored files against what they were written from.

    Args:
        deployed: that.
        stored: what is to be handed out.
        metadata: of the ONNX file.
        split: of whose images some are run.
        threads: that runtimes compute with.

    Returns:
        JSON-safe: recounted, by metric; executed, by layer; runtimes, with their differences.

    Raises:
        FileMismatchError: naming what differs.
        PrecisionMismatch: the runtime executes other precisions than declared.
    """
    loaded = _load_weights(deployed, stored.weights)
    if stored.packed is not None:
        _check_packed(loaded, stored.packed)
    counted = recount(deployed.network, stored.model)
    _check_counts(deployed.network, counted)
    if write_onnx(loaded.network, loaded.weights, loaded.ranges, metadata=metadata) != stored.model:
        raise FileMismatchError("the ONNX file is not what is written from the safetensors file")
    images = normalise(split.first(IMAGES).images, deployed.network.input)
    executed = check_executed(deployed.network, stored.model)
    recount_optimised(deployed.network, stored.model, optimise(stored.model))
    check_activation_bits(deployed.network, stored.model, images[:_BIT_IMAGES])
    agreements = compare_runtimes(loaded.network, loaded.weights, stored.model, images, threads)
    return {
        "recounted": counted,
        "executed": executed,
        "runtimes": [agreement.to_json() for agreement in agreements],
        "images": len(images),
    }


def _load_weights(deployed: DeployedNetwork, path: Path) -> DeployedNetwork:
    """The safetensors file as anyone would load it, once it is known to hold the same to the bit."""
    try:
        loaded = load_deployed(path)
    except DeployedFileError as error:
        raise FileMismatchError(f"the safetensors file cannot be read back: {error}") from error
    for part in ("network", "design", "ranges", "origin"):
        if getattr(loaded, part) != getattr(deployed, part):
            raise FileMismatchError(f"the {part} in the safetensors file is another one than was written")
    _check_weights("safetensors", deployed.weights, loaded.weights)
    return loaded


_TOLERANCE_16 = 1e-6
"""Of the largest weight: 16 bits are unpacked to single precision, fewer to the bit."""


def _check_packed(loaded: DeployedNetwork, packed: bytes) -> None:
    try:
        unpacked = unpack_weights(packed)
        check_weights(loaded.network, unpacked)
    except WeightsError as error:
        raise FileMismatchError(f"the packed weights cannot be read back: {error}") from error
    wide = {f"{layer.name}.weight" for layer in loaded.network.compute_nodes() if layer.precision.weight_bits == 16}
    _check_weights("packed", loaded.weights, unpacked, wide)


def _check_weights(what: str, written: Weights, found: Weights, wide: Collection[str] = ()) -> None:
    for name, array in written.items():
        allowed = _TOLERANCE_16 * np.abs(array).max() if name in wide else 0.0
        if not (np.abs(found[name] - array) <= allowed).all():
            raise FileMismatchError(f"{name!r} in the {what} file has other values than were written")


def _check_counts(network: Network, counted: Mapping[str, float]) -> None:
    declared = symbolic_values(network)
    for metric, value in counted.items():
        if value != declared[metric]:
            raise FileMismatchError(f"the file has {metric} {value:,}, its network {declared[metric]:,}")
