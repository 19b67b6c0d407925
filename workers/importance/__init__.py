"""The importances by name."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.extensions import with_installed
from search_spaces.spec import ImportanceName
from workers.importance.base import Evidence, Importance
from workers.importance.chance import Chance
from workers.importance.filters import FilterL2
from workers.importance.flow import BiasedLossPreservation, GradientNormPreservation, GraSP, LossPreservation
from workers.importance.norm_scale import BatchNormScale
from workers.importance.norms import L1Norm, L2Norm

__all__ = ["IMPORTANCES", "Evidence", "Importance", "installed_importances"]

IMPORTANCES: dict[str, type[Importance]] = {
    str(ImportanceName.L1): L1Norm,
    str(ImportanceName.L2): L2Norm,
    str(ImportanceName.FILTER_L2): FilterL2,
    str(ImportanceName.LOSS): LossPreservation,
    str(ImportanceName.BIASED_LOSS): BiasedLossPreservation,
    str(ImportanceName.GRASP): GraSP,
    str(ImportanceName.GRADIENT_NORM): GradientNormPreservation,
    str(ImportanceName.BATCH_NORM_SCALE): BatchNormScale,
    str(ImportanceName.RANDOM): Chance,
}


@lru_cache(maxsize=1)
def installed_importances() -> dict[str, type[Importance]]:
    """Those here, and those that the operator installed in this Python (`espalier.importances`)."""
    return with_installed(IMPORTANCES, "espalier.importances", Importance)
