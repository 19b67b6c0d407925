"""Images that are files of a zip archive. A place is a member's number in the archive's list of contents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from unicodedata import normalize
from zipfile import ZipFile

import numpy as np

from service.dataset_layout import Parts, is_passed_over, split_path
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


def top_folder(files: list[ArchiveFile]) -> Parts:
    """The one folder that there is at the archive's top, if there is one; else nothing."""
    folders = {file.parts[:1] for file in files if len(file.parts) > 1}
    return folders.pop() if len(folders) == 1 else ()


def below(top: Parts, files: list[ArchiveFile]) -> list[ArchiveFile]:
    """The same files as they are seen from that folder; those that are not in it stay as they are."""
    return [
        ArchiveFile(file.place, file.parts[len(top) :] if file.parts[: len(top)] == top else file.parts)
        for file in files
    ]
