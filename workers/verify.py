"""Whether stored files hold what was deployed. Each way in which they could differ is looked at; the first one ends it.

What is proved: the safetensors file holds this network, design and these weights to the bit; the ONNX file is what is
written from that, to the bit; both have the parameters and payload of the network; the runtime executes every layer,
and no other, in its precision with the file's weights; and all runtimes that are here compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from workers.recount import FileMismatchError, check_activation_bits, recount, recount_optimised
from workers.splits import Split, normalise

_BIT_IMAGES = 2
"""That activation bits are counted on: one shows it, and whole maps are sorted."""


@dataclass(frozen=True)
class StoredFiles:
    """An export's files as they were stored.

    Attributes:
        model: the bytes of the ONNX file, at a batch of 1.
        weights: where the safetensors file is.
    """

    model: bytes
    weights: Path


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
    differs = [name for name, array in deployed.weights.items() if not np.array_equal(loaded.weights[name], array)]
    if differs:
        raise FileMismatchError(f"{differs[0]!r} in the safetensors file has other values than were written")
    return loaded


def _check_counts(network: Network, counted: Mapping[str, float]) -> None:
    declared = symbolic_values(network)
    for metric, value in counted.items():
        if value != declared[metric]:
            raise FileMismatchError(f"the file has {metric} {value:,}, its network {declared[metric]:,}")
