"""CIFAR-10 and CIFAR-100 from their official binary archives. Source: https://www.cs.toronto.edu/~kriz/cifar.html.

The archives for Python are pickles, which can run code when they are read; these are plain bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.datasets import DATASETS, DatasetInfo
from service.files import write_atomically
from workers.datasets.dataset import Dataset, DatasetUnavailableError
from workers.datasets.download import SourceError, download
from workers.datasets.source import DatasetSource
from workers.progress import Progress

_MAX_ARCHIVE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class CifarArchive:
    """Where an archive is and what is in it.

    Attributes:
        sha256: of the archive as it is downloaded.
        train, test: members that hold records, in order.
        label_bytes: label bytes before each record's pixels; the last of them is the label.
    """

    url: str
    sha256: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int


ARCHIVES = {
    "cifar10": CifarArchive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        ("cifar-10-batches-bin/test_batch.bin",),
        label_bytes=1,
    ),
    "cifar100": CifarArchive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ("cifar-100-binary/train.bin",),
        ("cifar-100-binary/test.bin",),
        label_bytes=2,  # coarse, fine
    ),
}


class Cifar10(DatasetSource):
    """Ten classes of things and animals."""

    info = DATASETS["cifar10"]

    def load(self, folder: Path, progress: Progress) -> Dataset:
        return load_cifar(self.info, ARCHIVES["cifar10"], folder, progress)


class Cifar100(DatasetSource):
    """A hundred classes."""

    info = DATASETS["cifar100"]

    def load(self, folder: Path, progress: Progress) -> Dataset:
        return load_cifar(self.info, ARCHIVES["cifar100"], folder, progress)


def load_cifar(info: DatasetInfo, archive: CifarArchive, folder: Path, progress: Progress) -> Dataset:
    """Read the archive in `folder`, downloading it first where needed.

    Raises:
        DatasetUnavailableError: it is not there and cannot be downloaded; the message says what to do.
    """
    members = _read_members(_get_archive(info, archive, folder, progress), info, archive)
    images, labels = _parse(b"".join(members[name] for name in archive.train), info, archive)
    test_images, test_labels = _parse(b"".join(members[name] for name in archive.test), info, archive)
    return Dataset(info, images, labels, test_images, test_labels)


def _get_archive(info: DatasetInfo, archive: CifarArchive, folder: Path, progress: Progress) -> bytes:
    path = folder / archive.url.rsplit("/", 1)[1]
    if path.is_file() and _is_whole(data := path.read_bytes(), archive):
        return data
    try:
        data = download(archive.url, _MAX_ARCHIVE_BYTES, progress)
        if not _is_whole(data, archive):
            raise SourceError(f"{archive.url}: {len(data)} bytes that do not have the known checksum")
    except SourceError as error:
        raise DatasetUnavailableError(
            f"{info.name}: {error}\nConnect to the internet once, or put the archive there yourself: {path}"
        ) from error
    write_atomically(path, data)
    return data


def _is_whole(data: bytes, archive: CifarArchive) -> bool:
    return hashlib.sha256(data).hexdigest() == archive.sha256


def _read_members(data: bytes, info: DatasetInfo, archive: CifarArchive) -> dict[str, bytes]:
    """The wanted members' bytes. Nothing is unpacked to the disk, so no path in the archive is ever used."""
    wanted = {*archive.train, *archive.test}
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            if member.name in wanted and member.isfile():
                file = tar.extractfile(member)
                members[member.name] = file.read() if file else b""
    if wanted - members.keys():
        raise DatasetUnavailableError(f"{info.name}: the archive has no {min(wanted - members.keys())}")
    return members


def _parse(records: bytes, info: DatasetInfo, archive: CifarArchive) -> tuple[np.ndarray, np.ndarray]:
    """Records of label bytes and pixels, channel by channel, row by row."""
    size = archive.label_bytes + int(np.prod(info.shape))
    if len(records) % size:
        raise DatasetUnavailableError(f"{info.name}: {len(records)} bytes are no whole number of {size}-byte records")
    table = np.frombuffer(records, dtype=np.uint8).reshape(-1, size)
    labels = table[:, archive.label_bytes - 1].astype(np.int64)
    return table[:, archive.label_bytes :].reshape(-1, *info.shape), labels
