"""`apply(network, design)`: what a design makes of a network, as data. Pure, and fast enough to call anywhere.

It must not know weights: which channels stay is the slicer's business, how many is settled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from search_spaces.coupling import ChannelGroup, Coupling, derive_coupling, follows_input
from search_spaces.design import EVERY_LAYER, METHOD_KINDS, METHOD_TARGET, Design, Kind, Value, split_decision_name
from search_spaces.grouping import nearest_group_count, nearest_group_size, possible_group_counts
from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.precision import ACTIVATION_BITS, WEIGHT_BITS, Precision, parse_precision


class DesignError(ValueError):
    """A design does not fit the network. `decision` names the decision at fault."""

    def __init__(self, decision: str, message: str) -> None:
        super().__init__(f"{decision}: {message}")
        self.decision = decision


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """What applying a design needs to know of the base network; derived once per network.

    Attributes:
        coupling: the channel groups.
        group_index: channel group name to its index in `coupling.groups`.
        layers: the convs and linears by name.
        depthwise: names of the layers whose channels follow their input's.
        grouped: names of the convs with more than one group; depthwise ones are among them.
        layers_of_target: block or layer name to the names of the layers it means.
        slices: the slices by name.
    """

    coupling: Coupling
    group_index: Mapping[str, int]
    layers: Mapping[str, Node]
    depthwise: frozenset[str]
    grouped: frozenset[str]
    layers_of_target: Mapping[str, tuple[str, ...]]
    slices: Mapping[str, Node]


@lru_cache(maxsize=64)
def structure_of(network: Network) -> Structure:
    """Derive, or find again, what `apply` needs of a base network."""
    coupling, shapes = derive_coupling(network), infer_shapes(network)
    layers = {node.name: node for node in network.compute_nodes()}
    targets: dict[str, tuple[str, ...]] = {name: (name,) for name in layers}
    for node in layers.values():
        if node.block:
            targets[node.block] = (*(n for n in targets.get(node.block, ()) if n != node.name), node.name)
    return Structure(
        coupling,
        {group.name: index for index, group in enumerate(coupling.groups)},
        layers,
        frozenset(name for name, node in layers.items() if follows_input(node, shapes)),
        frozenset(name for name, node in layers.items() if node.groups > 1),
        targets,
        {node.name: node for node in network.nodes if node.op is Op.SLICE},
    )


def apply(network: Network, design: Design) -> Network:
    """The network that a design leads to.

    Raises:
        DesignError: a decision names nothing in the network, or a value that it cannot take.
    """
    structure = structure_of(network)
    by_kind: dict[Kind, dict[str, Value]] = {kind: {} for kind in Kind}
    for name, value in design.items_:
        kind, target = _split(name)
        by_kind[kind][target] = value
        if kind in METHOD_KINDS:
            _check_method(name, target, value)
    kept = _kept_atoms(structure, by_kind[Kind.CHANNELS])
    grouping = _grouping(structure, by_kind)
    precisions = _precisions(structure, by_kind)
    changed: dict[str, Node] = {}
    for name, node in structure.layers.items():
        channels = _channels(structure.coupling, kept, name)
        groups = node.groups
        if name in structure.grouped:
            inputs = _channels(structure.coupling, kept, node.inputs[0])
            groups = _groups(name, grouping, inputs, channels, inputs if name in structure.depthwise else groups)
        precision = precisions.get(name, node.precision)
        if (channels, groups, precision) != (node.channels, node.groups, node.precision):
            changed[name] = replace(node, channels=channels, groups=groups, precision=precision)
    for name, node in structure.slices.items():
        channels = _channels(structure.coupling, kept, name)
        start = _count(structure.coupling.before_slice[name], kept)
        if (channels, start) != (node.channels, node.start):
            changed[name] = replace(node, channels=channels, start=start)
    return network.with_nodes(changed) if changed else network


def atoms_kept(network: Network, design: Design) -> dict[str, int]:
    """Channel group name to the number of atoms that the design keeps; only groups that it names."""
    names = ((split_decision_name(name), value) for name, value in design.items_)
    return {target: int(value) for (kind, target), value in names if kind is Kind.CHANNELS}


def _split(name: str) -> tuple[Kind, str]:
    try:
        return split_decision_name(name)
    except ValueError as error:
        raise DesignError(name, str(error)) from None


def _check_method(name: str, target: str, value: Value) -> None:
    if target != METHOD_TARGET:
        raise DesignError(name, f"a method is of the whole network: write {_split(name)[0]}/{METHOD_TARGET}")
    if not isinstance(value, str):
        raise DesignError(name, f"a method has a name, not {value!r}")


def _kept_atoms(structure: Structure, decisions: Mapping[str, Value]) -> list[int]:
    """Atoms kept of each group, by group index."""
    kept = [group.size for group in structure.coupling.groups]
    for target, value in decisions.items():
        decision = f"{Kind.CHANNELS}/{target}"
        index = structure.group_index.get(target)
        if index is None:
            raise DesignError(decision, f"no channel group is called {target!r}")
        kept[index] = _valid_count(structure.coupling.groups[index], decision, value)
    return kept


def _valid_count(group: ChannelGroup, decision: str, value: Value) -> int:
    if not isinstance(value, int) or not 1 <= value <= group.size:
        raise DesignError(decision, f"keep a whole number of channels from 1 to {group.size}, not {value!r}")
    if group.frozen and value != group.size:
        raise DesignError(decision, f"these channels are {group.frozen} and must all stay")
    if value % group.multiple_of:
        raise DesignError(decision, f"a grouped conv needs a multiple of {group.multiple_of}, not {value}")
    return value


def _channels(coupling: Coupling, kept: list[int], tensor: str) -> int:
    return _count(coupling.channels_per_atom[tensor], kept)


def _count(per_atom: tuple[tuple[int, int], ...], kept: list[int]) -> int:
    return sum(kept[group] * channels for group, channels in per_atom)


@dataclass(frozen=True, slots=True)
class _Grouping:
    """What a design says of groups.

    Attributes:
        sizes: G by layer; exactly this, or the design does not fit.
        size: G of all other grouped layers; where it does not divide, the nearest that does.
        count: g of all other grouped layers, likewise.
    """

    sizes: Mapping[str, int]
    size: int | None
    count: int | None


def _grouping(structure: Structure, by_kind: Mapping[Kind, Mapping[str, Value]]) -> _Grouping:
    sizes = {
        target: _whole_number(f"{Kind.GROUP_SIZE}/{target}", value)
        for target, value in by_kind[Kind.GROUP_SIZE].items()
    }
    counts = {target: _whole_number(f"{Kind.GROUPS}/{target}", value) for target, value in by_kind[Kind.GROUPS].items()}
    size = None if EVERY_LAYER in structure.grouped else sizes.pop(EVERY_LAYER, None)
    count = counts.pop(EVERY_LAYER, None)
    for target in sizes:
        if target not in structure.grouped:
            raise DesignError(f"{Kind.GROUP_SIZE}/{target}", f"no depthwise or grouped layer is called {target!r}")
    for target in counts:
        message = f"a number of groups is of the whole network: write {Kind.GROUPS}/{EVERY_LAYER}"
        raise DesignError(f"{Kind.GROUPS}/{target}", message)
    if size is not None and count is not None:
        message = f"give either this or {Kind.GROUP_SIZE}/{EVERY_LAYER}, not both"
        raise DesignError(f"{Kind.GROUPS}/{EVERY_LAYER}", message)
    if not structure.grouped and (size or count):
        kind = Kind.GROUP_SIZE if count is None else Kind.GROUPS
        raise DesignError(f"{kind}/{EVERY_LAYER}", "this network has no depthwise or grouped layer")
    return _Grouping(sizes, size, count)


def _whole_number(decision: str, value: Value) -> int:
    if not isinstance(value, int) or value < 1:
        raise DesignError(decision, f"a group size or a number of groups is a whole number, at least 1, not {value!r}")
    return value


def _groups(layer: str, grouping: _Grouping, inputs: int, outputs: int, usual: int) -> int:
    if (own := grouping.sizes.get(layer)) is not None:
        if inputs % own or inputs // own not in possible_group_counts(inputs, outputs):
            made = "" if outputs % inputs == 0 else f", and {outputs} that are made into as many"
            message = f"{inputs} channels do not divide into groups of {own}{made}"
            raise DesignError(f"{Kind.GROUP_SIZE}/{layer}", message)
        return inputs // own
    if grouping.size is not None:
        return inputs // nearest_group_size(inputs, outputs, grouping.size)
    return usual if grouping.count is None else nearest_group_count(inputs, outputs, grouping.count)


def _precisions(structure: Structure, by_kind: Mapping[Kind, Mapping[str, Value]]) -> dict[str, Precision]:
    """Precision of each layer that a decision names; separate bits override the pair."""
    precisions: dict[str, Precision] = {}
    for kind in (Kind.PRECISION, Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS):
        for target, value in by_kind[kind].items():
            decision = f"{kind}/{target}"
            if target not in structure.layers_of_target:
                raise DesignError(decision, f"no block or layer is called {target!r}")
            for layer in structure.layers_of_target[target]:
                before = precisions.get(layer, structure.layers[layer].precision)
                precisions[layer] = _changed_precision(kind, decision, before, value)
    return precisions


def _changed_precision(kind: Kind, decision: str, before: Precision, value: Value) -> Precision:
    if kind is Kind.PRECISION:
        try:
            return parse_precision(str(value))
        except ValueError as error:
            raise DesignError(decision, str(error)) from None
    known = WEIGHT_BITS if kind is Kind.WEIGHT_BITS else ACTIVATION_BITS
    if not isinstance(value, int) or value not in known:
        raise DesignError(decision, f"bits are one of {', '.join(map(str, known))}, not {value!r}")
    if before.is_codebook:
        raise DesignError(decision, f"the layer has a codebook ({before}); say its bits there")
    if kind is Kind.WEIGHT_BITS:
        return replace(before, weight_bits=value)
    return replace(before, activation_bits=value)
