"""The anchor of a base: its own fp32 file and how fast that runs here, measured once per base and device.

Every candidate's latency is told relative to it, so that figures taken in a machine's slow and fast hours compare.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from workers.base import Base
from workers.files import write_atomically
from workers.fold import fold_batch_norms
from workers.hardware.base import Anchor, Device
from workers.host_lock import measuring
from workers.onnx_writer import write_onnx


def get_anchor(base: Base, device: Device, home: Path) -> tuple[Anchor, dict[str, Any]]:
    """The anchor and its measurement as JSON, from the cache or measured now."""
    model = write_onnx(*fold_batch_norms(base.network, base.weights))
    path = home / "anchors" / f"{_key(model, device)}.json"
    with measuring():  # also keeps two processes from measuring the same anchor
        measurement = _read(path)
        if measurement is None:
            measurement = device.measure_anchor(model).to_json()
            write_atomically(path, json.dumps(measurement).encode())
    return Anchor(model, measurement["median"]), measurement


def _key(model: bytes, device: Device) -> str:
    """A figure of another processor, runtime or thread count is no anchor here."""
    capabilities = device.capabilities()
    conditions = json.dumps({"name": capabilities.name, **capabilities.fingerprint}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(model).digest() + conditions.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        measurement: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return measurement
