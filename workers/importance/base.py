"""The contract of importances: how much a channel matters to a trained network.

It must not know designs: which channels live and die together is decided in `search_spaces.coupling`, how many live by
the design that is tried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from search_spaces.network import Network
from workers.transforms.reconstruct import Observed
from workers.weights import Weights


class Importance(ABC):
    """Ranks the channels of a base. Made without arguments.

    **Arguments.** `network` and `weights` are the base's own: nothing is pruned, batch norms are not folded. `observed`
    has what the base does on the calibration images. None of them may be changed.

    **Guarantees.** The same arguments give the same scores: a candidate is rebuilt from its design when it is exported.
    All are finite. They are compared within one channel group only, and nothing else is made of them: of each group
    the atoms with the highest scores are kept, of equal ones those that come first.
    """

    @abstractmethod
    def atom_scores(self, network: Network, weights: Weights, observed: Observed) -> np.ndarray:
        """How much each atom matters; `structure_of(network).coupling` says which channels of which tensors one is.

        Returns:
            float64 of shape (atoms,).
        """
