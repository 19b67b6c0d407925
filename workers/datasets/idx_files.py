"""A zip with the files of an MNIST-like data set, plain or gzipped. Their names say what they are; see `idx.py`."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping
from functools import partial
from typing import BinaryIO, cast
from zipfile import ZipFile, ZipInfo

import numpy as np

from search_spaces.datasets import Task
from service.dataset_layout import IdxFile, idx_file
from workers.datasets.archive import READ_ERRORS, THE_ARCHIVE, inflated_limit, open_member
from workers.datasets.array_rows import ArrayRows, ImageArray
from workers.datasets.contents import MAX_IMAGES, Contents
from workers.datasets.idx import read_idx_header
from workers.datasets.image_files import list_files
from workers.datasets.note import NoteKind, notes_about
from workers.datasets.refusal import refuse

_GZIP = b"\x1f\x8b"
_PAIRS = ((IdxFile.IMAGES, IdxFile.LABELS), (IdxFile.TEST_IMAGES, IdxFile.TEST_LABELS))


def is_idx(archive: ZipFile) -> bool:
    """Whether there are both a file of images and one of labels, of training or of testing."""
    kinds = {idx_file(file.parts[-1]) for file in list_files(archive)}
    return any(set(pair) <= kinds for pair in _PAIRS)


def idx_pictures(archive: ZipFile) -> ArrayRows:
    """The images, and behind them the test images.

    Raises:
        DatasetRefusedError: a file is missing or damaged, or declares more than it has.
    """
    members = _members(archive)
    return ArrayRows([_images(archive, members[images]) for images, _ in _pairs(members)])


def read_idx(archive: ZipFile) -> Contents:
    """Classes are called by their numbers; files that begin with `t10k` or `test` are the official test set.

    Raises:
        DatasetRefusedError: as `idx_pictures`, or labels and images differ in number.
    """
    members = _members(archive)
    pictures = idx_pictures(archive)
    labels = [_labels(archive, members[images], members[labels]) for images, labels in _pairs(members)]
    values, numbers = np.unique(np.concatenate(labels), return_inverse=True)
    others = (file for file in list_files(archive) if idx_file(file.parts[-1]) is None)
    return Contents(
        pictures,
        Task.CLASSIFICATION,
        tuple(str(value) for value in values.tolist()),
        numbers.astype(np.int64),
        np.arange(len(numbers)) >= len(labels[0]),
        np.arange(len(numbers)),
        notes_about(
            NoteKind.UNLABELLED, "files in another format are left out", ("/".join(file.parts) for file in others)
        ),
    )


def _members(archive: ZipFile) -> dict[IdxFile, ZipInfo]:
    members: dict[IdxFile, ZipInfo] = {}
    for file in list_files(archive):
        kind = idx_file(file.parts[-1])
        if kind is not None and kind in members:
            raise refuse("/".join(file.parts), f"is a second file of {kind.value}; take out one of the two")
        if kind is not None:
            members[kind] = archive.infolist()[file.place]
    return members


def _pairs(members: Mapping[IdxFile, ZipInfo]) -> list[tuple[IdxFile, IdxFile]]:
    """Kinds of images with those of their labels; the ones for training are always there."""
    for pair in _PAIRS:
        for kind in pair:
            if kind not in members and (pair == _PAIRS[0] or set(pair) & members.keys()):
                raise refuse(
                    THE_ARCHIVE, f"has no file of {kind.value} in IDX format; add it, since they come in pairs"
                )
    return [pair for pair in _PAIRS if pair[0] in members]


def _images(archive: ZipFile, member: ZipInfo) -> ImageArray:
    shape = _header(archive, member)
    if len(shape) != 3:
        raise refuse(member.filename, f"declares the shape {shape}; make it (images, height, width)")
    return ImageArray(member.filename, shape, partial(_open_after_header, archive, member))


def _labels(archive: ZipFile, images: ZipInfo, member: ZipInfo) -> np.ndarray:
    shape, count = _header(archive, member), _header(archive, images)[0]
    if shape != (count,):
        raise refuse(member.filename, f"declares the shape {shape} for {count:,} images; save one label for each image")
    if count > MAX_IMAGES:
        raise refuse(member.filename, f"has {count:,} labels; leave out some, {MAX_IMAGES:,} are allowed")
    try:
        with _open_after_header(archive, member) as stream:
            data = stream.read(count + 1)
    except READ_ERRORS as error:
        raise refuse(member.filename, f"is damaged ({error}); pack it again") from error
    if len(data) != count:
        raise refuse(member.filename, f"declares {count:,} labels and has another number; save it again")
    return np.frombuffer(data, dtype=np.uint8)


def _header(archive: ZipFile, member: ZipInfo) -> tuple[int, ...]:
    """The shape that a file declares, once it is known that so much may be in it."""
    try:
        with _open(archive, member) as stream:
            is_packed = isinstance(stream, gzip.GzipFile)
            shape = read_idx_header(stream)
    except (*READ_ERRORS, ValueError) as error:
        raise refuse(member.filename, f"cannot be read ({error}); pack it again") from error
    declared = 4 + 4 * len(shape) + math.prod(shape)
    if declared != member.file_size if not is_packed else declared > inflated_limit(member.file_size):
        raise refuse(member.filename, f"declares {declared:,} bytes and has {member.file_size:,}; send it again")
    return shape


def _open_after_header(archive: ZipFile, member: ZipInfo) -> BinaryIO:
    stream = _open(archive, member)
    read_idx_header(stream)
    return stream


def _open(archive: ZipFile, member: ZipInfo) -> BinaryIO:
    """The unpacked file as a stream; gzip is told by its first bytes."""
    stream = open_member(archive, member)
    if cast(io.BufferedReader, stream).peek(2)[:2] != _GZIP:
        return stream
    return cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb"))
