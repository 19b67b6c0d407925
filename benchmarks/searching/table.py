"""A recorded table: what every design of a space was found to be worth, in the order of its enumeration.

Costs are not in it: they follow from the designs (`search_spaces.batch_costs`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from service.files import write_atomically

FOLDER = Path(__file__).parents[1] / "tables"
NOT_FINITE = -1
"""In the place of the number of images that were told right: the network's output was not finite."""


class TableError(ValueError):
    """The files are no whole table."""


@dataclass(frozen=True, eq=False)
class Table:
    """What was found.

    Attributes:
        right: images of the split `score` that each design told right, int16 (designs,); NOT_FINITE where it failed.
        milliseconds: that each design took to build and score, uint16 (designs,).
        origin: JSON-safe: spec, base, digests of splits, versions, commits; `images` is how many were scored.
    """

    right: NDArray[np.int16]
    milliseconds: NDArray[np.uint16]
    origin: Mapping[str, Any]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of images right, (designs,); NaN where it failed."""
        share: NDArray[np.float64] = np.where(self.right == NOT_FINITE, np.nan, self.right / self.origin["images"])
        return share


def write_table(table: Table, name: str, folder: Path = FOLDER) -> None:
    """As `<name>.npz` and `<name>.json`."""
    written = io.BytesIO()
    np.savez_compressed(written, right=table.right, milliseconds=table.milliseconds)
    write_atomically(folder / f"{name}.npz", written.getvalue())
    write_atomically(folder / f"{name}.json", (json.dumps(dict(table.origin), indent=1) + "\n").encode())


def read_table(name: str, folder: Path = FOLDER) -> Table:
    """Inverse of `write_table`.

    Raises:
        TableError: it is not there, or not whole.
    """
    try:
        origin = json.loads((folder / f"{name}.json").read_bytes())
        written = io.BytesIO((folder / f"{name}.npz").read_bytes())
        with np.load(written, allow_pickle=False) as arrays:
            table = Table(arrays["right"], arrays["milliseconds"], origin)
        is_whole = _is_whole(table, int(origin["designs"]), int(origin["images"]))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise TableError(f"no table {name} in {folder.name}: {error}; record it: benchmarks.record_table") from error
    if not is_whole:
        raise TableError(f"table {name} is not whole: delete it and record it again, by benchmarks.record_table")
    return table


def _is_whole(table: Table, designs: int, images: int) -> bool:
    of_integers = table.right.dtype.kind == "i" and table.milliseconds.dtype.kind == "u"
    in_range = table.right.min(initial=0) >= NOT_FINITE and table.right.max(initial=0) <= images
    return of_integers and in_range and table.right.shape == table.milliseconds.shape == (designs,)
