"""The importances by name."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.extensions import with_installed
from search_spaces.spec import ImportanceName
from workers.importance.base import Importance
from workers.importance.norms import L1Norm, L2Norm

__all__ = ["IMPORTANCES", "Importance", "installed_importances"]

IMPORTANCES: dict[str, type[Importance]] = {str(ImportanceName.L1): L1Norm, str(ImportanceName.L2): L2Norm}


@lru_cache(maxsize=1)
def installed_importances() -> dict[str, type[Importance]]:
    """Those here, and those that the operator installed in this Python (`espalier.importances`)."""
    return with_installed(IMPORTANCES, "espalier.importances", Importance)
