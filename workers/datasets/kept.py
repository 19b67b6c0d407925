"""Users' data sets as this installation keeps them: found by digest, never by a path that somebody gave.

`home/indexes/<digest>/` has the index, the digests of the archives that it is of, and what was rendered of it. The
archives themselves are where they were handed over: `home/uploads`. The digest is of the index's content, of the
archives that images are found in, and of the name: who hands over the same images packed otherwise has another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from search_spaces.datasets import DatasetInfo
from search_spaces.network import InputContract
from service.artifacts.store import SAME_HOME, open_path
from service.files import write_folder_atomically
from workers.datasets.dataset import DatasetUnavailableError
from workers.datasets.describe import describe
from workers.datasets.index import Index, load_index, save_index
from workers.datasets.render import render
from workers.progress import Progress
from workers.single_flight import only_one
from workers.splits import Splits

UPLOADS = "uploads"
_ARCHIVES_FILE, _RENDERED = "archives.json", "rendered"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeptDataset:
    """An index, and where the archives are that it was made of.

    Attributes:
        info: what a search has to know of it; its digest is that which the data set was found by.
    """

    index: Index
    info: DatasetInfo
    archives: tuple[Path, ...]
    folder: Path

    def splits(self, contract: InputContract, progress: Progress) -> Splits:
        """See `render`: made once for each contract."""
        return render(self.index, self.archives, contract, self.folder / _RENDERED, progress)


def keep_dataset(index: Index, archives: Sequence[str], home: Path) -> str:
    """Put an index in its place, and return the digest that it is found by.

    The same data set that is there already stays as it is, with what was rendered.
    """
    origin = {"content": index.digest, "archives": list(archives), "name": index.name}
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    folder = home / "indexes" / digest
    with only_one(folder.with_suffix(".lock"), lambda: None):
        try:
            _read(folder)
        except DatasetUnavailableError:
            with write_folder_atomically(folder) as scratch:
                (scratch / _ARCHIVES_FILE).write_text(json.dumps(list(archives)))
                save_index(index, scratch)
    return digest


def find_dataset(digest: str, home: Path) -> KeptDataset:
    """The data set of that digest.

    Raises:
        DatasetUnavailableError: it is not here, not whole, or one of its archives is gone.
    """
    if not _DIGEST.fullmatch(digest):
        raise DatasetUnavailableError(f"{digest!r} is no digest of a data set")
    folder = home / "indexes" / digest
    if not folder.exists():
        raise DatasetUnavailableError(f"the data set {digest[:12]} is not in {home}; {SAME_HOME}")
    index, archives = _read(folder)
    info = replace(describe(index), digest=digest)
    return KeptDataset(index, info, find_archives(archives, home), folder)


def find_archives(digests: Sequence[str], home: Path) -> tuple[Path, ...]:
    """Where they are.

    Raises:
        DatasetUnavailableError: one is gone.
    """
    try:
        return tuple(open_path(home / UPLOADS, digest) for digest in digests)
    except FileNotFoundError:
        raise DatasetUnavailableError(
            f"an archive of the data set is not here; hand it over again, or see: {SAME_HOME}"
        ) from None


@lru_cache(maxsize=2)
def _read(folder: Path) -> tuple[Index, tuple[str, ...]]:
    index = load_index(folder)
    try:
        return index, tuple(json.loads((folder / _ARCHIVES_FILE).read_bytes()))
    except (OSError, ValueError) as error:
        raise DatasetUnavailableError(f"the data set {index.name} is not whole here: {error}; add it again") from None
