"""Brings a user's images to what a network's input contract asks for, once, into files that training maps into memory.

`folder/<key>/` has `train.npy` and so on, uint8 (n, C, H, W), in the order of the index. The key is of the index and
of all that decides what the pixels are. Labels are in the index and not kept again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from search_spaces.network import InputContract
from service.files import write_folder_atomically
from workers.datasets.dataset import DatasetUnavailableError, big_endian
from workers.datasets.geometry import fit
from workers.datasets.index import Index, SplitNumber
from workers.datasets.recall import recall_images
from workers.datasets.watch import Watch
from workers.progress import Progress, ignore_progress
from workers.single_flight import only_one
from workers.splits import Split, Splits

FORMAT_VERSION = 1
"""Part of every key: raise it when the same images no longer lead to the same pixels."""


def render(
    index: Index, archives: Sequence[Path], contract: InputContract, folder: Path, progress: Progress = ignore_progress
) -> Splits:
    """The splits of a data set as a network is fed with them; made now, if that was not done before.

    However many processes ask at once, one renders and the others wait. One image is in memory at a time.

    Args:
        index: of the data set.
        archives: that it was made of.
        contract: of the network. Its mean and std make no difference: pixels are kept as they are.
        folder: where what is rendered is kept.
        progress: told the share of images that are done.

    Raises:
        DatasetUnavailableError: an archive is missing or another, or there is no room for the files.
        DatasetRefusedError: an archive cannot be opened any more.
        ValueError: the contract has neither 1 nor 3 channels.
    """
    key = render_key(index, contract)
    wait = partial(progress, "render", 0.0, "waiting for another process that renders these images")
    with only_one(folder / f"{key}.lock", wait):
        try:
            return _open(index, contract, folder / key)
        except (OSError, ValueError):
            with write_folder_atomically(folder / key) as scratch:
                _write(index, archives, contract, scratch, progress)
    return _open(index, contract, folder / key)


def render_key(index: Index, contract: InputContract) -> str:
    """SHA-256 of all that decides what the files hold."""
    return hashlib.sha256(_geometry(contract) + index.digest.encode()).hexdigest()


def _geometry(contract: InputContract) -> bytes:
    """All that decides what becomes of an image's pixels."""
    parts = [FORMAT_VERSION, *contract.shape, contract.resize, str(contract.interpolation)]
    return json.dumps(parts).encode()


def _open(index: Index, contract: InputContract, folder: Path) -> Splits:
    """Map what is there.

    Raises:
        OSError, ValueError: it is not there, or not whole.
    """
    splits = {split.name.lower(): _open_split(index, split, contract, folder) for split in SplitNumber}
    return Splits(index.name, **splits, dropped=index.dropped)


def _open_split(index: Index, number: SplitNumber, contract: InputContract, folder: Path) -> Split:
    rows = np.flatnonzero(index.splits == number)
    shape = (len(rows), *contract.shape)
    images = np.load(_path(folder, number), mmap_mode="r") if len(rows) else np.empty(shape, np.uint8)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"{number.name} is {images.dtype} {images.shape}")
    labels = index.rows.labels[rows]
    digest = hashlib.sha256(_geometry(contract) + index.rows.digests[rows].astype(">u8").tobytes())
    digest.update(big_endian(labels).tobytes())
    return Split(number.name.lower(), images, labels, digest.hexdigest())


def _path(folder: Path, number: SplitNumber) -> Path:
    return folder / f"{number.name.lower()}.npy"


def _write(index: Index, archives: Sequence[Path], contract: InputContract, folder: Path, progress: Progress) -> None:
    files: dict[int, np.memmap] = {}
    positions = np.zeros(len(index), dtype=np.int64)
    for number in SplitNumber:
        rows = np.flatnonzero(index.splits == number)
        positions[rows] = np.arange(len(rows))
        if len(rows):
            files[number] = _make_file(_path(folder, number), (len(rows), *contract.shape))
    watch, done = Watch(progress, "render", len(index)), 0

    def keep(row: int, image: Image.Image) -> None:
        nonlocal done
        pixels = np.asarray(fit(image, contract)).reshape(*contract.shape[1:], -1)
        files[int(index.splits[row])][positions[row]] = pixels.transpose(2, 0, 1)
        done += 1
        watch.step(done)

    recall_images(index, archives, np.arange(len(index)), keep)
    for file in files.values():
        file.flush()


def _make_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A mapped array whose room on the disk is taken: writing to one without would kill the process when it is full."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with path.open("r+b") as plain:
            os.posix_fallocate(plain.fileno(), 0, path.stat().st_size)
    except OSError as error:
        size = path.stat().st_size / 1e9
        raise DatasetUnavailableError(f"no room for {size:.1f} GB of images ({error.strerror}); free some") from error
    return file
