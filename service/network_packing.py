"""Makes the one file that a network is handed over as. Exporters put weights that are large into a file beside."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipInfo

_CHUNK_BYTES = 2**20


@contextmanager
def pack_network(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary zip of it and of the data files beside it that are called after it."""
    beside = [file for file in _data_files(path) if file.is_file()]
    if path.suffix.lower() != ".onnx" or not beside:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espalier-pack-") as scratch:
        packed = Path(scratch) / "network.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for file in (path, *beside):
                # Always the same time, so that the same files make the same bytes.
                with file.open("rb") as source, archive.open(ZipInfo(file.name), "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
        yield packed


def _data_files(path: Path) -> tuple[Path, ...]:
    """As torch's exporters and `onnx.save` call them."""
    names = (f"{path.name}.data", f"{path.name}_data", f"{path.stem}.data", f"{path.stem}.onnx.data")
    return tuple(dict.fromkeys(path.with_name(name) for name in names))
