"""States of samplers on disk: a planner that starts anew need not tell a long history again.

Only a shortcut: whatever is wrong with a file, the rows are there, and a file that does not fit them is not used. No
pickle: arrays, and scalars as JSON. It must not know when a state is worth keeping.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.samplers.base import Stored
from service.files import write_atomically

_log = logging.getLogger(__name__)

FORMAT = 1
"""Changes when what a state means does."""
_HEAD, _SCALARS = "head", "scalars"


@dataclass(frozen=True, slots=True)
class History:
    """What a state came of.

    Attributes:
        spec: digest of the spec and the space.
        told: number of trials that were told; also the finish number of the last one.
        trials: digest of which trials they were, in their order.
    """

    spec: str
    told: int
    trials: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    history: History
    state: Mapping[str, Stored]


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    arrays = {name: value for name, value in snapshot.state.items() if isinstance(value, np.ndarray)}
    scalars = {name: value for name, value in snapshot.state.items() if name not in arrays}
    head = {"format": FORMAT, **asdict(snapshot.history)}
    parts = {_HEAD: _text(head), _SCALARS: _text(scalars), **{f"array.{name}": one for name, one in arrays.items()}}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **parts)
    write_atomically(path, buffer.getvalue())


def read_snapshot(path: Path) -> Snapshot | None:
    """The snapshot, or None where there is none that can be read."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            head, state = json.loads(str(stored[_HEAD])), json.loads(str(stored[_SCALARS]))
            if head.pop("format") != FORMAT:
                return None
            names = [name for name in stored.files if name.startswith("array.")]
            return Snapshot(History(**head), {**state, **{name.removeprefix("array."): stored[name] for name in names}})
    except Exception:  # A file cut short fails in any of a dozen ways, and none of them matters.
        _log.warning("cannot read %s: the sampler is told the whole history", path, exc_info=True)
        return None


def _text(data: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(json.dumps(data, allow_nan=False))
