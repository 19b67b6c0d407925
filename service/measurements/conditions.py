"""Digests of what figures must share to be compared. Migrations repeat these formulas; they never change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(document: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def canonical_json(document: Any) -> str:
    """Equal values are equal texts. Raises `ValueError` where a number is not finite."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def conditions_digest(device: str, fingerprint: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    return digest_of({"device": device, "fingerprint": dict(fingerprint), "protocol": dict(protocol)})
