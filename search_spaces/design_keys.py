"""Which designs are one: those that lead to the same file and the same figures, in whatever words.

Methods count where they change something: what ranks channels where some go, how ranges are told where there are any.
So does a size or a number of groups for all layers, each of which gets the nearest that its channels allow.
What is said here of methods is proved on files in `tests/workers/test_design_keys.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import product

from search_spaces.apply import apply, atoms_kept, structure_of
from search_spaces.design import METHOD_KINDS, Design, Kind, Value, split_decision_name
from search_spaces.network import Network, network_digest
from search_spaces.precision import FLOAT_BITS, Precision
from search_spaces.space import Space
from search_spaces.spec import Calibration

_LEAST_CALIBRATED_BITS = 3
"""Of weights: a scaled sign and a ternary grid have the scale of least squared error, however ranges are told."""


def design_key(network: Network, design: Design) -> str:
    """Digest of the network that the design leads to, and of what else makes a difference to its file.

    Args:
        network: the base.
        design: of it.

    Raises:
        DesignError: the design does not fit the network.
    """
    return realised_key(network, apply(network, design), design)


def realised_key(base: Network, applied: Network, design: Design) -> str:
    """As `design_key`, of the network that the design has led to."""
    digest = network_digest(applied)
    named = {name: (split_decision_name(name)[0], value) for name, value in design.items_}
    effects = {
        name: effect
        for name, (kind, value) in named.items()
        if kind in METHOD_KINDS and (effect := _effect(kind, value, base, applied, design)) is not None
    }
    if not effects:
        return digest
    return hashlib.sha256(json.dumps({"network": digest, "methods": effects}, sort_keys=True).encode()).hexdigest()


def same_designs(space: Space, indices: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The choice indices of all designs of the space that differ from this one in what makes no difference."""
    if not (space.chooses_methods or space.chooses_groups):
        return {indices}
    design = space.design_at(indices)
    applied = apply(space.network, design)
    alike: list[Sequence[int]] = []
    for place, (decision, index) in enumerate(zip(space.decisions, indices, strict=True)):
        if decision.kind in METHOD_KINDS:
            effects = [_effect(decision.kind, one, space.network, applied, design) for one in decision.choices]
            alike.append([other for other, effect in enumerate(effects) if effect == effects[index]])
        elif decision.is_group_of_all:
            others = range(len(decision.choices))
            alike.append([one for one in others if one == index or _groups_alike(space, indices, place, one, applied)])
        else:
            alike.append([index])
    return set(product(*alike))


def _groups_alike(space: Space, indices: tuple[int, ...], place: int, other: int, applied: Network) -> bool:
    """Whether every layer gets the same groups by another choice: the nearest that its channels allow."""
    return apply(space.network, space.design_at((*indices[:place], other, *indices[place + 1 :]))) == applied


def _effect(kind: Kind, method: Value, base: Network, applied: Network, design: Design) -> Value | None:
    """The method, or the one of those that do the same that stands for them; None where it does nothing."""
    match kind:
        case Kind.IMPORTANCE:
            return method if _prunes(base, design) else None
        case Kind.CALIBRATION:
            return _calibration_effect(method, applied)
        case _:
            return method


def _prunes(base: Network, design: Design) -> bool:
    structure = structure_of(base)
    groups, index = structure.coupling.groups, structure.group_index
    return any(count < groups[index[name]].size for name, count in atoms_kept(base, design).items())


def _calibration_effect(method: Value, applied: Network) -> Value | None:
    """Without activations in integers it is told only where grids of weights end, and KL looks at activations."""
    precisions = [layer.precision for layer in applied.compute_nodes()]
    if any(precision.is_integer for precision in precisions):
        return method
    if any(_has_calibrated_grid(precision) for precision in precisions):
        return str(Calibration.MIN_MAX) if method == Calibration.KL else method
    return None


def _has_calibrated_grid(precision: Precision) -> bool:
    return not precision.is_codebook and _LEAST_CALIBRATED_BITS <= precision.weight_bits < FLOAT_BITS
