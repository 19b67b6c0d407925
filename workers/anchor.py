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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.costs import layer_costs
from search_spaces.network import Network, in_precision
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, Precision, parse_precision
from service.files import write_atomically
from workers.base import Base
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.hardware.base import Anchor, Deployed, Device, Results
from workers.hardware.timing import DEFAULT_PROTOCOL
from workers.host_lock import measuring
from workers.onnx_writer import write_onnx

Measured = dict[str, dict[str, Any]]
"""Measurements as JSON, by metric."""


def get_anchor(base: Base, device: Device, home: Path) -> tuple[Anchor, Measured]:
    """The anchor in floating point and what was measured of it, from the cache or measured now."""
    network, weights = fold_batch_norms(base.network, base.weights)
    deployed = Deployed(network, write_onnx(network, weights))
    return _measured_once(deployed, device, home, lambda: device.measure(deployed))


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
    network = in_precision(folded, precision)
    deployed = Deployed(network, write_onnx(network, weights, calibrate(network, weights, images)))
    return _measured_once(
        deployed, device, home, lambda: device.measure(deployed, reference, wanted=(Metric.LATENCY_S,))
    )[0]


def measure_base(base: Base, device: Device, home: Path) -> Measured:
    """What a device tells of the base itself: measured in floating point, once, or simulated."""
    return simulate_base(base, device) if device.capabilities().simulated else get_anchor(base, device, home)[1]


def simulate_base(base: Base, device: Device) -> Measured:
    """What a simulated device tells of the base, in the first precision that it lists: all of its figures compare."""
    folded, _ = fold_batch_norms(base.network, base.weights)
    precision = parse_precision(device.capabilities().precisions[0])
    return _to_json(device.measure(Deployed(in_precision(folded, precision))))


def main_precision(network: Network) -> Precision:
    """The precision of most of a network's multiply-accumulates."""
    macs: Counter[Precision] = Counter({FP32: 0})
    precisions = {layer.name: layer.precision for layer in network.compute_nodes()}
    for layer in layer_costs(network):
        macs[precisions[layer.name]] += layer.macs
    return macs.most_common(1)[0][0]


def _measured_once(
    deployed: Deployed, device: Device, home: Path, measure: Callable[[], Results]
) -> tuple[Anchor, Measured]:
    path = home / "anchors" / f"{_key(deployed.model, device)}.json"
    with measuring():  # also keeps two processes from measuring the same anchor
        measured = _read(path)
        if measured is None:
            measured = _to_json(measure())
            write_atomically(path, json.dumps(measured).encode())
    return Anchor(deployed, measured[Metric.LATENCY_S]["median"]), measured


def _to_json(results: Results) -> Measured:
    return {str(metric): result.to_json() for metric, result in results.items()}


def _key(model: bytes, device: Device) -> str:
    """A figure of another processor, runtime, thread count or protocol is no anchor here."""
    capabilities = device.capabilities()
    conditions = {"name": capabilities.name, **capabilities.fingerprint, "protocol": asdict(DEFAULT_PROTOCOL)}
    told = json.dumps(conditions, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(model).digest() + told).hexdigest()


def _read(path: Path) -> Measured | None:
    try:
        measured: Measured = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return measured if Metric.LATENCY_S in measured else None
