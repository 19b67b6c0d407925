"""Images that are files of a zip archive. A place is a member's number in the archive's list of contents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from unicodedata import normalize
from zipfile import ZipFile

import numpy as np

from service.dataset_layout import Parts, common_top, is_passed_over, split_path
from workers.datasets.archive import read_member
from workers.datasets.contents import Pictures
from workers.datasets.picture import MAX_FILE_BYTES, Picture, read_picture
from workers.datasets.refusal import UnreadableError


class ImageFiles(Pictures):
    """Each image is a member of its own."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive

    def part(self, place: int) -> str:
        return self._archive.infolist()[place].filename

    def read(self, places: np.ndarray) -> Iterator[Picture | UnreadableError]:
        members = self._archive.infolist()
        for place in places.tolist():
            try:
                yield read_picture(read_member(self._archive, members[place], MAX_FILE_BYTES))
            except UnreadableError as error:
                yield error


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A member that people put there.

    Attributes:
        parts: its place in folders, in composed Unicode (macOS packs names decomposed).
    """

    place: int
    parts: Parts


def list_files(archive: ZipFile) -> list[ArchiveFile]:
    """All files but those that operating systems add, in the order of the archive."""
    files = [
        ArchiveFile(place, split_path(normalize("NFC", member.filename)))
        for place, member in enumerate(archive.infolist())
        if not member.is_dir()
    ]
    return [file for file in files if file.parts and not is_passed_over(file.parts)]


def list_folders(archive: ZipFile) -> set[Parts]:
    """Folders that the archive names as such, whether or not anything is in them."""
    names = (normalize("NFC", member.filename) for member in archive.infolist() if member.is_dir())
    return {parts for parts in map(split_path, names) if not is_passed_over(parts)}


def below(top: Parts, files: list[ArchiveFile]) -> list[ArchiveFile]:
    """The same files as they are seen from the folder that all of them are in."""
    return [ArchiveFile(file.place, file.parts[len(top) :]) for file in files]


def top_of(files: list[ArchiveFile]) -> Parts:
    """The one folder that everything is in, if there is one."""
    return common_top(file.parts for file in files)
