"""The anchors of a base: the base itself in one precision throughout, and how fast that runs on a device.

Every candidate's latency is told relative to the anchor whose precision is most of the candidate's own work, so
that figures taken in a machine's slow and fast hours compare: slow phases slow integers and floats differently.
Each is measured once per base and device; those of integers beside the one in floating point, so that all are to
one scale.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.costs import layer_costs
from search_spaces.network import Network
from search_spaces.precision import FP32, Precision
from service.files import write_atomically
from workers.base import Base
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.hardware.base import Anchor, Device, MeasurementResult
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.host_lock import measuring
from workers.onnx_writer import write_onnx


def get_anchor(base: Base, device: Device, home: Path) -> tuple[Anchor, dict[str, Any]]:
    """The anchor in floating point and its measurement as JSON, from the cache or measured now."""
    model = write_onnx(*fold_batch_norms(base.network, base.weights))
    return _measured_once(model, device, home, lambda: device.measure_anchor(model))


def get_anchor_in(base: Base, precision: Precision, images: np.ndarray, device: Device, home: Path) -> Anchor:
    """The anchor in a precision.

    Args:
        base: the trained network.
        precision: one that the device executes.
        images: float32 (n, C, H, W), normalised, to calibrate with.
        device: the device to measure on.
        home: where measurements are kept.
    """
    reference, _ = get_anchor(base, device, home)
    if precision.is_float:
        return reference
    folded, weights = fold_batch_norms(base.network, base.weights)
    changed = {layer.name: replace(layer, precision=precision) for layer in folded.compute_nodes()}
    network = folded.with_nodes(changed)
    model = write_onnx(network, weights, calibrate(network, weights, images))
    return _measured_once(model, device, home, lambda: device.measure(model, reference))[0]


def main_precision(network: Network) -> Precision:
    """The precision of most of a network's multiply-accumulates."""
    macs: Counter[Precision] = Counter({FP32: 0})
    precisions = {layer.name: layer.precision for layer in network.compute_nodes()}
    for layer in layer_costs(network):
        macs[precisions[layer.name]] += layer.macs
    return macs.most_common(1)[0][0]


def _measured_once(
    model: bytes, device: Device, home: Path, measure: Callable[[], MeasurementResult]
) -> tuple[Anchor, dict[str, Any]]:
    path = home / "anchors" / f"{_key(model, device)}.json"
    with measuring():  # also keeps two processes from measuring the same anchor
        measurement = _read(path)
        if measurement is None:
            measurement = measure().to_json()
            write_atomically(path, json.dumps(measurement).encode())
    return Anchor(model, measurement["median"]), measurement


def _key(model: bytes, device: Device) -> str:
    """A figure of another processor, runtime, thread count or protocol is no anchor here."""
    capabilities = device.capabilities()
    conditions = {"name": capabilities.name, **capabilities.fingerprint, "protocol": asdict(DEFAULT_PROTOCOL)}
    told = json.dumps(conditions, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(model).digest() + told).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        measurement: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return measurement
