"""The contract of importances: how much a channel matters to a trained network.

It must not know designs: which channels live and die together is decided in `search_spaces.coupling`, how many live by
the design that is tried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search_spaces.network import Network
from workers.progress import do_nothing
from workers.splits import Split
from workers.transforms.reconstruct import Observed
from workers.weights import Weights


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What an importance may look at, beside the weights.

    Attributes:
        observed: the base on the calibration images.
        train: labelled images that the base may have been trained on, none of which it is judged by.
            `workers.importance.gradients` draws from it.
        yield_to: to be called now and then by what takes more than a second; it may take its time.
    """

    observed: Observed
    train: Split
    yield_to: Callable[[], None] = do_nothing


class Importance(ABC):
    """Ranks the channels of a base. Made without arguments.

    **Arguments.** `network` and `weights` are the base's own: nothing is pruned, batch norms are not folded. `evidence`
    has what the base does on the calibration images, and labelled images. None of them may be changed.

    **Guarantees.** The same arguments give the same scores: a candidate is rebuilt from its design when it is exported.
    All are finite. The atoms with the highest scores are kept, of equal ones those that come first. Searches compare
    scores within one channel group only; `search_spaces.ranking` can compare those of all groups, as they are.
    """

    @abstractmethod
    def atom_scores(self, network: Network, weights: Weights, evidence: Evidence) -> np.ndarray:
        """How much each atom matters; `structure_of(network).coupling` says which channels of which tensors one is.

        Returns:
            float64 of shape (atoms,).
        """
