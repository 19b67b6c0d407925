"""How users lay out a data set in a folder or an archive: what is passed over, what names and first bytes tell.

The command line packs by it, the workers read by it. It knows no Pillow and no numpy.
"""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase

_LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_COMPRESSED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_PLAIN = (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # BMP, TIFF in either byte order, BigTIFF likewise

HEAD_BYTES = 12
"""So many first bytes tell what a file is."""

Parts = tuple[str, ...]
"""A file's place: the folders that it is in, then its name."""


class IdxFile(Enum):
    """What one of the files of an MNIST-like data set holds."""

    IMAGES = "images"
    LABELS = "labels"
    TEST_IMAGES = "test_images"
    TEST_LABELS = "test_labels"


def split_path(name: str) -> Parts:
    """The parts of a name in an archive, a table or a folder. Some tools separate them by backslashes."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def is_passed_over(parts: Parts) -> bool:
    """Whether operating systems and not people put it there: hidden files, `__MACOSX`, thumbnails."""
    return any(part.lower() in _LEFT_BY_SYSTEMS or (part.startswith(".") and part != "..") for part in parts)


def is_table(parts: Parts) -> bool:
    return parts[-1].lower().endswith(".csv")


def idx_file(name: str) -> IdxFile | None:
    """What the name says of a file in IDX format, such as `t10k-labels-idx1-ubyte.gz`; None for other names."""
    name = name.lower()
    is_test = name.startswith(("t10k", "test"))
    if fnmatchcase(name, "*images*idx3*"):
        return IdxFile.TEST_IMAGES if is_test else IdxFile.IMAGES
    if fnmatchcase(name, "*labels*idx1*"):
        return IdxFile.TEST_LABELS if is_test else IdxFile.LABELS
    return None


def is_compressed_image(head: bytes) -> bool:
    """Whether a file that begins so is an image that does not get smaller in an archive."""
    return head.startswith(_COMPRESSED) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_image(head: bytes) -> bool:
    """Whether a file that begins so is one of the kinds of images that are read."""
    return head.startswith(_PLAIN) or is_compressed_image(head)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive, as .npz files are too."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
