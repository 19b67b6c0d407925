"""The importances that come with Espalier keep the contract."""

from __future__ import annotations

from workers.importance import Importance
from workers.importance.norms import L1Norm, L2Norm
from workers.importance.testing import ImportanceContract


class TestL1Norm(ImportanceContract):
    def make_importance(self) -> Importance:
        return L1Norm()


class TestL2Norm(ImportanceContract):
    def make_importance(self) -> Importance:
        return L2Norm()
