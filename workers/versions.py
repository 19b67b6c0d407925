"""What computes on this machine, by name and version: figures of other versions may differ in their last digits."""

from __future__ import annotations

from importlib.metadata import entry_points, version

_COMPUTING = ("espalier", "numpy", "onnxruntime", "torch")
_GROUPS = ("espalier.datasets", "espalier.devices", "espalier.importances", "espalier.scores")


def computing_versions() -> dict[str, str]:
    """Of the libraries, and of the packages that an operator has installed beside Espalier."""
    points = [point for group in _GROUPS for point in entry_points(group=group)]
    installed = {point.dist.name: point.dist.version for point in points if point.dist is not None}
    return installed | {name: version(name) for name in _COMPUTING}
