"""A deployed network as one safetensors file: weights, and what they are of as JSON in the file's metadata.

Other programs read the weights as they read any safetensors file. `load_deployed` reads all of it, from anywhere: what
it returns is whole, fits together, and holds no code. From it `write_onnx` makes the same ONNX file again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from search_spaces.design import Design, design_from_json
from search_spaces.network import Network, Node, Op, network_to_json
from search_spaces.network_reading import read_network
from workers.importing.draft import UnsupportedError
from workers.importing.opaque_parts import check_kind
from workers.onnx_quantize import TensorRange, calibrated_tensors, check_writable
from workers.weights import Weights, WeightsError, check_weights, weight_shapes

FORMAT = "espalier deployed network"
FORMAT_VERSION = 1
METADATA_KEY = "espalier"
"""Of the one entry of the metadata, a JSON document: safetensors writes several in any order."""

_PARTS = ("network", "design", "ranges", "origin")
_MOST_BODY_BYTES = 64 * 2**20
_FLOAT32 = "F32"

T = TypeVar("T")


class DeployedFileError(ValueError):
    """A file is no whole deployed network. The message says what is wrong, and where."""


@dataclass(frozen=True)
class DeployedNetwork:
    """What is deployed, and what it was decided by.

    Attributes:
        network: batch norms folded, each layer in its precision.
        design: what made it of its base.
        weights: float32, of exactly this network; `write_onnx` quantises them.
        ranges: smallest and largest value of each tensor that is quantised.
        origin: where it comes from, in words and digests; nothing depends on it.
    """

    network: Network
    design: Design
    weights: Weights
    ranges: Mapping[str, TensorRange]
    origin: Mapping[str, str] = field(default_factory=dict)


def pack_deployed(deployed: DeployedNetwork) -> bytes:
    """The bytes of the file: weights in float32, which any safetensors reader reads."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": network_to_json(deployed.network),
        "design": deployed.design.to_json(),
        "ranges": {name: [float(low), float(high)] for name, (low, high) in deployed.ranges.items()},
        "origin": dict(deployed.origin),
    }
    document["sha256"] = _digest(document, deployed.weights)
    arrays = {name: np.ascontiguousarray(array) for name, array in deployed.weights.items()}
    return save(arrays, {METADATA_KEY: json.dumps(document)})


def load_deployed(path: Path) -> DeployedNetwork:
    """Read what `pack_deployed` has made, from a file that may come from anywhere.

    Nothing in it is run, and no other file is opened. Arrays are read once their shapes are known to be right.

    Raises:
        FileNotFoundError: there is no such file.
        DeployedFileError: it is not whole, its parts do not fit together, or its network cannot be.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return _read(file)
    except (SafetensorError, OSError) as error:
        raise DeployedFileError(f"{path.name} is no whole safetensors file: {error}") from error
    except (ValueError, WeightsError) as error:
        raise DeployedFileError(f"{path.name}: {error}") from error


def _read(file: Any) -> DeployedNetwork:
    document = _read_document((file.metadata() or {}).get(METADATA_KEY))
    network: Network = _at("network", read_network, document)
    for node in network.nodes:
        _check_body(node)
    check_writable(network)
    design = _at("design", design_from_json, document)
    ranges = _at("ranges", lambda data: _read_ranges(data, network), document)
    origin = _at("origin", _read_origin, document)
    weights = _read_weights(file, network)
    if _digest(document, weights) != document["sha256"]:
        raise DeployedFileError("its digest is not that of what it holds: it has been changed, or is damaged")
    return DeployedNetwork(network, design, weights, ranges, origin)


def _read_document(text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text or "null")
    except (ValueError, RecursionError):
        raise DeployedFileError(f"{METADATA_KEY!r} in its metadata is no JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DeployedFileError(f"its metadata has no {METADATA_KEY!r} of the format {FORMAT!r}, so it is none of ours")
    if document.get("format_version") != FORMAT_VERSION:
        version = str(document.get("format_version"))[:20]
        raise DeployedFileError(f"it has format version {version}, and this program reads {FORMAT_VERSION}")
    missing = [name for name in ("sha256", *_PARTS) if name not in document]
    if missing:
        raise DeployedFileError(f"its metadata has no {missing[0]!r}")
    return document


def _at(part: str, read: Callable[[Any], T], document: Mapping[str, Any]) -> T:
    try:
        return read(document[part])
    except ValueError as error:
        raise DeployedFileError(f"{part}: {error}") from None


def _read_ranges(data: Any, network: Network) -> dict[str, TensorRange]:
    wanted = set(calibrated_tensors(network))
    if not isinstance(data, dict) or data.keys() != wanted:
        raise ValueError(f"must have the ranges of exactly the {len(wanted)} tensors that the network quantises")
    return {name: _read_range(name, ends) for name, ends in data.items()}


def _read_range(name: str, ends: Any) -> TensorRange:
    plain = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, float) for end in ends)
    if not plain or not -np.finfo(np.float32).max <= ends[0] <= ends[1] <= np.finfo(np.float32).max:
        raise ValueError(f"{name}: must be two finite numbers, the smaller one first")
    return ends[0], ends[1]


def _read_origin(data: Any) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise ValueError("must be an object of texts")
    return data


def _read_weights(file: Any, network: Network) -> Weights:
    """The arrays, once their names, types and shapes are known to be the network's."""
    expected, names = weight_shapes(network), set(file.keys())
    if names != expected.keys():
        raise WeightsError(f"missing or superfluous arrays: {sorted(names ^ expected.keys())[:5]}")
    for name, shape in expected.items():
        stored = file.get_slice(name)
        if stored.get_dtype() != _FLOAT32 or tuple(stored.get_shape()) != shape:
            found = f"{stored.get_dtype()} {tuple(stored.get_shape())}"
            raise WeightsError(f"{name} must be {_FLOAT32} {shape}, not {found}")
    weights = {name: file.get_tensor(name) for name in expected}
    check_weights(network, weights)
    odd = next((name for name, array in weights.items() if not np.isfinite(array).all()), None)
    if odd is not None:
        raise WeightsError(f"{odd} has values that are not finite")
    return weights


def _check_body(node: Node) -> None:
    """That an opaque node's body is a plain graph: no branches, no other files, and no more than it may hold."""
    if node.op not in (Op.OPAQUE, Op.POINTWISE):
        if node.body:
            raise DeployedFileError(f"node {node.name!r} is a {node.op}, which has no body")
        return
    try:
        _check_graph(onnx.GraphProto.FromString(_unpack(node.body)))
    except (ValueError, zlib.error, DecodeError, UnsupportedError) as error:
        raise DeployedFileError(f"the body of node {node.name!r} cannot be used: {error}") from None


def _unpack(body: str) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(b64decode(body, validate=True), _MOST_BODY_BYTES)
    if not unpacker.eof:
        raise ValueError(f"it is not whole, or has more than {_MOST_BODY_BYTES:,} bytes")
    return data


def _check_graph(graph: onnx.GraphProto) -> None:
    constants = list(graph.initializer)
    for node in graph.node:
        check_kind(node)
        for attribute in node.attribute:
            constants += [attribute.t, *attribute.tensors, attribute.sparse_tensor.values]
    outside = [constant for constant in constants if constant.data_location or constant.external_data]
    if not graph.node or outside or graph.sparse_initializer:
        raise ValueError("it must compute something, from constants that lie in itself")


def _digest(document: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all that the file holds."""
    told = json.dumps({name: document[name] for name in _PARTS}, sort_keys=True)
    digest = hashlib.sha256(told.encode())
    for name in sorted(weights):
        digest.update(f"\0{name}\0".encode() + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
