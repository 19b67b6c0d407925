"""The contract of data sets that come from somewhere by themselves and fit into memory. Knows no particular one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from search_spaces.datasets import DatasetInfo
from workers.datasets.dataset import Dataset
from workers.progress import Progress


class DatasetSource(ABC):
    """One data set by name.

    **Order of calls.** `info` at any time; made without arguments, then `load` once in each process that needs it.

    **Guarantees.** `load` gives exactly what `info` says, the same every time and on every machine: bases and splits
    are found by its content. What it keeps is in `folder`, whole or not at all (`service.files`); when all is there
    already it is quick and needs no network.
    """

    info: ClassVar[DatasetInfo]

    @abstractmethod
    def load(self, folder: Path, progress: Progress) -> Dataset:
        """Get the data set.

        Args:
            folder: of this data set alone, to keep what was fetched; it may not be there yet.
            progress: told whatever takes long.

        Raises:
            DatasetUnavailableError: no source has it; the message says what to do.
        """
