"""Files and folders that are either whole or absent. Knows nothing of what is in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name beside `path`, flush it to the disk, then give it its name.

    A reader sees the old file or the new one, also after a power cut. Everyone may read it; parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def write_folder_atomically(folder: Path) -> Iterator[Path]:
    """A scratch folder to write into; unless something is raised, it takes the place of `folder` in the end.

    Only one process at a time may make the same folder: what others were killed over is removed.
    """
    prefix = f".{folder.name}."
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        yield scratch
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
