"""NumPy's .npz: arrays called `images` and `labels`. Nothing is unpickled; only labels are read all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np

from search_spaces.datasets import Task
from workers.datasets.archive import READ_ERRORS, THE_ARCHIVE, open_member
from workers.datasets.array_rows import ArrayRows, ImageArray
from workers.datasets.contents import MAX_CLASSES, MAX_IMAGES, Contents, check_class_names
from workers.datasets.refusal import DatasetFault, refuse, refuse_any

_SUFFIX = ".npy"
_IMAGES, _LABELS, _TEST_IMAGES, _TEST_LABELS, _NAMES = "images", "labels", "test_images", "test_labels", "class_names"
_HEADERS: dict[tuple[int, int], Callable[[BinaryIO], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_GREATEST_VALUE = float(np.finfo(np.float32).max)
_MOST_SHOWN = 10
MAX_NAME_BYTES = MAX_CLASSES * 512


@dataclass(frozen=True, slots=True)
class _Array:
    """What an array says of itself.

    Attributes:
        offset: of its first element in the unpacked member.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def is_npz(archive: ZipFile) -> bool:
    members = archive.infolist()
    return bool(members) and all(member.filename.endswith(_SUFFIX) for member in members)


def npz_pictures(archive: ZipFile) -> ArrayRows:
    """The images, and behind them the test images.

    Raises:
        DatasetRefusedError: there are none, or they are not arrays of uint8.
    """
    names = _names(archive)
    if _IMAGES not in names or _LABELS not in names:
        shown = ", ".join(sorted(names)[:_MOST_SHOWN])
        raise refuse(THE_ARCHIVE, f"has the arrays {shown}; call the pixels 'images' and what they show 'labels'")
    return ArrayRows([_images(archive, name) for name in (_IMAGES, _TEST_IMAGES) if name in names])


def read_npz(archive: ZipFile) -> Contents:
    """Integer labels are classes, called by `class_names` where that is there; labels that are floats are values.

    Raises:
        DatasetRefusedError: an array is missing, holds objects or the wrong type, or does not fit the others.
    """
    pictures = npz_pictures(archive)
    labels = _labels(archive, _IMAGES, _LABELS)
    test_labels = np.empty(0, labels.dtype)
    if {_TEST_IMAGES, _TEST_LABELS} & _names(archive):
        test_labels = _labels(archive, _TEST_IMAGES, _TEST_LABELS)
        if test_labels.dtype.kind != labels.dtype.kind:
            raise refuse(_TEST_LABELS, "are of another kind than labels; make both integers, or both floats")
    both = np.concatenate([labels, test_labels])
    is_test = np.arange(len(both)) >= len(labels)
    if both.dtype.kind == "f":
        return Contents(pictures, Task.REGRESSION, (), both, is_test, np.arange(len(both)))
    class_names, numbers = _number(archive, both)
    return Contents(pictures, Task.CLASSIFICATION, class_names, numbers, is_test, np.arange(len(both)))


def _names(archive: ZipFile) -> set[str]:
    return {member.filename.removesuffix(_SUFFIX) for member in archive.infolist()}


def _images(archive: ZipFile, name: str) -> ImageArray:
    array = _header(archive, name)
    if array.dtype != np.uint8:
        remedy = "scale them to 0 to 255 and save them as uint8"
        raise refuse(name, f"are {array.dtype}; {remedy}, such as (images * 255).astype(np.uint8) for values up to 1")
    return ImageArray(name, array.shape, partial(_open, archive, array))


def _labels(archive: ZipFile, images_name: str, name: str) -> np.ndarray:
    """int64 or float32 (n)."""
    for wanted in (images_name, name):
        if wanted not in _names(archive):
            raise refuse(THE_ARCHIVE, f"has no array {wanted!r}; add it, since images and labels go together")
    array, images = _header(archive, name), _header(archive, images_name)
    if array.dtype.kind not in "iuf":
        raise refuse(name, f"are {array.dtype}; save integers for classes, or floats for values")
    if array.shape != images.shape[:1]:
        raise refuse(
            name, f"have the shape {array.shape} for {images.shape[0]:,} images; save one label for each image"
        )
    labels = np.frombuffer(_read(archive, array, MAX_IMAGES * array.dtype.itemsize), dtype=array.dtype)
    if array.dtype.kind != "f":
        return labels.astype(np.int64)
    is_bad = ~(np.abs(labels) <= _GREATEST_VALUE)
    refuse_any(
        DatasetFault(f"{name}, row {row}", f"{labels[row]} is no number that can be learned; leave the image out")
        for row in np.flatnonzero(is_bad).tolist()
    )
    return labels.astype(np.float32)


def _number(archive: ZipFile, labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and each label's position among them."""
    if _NAMES not in _names(archive):
        values, numbers = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in values.tolist())
        check_class_names(names, _LABELS)
        return names, numbers.astype(np.int64)
    names = _class_names(archive)
    refuse_any(
        DatasetFault(
            _LABELS, f"the label {value} has no name: there are {len(names)} class_names, counted from 0; add it"
        )
        for value in np.unique(labels[(labels < 0) | (labels >= len(names))]).tolist()
    )
    return names, labels


def _class_names(archive: ZipFile) -> tuple[str, ...]:
    array = _header(archive, _NAMES)
    if array.dtype.kind != "U" or len(array.shape) != 1:
        raise refuse(_NAMES, f"are {array.dtype} of the shape {array.shape}; save a list of strings: np.array(names)")
    data, size = _read(archive, array, MAX_NAME_BYTES), array.dtype.itemsize
    encoding = "utf-32-be" if array.dtype.byteorder == ">" else "utf-32-le"
    try:  # by hand: NumPy makes strings of letters that there are not
        names = tuple(data[at : at + size].decode(encoding).rstrip("\0") for at in range(0, len(data), size))
    except UnicodeDecodeError as error:
        raise refuse(_NAMES, f"are no text ({error.reason}); save a list of strings: np.array(names)") from error
    check_class_names(names, _NAMES)
    if len(set(names)) < len(names):
        raise refuse(_NAMES, "have a name twice; give each class a name of its own")
    return names


def _header(archive: ZipFile, name: str) -> _Array:
    """What an array declares, once it is known that the archive has no less and no more than that.

    Raises:
        DatasetRefusedError: that cannot be read, holds objects, or does not fit the member's size.
    """
    member = archive.getinfo(name + _SUFFIX)
    try:
        with open_member(archive, member) as stream:
            shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
            offset = stream.tell()
    except READ_ERRORS as error:
        raise refuse(name, f"is damaged ({error}); save it and send it again") from error
    except Exception as error:  # a hostile header may raise nearly anything
        raise refuse(name, f"cannot be read as an array ({error}); save it with np.savez") from error
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise refuse(name, f"cannot be {dtype} of the shape {shape}; save it with np.savez")
    if dtype.hasobject:
        raise refuse(name, f"holds Python objects, which can hold anything; save it as {_remedy(name)}")
    if is_fortran and len(shape) > 1:
        raise refuse(name, f"is stored column by column; save np.ascontiguousarray({name})")
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared != member.file_size:
        raise refuse(name, f"declares {declared:,} bytes and has {member.file_size:,}; save it and send it again")
    return _Array(name, shape, dtype, offset)


def _remedy(name: str) -> str:
    return {_IMAGES: "uint8", _TEST_IMAGES: "uint8", _NAMES: "strings"}.get(name, "integers or floats")


def _open(archive: ZipFile, array: _Array) -> BinaryIO:
    stream = open_member(archive, archive.getinfo(array.name + _SUFFIX))
    stream.read(array.offset)
    return stream


def _read(archive: ZipFile, array: _Array, max_bytes: int) -> bytes:
    """The elements of a whole array, which has one dimension."""
    size = math.prod(array.shape) * array.dtype.itemsize
    if size > max_bytes:
        raise refuse(array.name, f"have {size:,} bytes; {max_bytes:,} are read: leave out some")
    try:
        with _open(archive, array) as stream:
            data = stream.read(size + 1)
    except READ_ERRORS as error:
        raise refuse(array.name, f"is damaged ({error}); save it and send it again") from error
    if len(data) != size:
        raise refuse(array.name, f"ends after {len(data):,} of {size:,} bytes; save it and send it again")
    return data
