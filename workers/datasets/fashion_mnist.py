"""Fashion-MNIST from the first source that has it: the cache, Debian's package, the official site, Debian's archive.

Archives differ in how they were compressed, so what is checked is the SHA-256 of the unpacked bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from search_spaces.datasets import DATASETS
from service.files import write_atomically
from workers.datasets.dataset import Dataset, DatasetUnavailableError
from workers.datasets.download import PinnedFile, SourceError, check, download, gunzip
from workers.datasets.idx import parse_idx
from workers.datasets.source import DatasetSource
from workers.progress import Progress

Source = Callable[[PinnedFile], bytes]
"""Gives the unpacked and checked bytes of one file, or raises SourceError."""

FILES = {
    "images": PinnedFile(
        "train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "labels": PinnedFile(
        "train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "test_images": PinnedFile(
        "t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "test_labels": PinnedFile(
        "t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
OFFICIAL_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

_APT_TIMEOUT_S = 300
_GZIP_OVERHEAD_BYTES = 1024


class FashionMnist(DatasetSource):
    """Pictures of clothes."""

    info = DATASETS["fashion_mnist"]

    def load(self, folder: Path, progress: Progress) -> Dataset:
        arrays = {part: parse_idx(_get(pinned, folder, progress)) for part, pinned in FILES.items()}
        shutil.rmtree(folder / DEBIAN_PACKAGE, ignore_errors=True)  # its files are in the cache now
        return Dataset(
            self.info,
            arrays["images"][:, None],
            arrays["labels"].astype("int64"),
            arrays["test_images"][:, None],
            arrays["test_labels"].astype("int64"),
        )


def _get(pinned: PinnedFile, folder: Path, progress: Progress) -> bytes:
    try:
        return check(pinned, read_file(folder / pinned.name))
    except SourceError:
        data = fetch(pinned, sources(folder, progress))
        write_atomically(folder / pinned.name, data)
        return data


def sources(folder: Path, progress: Progress) -> Sequence[Source]:
    """Where a file that the cache lacks is looked for, in this order."""

    def installed_package(pinned: PinnedFile) -> bytes:
        return gunzip(pinned, read_file(DEBIAN_FOLDER / f"{pinned.name}.gz"))

    def official_site(pinned: PinnedFile) -> bytes:
        archive = download(f"{OFFICIAL_URL}/{pinned.name}.gz", pinned.size + _GZIP_OVERHEAD_BYTES, progress)
        return gunzip(pinned, archive)

    def debian_archive(pinned: PinnedFile) -> bytes:
        unpacked = folder / DEBIAN_PACKAGE
        if not unpacked.is_dir():
            progress("dataset", 0.0, f"getting Debian's package {DEBIAN_PACKAGE}")
            unpack_debian_package(DEBIAN_PACKAGE, unpacked)
        below_root = DEBIAN_FOLDER.relative_to(DEBIAN_FOLDER.anchor)
        return gunzip(pinned, read_file(unpacked / below_root / f"{pinned.name}.gz"))

    return installed_package, official_site, debian_archive


def fetch(pinned: PinnedFile, sources: Sequence[Source]) -> bytes:
    """The file from the first source that has it whole.

    Raises:
        DatasetUnavailableError: none has; the message says why each did not, and what to do.
    """
    reasons = []
    for source in sources:
        try:
            return source(pinned)
        except SourceError as error:
            reasons.append(f"  - {error}")
    raise DatasetUnavailableError(
        f"Fashion-MNIST: no source has {pinned.name}:\n"
        + "\n".join(reasons)
        + f"\nConnect to the internet once, or install Debian's package: apt-get install {DEBIAN_PACKAGE}"
    )


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def unpack_debian_package(package: str, folder: Path) -> None:
    """Download a package and unpack it below `folder`, with the rights of any user.

    Raises:
        SourceError: there is no apt-get or dpkg-deb, or one of them failed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _run(["apt-get", "download", package], cwd=scratch)
        archives = sorted(Path(scratch).glob(f"{package}_*.deb"))
        if not archives:
            raise SourceError(f"apt-get download {package} left no archive")
        _run(["dpkg-deb", "-x", str(archives[0]), "unpacked"], cwd=scratch)
        if not folder.exists():
            (Path(scratch) / "unpacked").rename(folder)


def _run(command: list[str], cwd: str) -> None:
    try:
        subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=_APT_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise SourceError(f"{' '.join(command)}: {last_line}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{' '.join(command)}: {error}") from error
