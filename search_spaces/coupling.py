"""Which channels must shrink together, derived from the graph as data. It must not know any family of networks.

Every tensor's channel axis is an array of atom ids; an atom is the smallest thing that is kept or
removed. Dense convs and linears make new atoms. Depthwise convs, pools, norms and activations hand
theirs on; add and multiply unify theirs position by position; concat, slice, flatten and shuffle
rearrange them. An opaque node makes new ones, and all that it reads and makes stays. Atoms with as many
channels in every tensor as one another form a ChannelGroup: only the number kept of each group is a
decision, so shapes follow from counts alone, whatever atoms are selected.

Two ops need more. A shuffle of g groups is a transposed (g, n) matrix; what is left after pruning is
one again only if whole columns go, so each column becomes one atom. A conv with g groups that reads
or makes more than one channel per group needs equally many kept channels in each of its g blocks.
Within a channel group the atoms fall into balance classes, by the blocks that they lie in, and equally
many of each class are kept. Where that cannot balance the blocks, the columns are unified instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.network import COMPUTE_OPS, Network, Node, Op, Shape, infer_shapes, is_depthwise, unused_name

Atoms = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that are one decision.

    Attributes:
        name: the first layer that makes them (with `.2`, `.3` ... when it makes several groups).
        size: number of atoms. Nearly always an atom is one channel of each producer.
        producers: the layers that make these channels, in order.
        multiple_of: kept counts must be a multiple of this, to balance the blocks of grouped convs.
        frozen: why the channels must all stay; empty where they need not.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    multiple_of: int
    frozen: str


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """The channel structure of a network.

    Attributes:
        groups: in order of first appearance in the network.
        atoms: tensor name to the atom id of each of its channels.
        group_of_atom: atom id to index in `groups`.
        class_of_atom: atom id to balance class; equally many atoms of each class of a group are kept.
        channels_per_atom: tensor name to (group index, channels of this tensor for each kept atom) pairs.
        before_slice: name of a slice to the same, for the channels of its input that lie before it.
    """

    groups: tuple[ChannelGroup, ...]
    atoms: Mapping[str, Atoms]
    group_of_atom: Atoms
    class_of_atom: Atoms
    channels_per_atom: Mapping[str, tuple[tuple[int, int], ...]]
    before_slice: Mapping[str, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Balance:
    """A grouped conv's demand on one tensor: equally many kept channels in each of `blocks` equal parts."""

    tensor: str
    blocks: int


def derive_coupling(network: Network) -> Coupling:
    """Find the channel groups of a network.

    Raises:
        ValueError: the network's shapes do not fit.
    """
    shapes = infer_shapes(network)
    raw, equal = _propagate(network, shapes)
    demands = _balance_demands(network, shapes)
    frozen_tensors = _frozen_tensors(network)
    while True:
        atoms = _unify(raw, equal)
        frozen = _frozen_atoms(atoms, frozen_tensors)
        before = {node.name: atoms[node.inputs[0]][: node.start] for node in network.nodes if node.op is Op.SLICE}
        group_of_atom = _group_atoms([*atoms.values(), *before.values()], frozen)
        classes, unbalanced = _balance_classes(atoms, group_of_atom, frozen, demands)
        if not unbalanced:
            break
        equal += [_columns(raw[demand.tensor], demand.blocks) for demand in unbalanced]
        demands = [demand for demand in demands if demand not in unbalanced]
    per_atom = {name: _channels_per_atom(ids, group_of_atom) for name, ids in atoms.items()}
    before_slice = {name: _channels_per_atom(ids, group_of_atom) for name, ids in before.items()}
    groups = _describe_groups(network, shapes, per_atom, group_of_atom, classes, frozen)
    return Coupling(groups, atoms, group_of_atom, classes, per_atom, before_slice)


def keep_atoms(coupling: Coupling, counts: Mapping[str, int], scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Choose the atoms to keep: the highest scores of each balance class; ties keep the earlier channel.

    Args:
        coupling: of the base network.
        counts: group name to atoms kept; a group that is not named stays whole.
        scores: importance of each atom.

    Returns:
        Mask over atoms.
    """
    keep = np.ones(len(coupling.group_of_atom), dtype=bool)
    for index, group in enumerate(coupling.groups):
        count = counts.get(group.name, group.size)
        if count == group.size:
            continue
        members = np.flatnonzero(coupling.group_of_atom == index)
        keep[members] = False
        for balance_class in np.unique(coupling.class_of_atom[members]):
            rivals = members[coupling.class_of_atom[members] == balance_class]
            best = np.argsort(-scores[rivals], kind="stable")[: count // group.multiple_of]
            keep[rivals[best]] = True
    return keep


def kept_positions(coupling: Coupling, keep: NDArray[np.bool_], tensor: str) -> Atoms:
    """Base channels of a tensor that remain, ascending; also their order in the pruned network."""
    return np.flatnonzero(keep[coupling.atoms[tensor]])


def follows_input(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether a conv's channels are its input's: depthwise, with any channel multiplier."""
    return is_depthwise(node, shapes[node.inputs[0]][0])


def _frozen_tensors(network: Network) -> dict[str, str]:
    """Tensors whose channels must all stay, and why."""
    frozen: dict[str, str] = {}
    for node in network.nodes:
        if node.op is Op.INPUT:
            frozen[node.name] = "the network's input"
        elif node.op is Op.OPAQUE:
            frozen.setdefault(node.name, f"made by {node.name}, which is kept as it is")
            for name in node.inputs:
                frozen.setdefault(name, f"read by {node.name}, which is kept as it is")
    return frozen | {network.output: "the network's output"}


def _makes_atoms(node: Node, shapes: Mapping[str, Shape]) -> bool:
    return node.op in (Op.INPUT, Op.OPAQUE) or (node.op in COMPUTE_OPS and not follows_input(node, shapes))


def _propagate(network: Network, shapes: Mapping[str, Shape]) -> tuple[dict[str, Atoms], list[tuple[Atoms, Atoms]]]:
    """Atoms before unification, and the pairs of arrays to be unified position by position."""
    raw: dict[str, Atoms] = {}
    equal: list[tuple[Atoms, Atoms]] = []
    count = 0
    for node in network.nodes:
        inputs = [raw[name] for name in node.inputs]
        if _makes_atoms(node, shapes):
            raw[node.name] = np.arange(count, count + shapes[node.name][0])
            count += shapes[node.name][0]
        else:
            raw[node.name] = _hand_on(node, inputs, shapes)
        if node.op in (Op.ADD, Op.MULTIPLY):
            equal += [(inputs[0], other) for other in inputs[1:]]
        elif node.op is Op.SHUFFLE:
            equal.append(_columns(inputs[0], node.groups))
    return raw, equal


def _hand_on(node: Node, inputs: list[Atoms], shapes: Mapping[str, Shape]) -> Atoms:
    first = inputs[0]
    match node.op:
        case Op.CONV:
            return np.repeat(first, shapes[node.name][0] // len(first)) if shapes[node.name][0] > len(first) else first
        case Op.FLATTEN:
            return np.repeat(first, shapes[node.name][0] // len(first))
        case Op.CONCAT:
            return np.concatenate(inputs)
        case Op.SLICE:
            return first[node.start : node.start + shapes[node.name][0]]
        case Op.SHUFFLE:
            return first.reshape(node.groups, -1).T.ravel()
        case _:
            return first


def _columns(atoms: Atoms, blocks: int) -> tuple[Atoms, Atoms]:
    """Pairs that make atoms at the same place of each block one."""
    matrix = atoms.reshape(blocks, -1)
    return np.tile(matrix[0], blocks - 1), matrix[1:].ravel()


def _balance_demands(network: Network, shapes: Mapping[str, Shape]) -> list[_Balance]:
    demands: list[_Balance] = []
    for node in network.nodes:
        if node.op is Op.CONV and node.groups > 1 and not follows_input(node, shapes):
            demands += [_Balance(node.inputs[0], node.groups), _Balance(node.name, node.groups)]
    return demands


def _unify(raw: Mapping[str, Atoms], equal: Iterable[tuple[Atoms, Atoms]]) -> dict[str, Atoms]:
    """Merge equal atoms (connected components by least label) and number what is left from 0, in order."""
    labels = np.arange(1 + max(int(ids.max()) for ids in raw.values()))
    pairs = list(equal)
    left = np.concatenate([a for a, _ in pairs]) if pairs else labels[:0]
    right = np.concatenate([b for _, b in pairs]) if pairs else labels[:0]
    while not np.array_equal(labels[left], labels[right]):
        least = np.minimum(labels[left], labels[right])
        np.minimum.at(labels, labels[left], least)
        np.minimum.at(labels, labels[right], least)
        labels = labels[labels]
    ids = np.unique(labels, return_inverse=True)[1]
    return {name: ids[atoms] for name, atoms in raw.items()}


def _frozen_atoms(atoms: Mapping[str, Atoms], tensors: Mapping[str, str]) -> dict[int, str]:
    return {int(atom): reason for name, reason in tensors.items() for atom in atoms[name]}


def _group_atoms(tensors: Sequence[Atoms], frozen: Mapping[int, str]) -> Atoms:
    """Group index of each atom: equal for atoms with as many channels in every tensor, numbered in order."""
    count = 1 + max(int(ids.max()) for ids in tensors if len(ids))
    signature = np.zeros(count, dtype=np.intp)
    signature[list(frozen)] = 1
    seen: set[bytes] = set()
    for ids in tensors:
        key = ids.tobytes()
        if key not in seen:
            seen.add(key)
            _refine(signature, *np.unique(ids, return_counts=True))
    return _number_in_order(signature)


def _refine(labels: Atoms, members: Atoms, values: Atoms) -> None:
    """Split each label by the members' values, in place; those of a label that are no members stay together.

    Only members are sorted: a tensor has few of a network's atoms.
    """
    if len(members):
        pairs = labels[members] * (values.max() + 1) + values
        labels[members] = labels.max() + 1 + np.unique(pairs, return_inverse=True)[1]


def _number_in_order(labels: Atoms) -> Atoms:
    """Renumber labels by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _balance_classes(
    atoms: Mapping[str, Atoms], group_of_atom: Atoms, frozen: Mapping[int, str], demands: list[_Balance]
) -> tuple[Atoms, list[_Balance]]:
    """Balance class of each atom, and the demands that classes cannot meet.

    Keeping k atoms of each class keeps the share k / (class size) of every block's channels in this
    group, which is balanced if the group's channels were spread evenly over the blocks to begin with
    and all its classes are of one size.
    """
    classes = np.zeros(len(group_of_atom), dtype=np.intp)
    unbalanced: list[_Balance] = []
    touched: list[tuple[_Balance, Atoms]] = []
    free = np.ones(len(group_of_atom), dtype=bool)
    free[list(frozen)] = False
    for demand in demands:
        members, incidence = _incidence(atoms[demand.tensor], demand.blocks)
        totals = np.zeros((int(group_of_atom.max()) + 1, demand.blocks), dtype=np.intp)
        np.add.at(totals, group_of_atom[members], incidence)
        if (totals != totals[:, :1]).any():
            unbalanced.append(demand)
            continue
        kinds = np.unique(incidence, axis=0, return_inverse=True)[1].ravel()
        _refine(classes, members[free[members]], kinds[free[members]])
        touched.append((demand, members))
    uneven = _groups_with_uneven_classes(group_of_atom, classes)
    unbalanced += [demand for demand, members in touched if np.isin(group_of_atom[members], uneven).any()]
    return classes, unbalanced


def _incidence(atoms: Atoms, blocks: int) -> tuple[Atoms, Atoms]:
    """The tensor's atoms, and a row for each: its number of channels in each block."""
    members, row = np.unique(atoms, return_inverse=True)
    incidence = np.zeros((len(members), blocks), dtype=np.intp)
    np.add.at(incidence, (row, np.arange(len(atoms)) * blocks // len(atoms)), 1)
    return members, incidence


def _groups_with_uneven_classes(group_of_atom: Atoms, classes: Atoms) -> list[int]:
    pairs, sizes = np.unique(np.stack([group_of_atom, classes]), axis=1, return_counts=True)
    return [int(group) for group in np.unique(pairs[0]) if len(set(sizes[pairs[0] == group])) > 1]


def _channels_per_atom(atoms: Atoms, group_of_atom: Atoms) -> tuple[tuple[int, int], ...]:
    members, first, counts = np.unique(atoms, return_index=True, return_counts=True)
    groups = group_of_atom[members]
    order = np.argsort(first, kind="stable")
    return tuple(dict(zip(groups[order].tolist(), counts[order].tolist(), strict=True)).items())


def _describe_groups(
    network: Network,
    shapes: Mapping[str, Shape],
    per_atom: Mapping[str, tuple[tuple[int, int], ...]],
    group_of_atom: Atoms,
    classes: Atoms,
    frozen: Mapping[int, str],
) -> tuple[ChannelGroup, ...]:
    reasons = {int(group_of_atom[atom]): reason for atom, reason in frozen.items()}
    makers = [node for node in network.nodes if _makes_atoms(node, shapes)]
    names: set[str] = set()
    groups: list[ChannelGroup] = []
    for index in range(int(group_of_atom.max()) + 1):
        producers = tuple(node.name for node in makers if index in dict(per_atom[node.name]))
        members = group_of_atom == index
        name = unused_name(producers[0], names)
        names.add(name)
        kinds = len(np.unique(classes[members]))
        groups.append(ChannelGroup(name, int(members.sum()), producers, kinds, reasons.get(index, "")))
    return tuple(groups)
