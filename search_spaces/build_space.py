"""From a SpaceSpec to a Space: ratios become channel counts that the device likes, globs become layers.

Ratios that lead to one count are one choice, and what offers no choice is no decision.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product

from search_spaces.apply import Structure, structure_of
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.coupling import ChannelGroup
from search_spaces.design import METHOD_KINDS, METHOD_TARGET, Design, Kind, Value, decision_name
from search_spaces.group_decisions import GroupDecisions, group_decisions
from search_spaces.layer_globs import Faults, LayerSelection, select_layers
from search_spaces.network import Network
from search_spaces.precision import (
    ACTIVATION_BITS,
    CONTAINER_BITS,
    WEIGHT_BITS,
    Precision,
    at_least_8_bits,
    parse_precision,
    why_not_computable,
)
from search_spaces.space import Decision, Space, base_value
from search_spaces.spec import BitChoices, PrecisionChoices, RatioRange, SpaceSpec

MAX_UNIFORM = 1_000
"""Designs of the uniform baseline; all of them are tried, outside of the budget."""


_PRECISION_KINDS = (Kind.PRECISION, Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS)


class SpaceError(ValueError):
    """The space's description does not fit the network or the device. `faults`: (pointer into the spec, message)."""

    def __init__(self, faults: Faults) -> None:
        super().__init__("; ".join(message for _, message in faults))
        self.faults = tuple(faults)


def build_space(network: Network, spec: SpaceSpec, device: DeviceCapabilities | None) -> tuple[Space, list[str]]:
    """Enumerate the space of a network.

    Args:
        network: the base.
        spec: what to vary.
        device: gives the channel divisor and what may be executed; None: nothing is required.

    Returns:
        The space, and warnings for people.

    Raises:
        SpaceError: layer globs, precisions or bits that do not fit; all of them at once.
    """
    builder = _Builder(network, structure_of(network), device.channel_divisor if device else 1, {}, [], [])
    pruned = _pruned_groups(builder, spec.prune_ratio)
    groups = _group_decisions(builder, spec, pruned)
    precisions = _precision_decisions(builder, spec.precision, device)
    weight_bits = _bit_decisions(builder, spec.weight_bits, Kind.WEIGHT_BITS)
    activation_bits = _bit_decisions(builder, spec.activation_bits, Kind.ACTIVATION_BITS)
    _check_bits(builder, spec, device, [*weight_bits, *activation_bits])
    counts = _channel_counts(builder, spec.prune_ratio, pruned, groups)
    if builder.faults:
        raise SpaceError(builder.faults)
    channels = [_decision(Kind.CHANNELS, name, tuple(dict.fromkeys(row))) for name, row in counts.items()]
    decisions = [*channels, *precisions, *weight_bits, *activation_bits, *groups.decisions, *_method_decisions(spec)]
    kept = tuple(d for d in decisions if len(d.choices) > 1 or d.choices[0] != base_value(network, d))
    rows = list(dict.fromkeys(zip(*counts.values(), strict=True))) or [()]
    _check_uniform_size(builder, kept, len(rows))
    uniform = _uniform_designs(builder, kept, [dict(zip(counts, row, strict=True)) for row in rows])
    return Space(network, kept, uniform), builder.warnings


@dataclass(frozen=True, slots=True)
class _Builder:
    network: Network
    structure: Structure
    divisor: int
    levels: dict[str, tuple[Value, ...]]  # decision to its value at each choice of the spec, where some are raised
    faults: Faults
    warnings: list[str]

    def select(self, pointer: str, layers: Sequence[str], exclude: Sequence[str]) -> LayerSelection:
        return select_layers(tuple(self.structure.layers), pointer, layers, exclude, self.faults)


def _group_decisions(builder: _Builder, spec: SpaceSpec, pruned: Collection[int]) -> GroupDecisions:
    sizes = spec.group_size
    selection = None if sizes is None else builder.select("/space/group_size", sizes.layers, sizes.exclude)
    return group_decisions(builder.structure, spec, selection, pruned, builder.faults, builder.warnings)


def _decision(kind: Kind, target: str, choices: tuple[Value, ...]) -> Decision:
    return Decision(decision_name(kind, target), kind, target, choices)


# --- precision --------------------------------------------------------------------------------------------------


def _precision_decisions(
    builder: _Builder, spec: PrecisionChoices | None, device: DeviceCapabilities | None
) -> list[Decision]:
    if spec is None:
        return []
    choices = _precision_choices(builder, spec, device)
    selection = builder.select("/space/precision", spec.layers, spec.exclude)
    if device is not None and spec.scope == "layer" and device.precision_scope == "block":
        builder.warnings.append(
            f"precision of scope layer: on {device.name} a change of precision within a block costs time"
        )
    layers = builder.structure.layers
    names = [(layers[name].block or name) if spec.scope == "block" else name for name in selection.layers]
    if not choices:
        return []
    decisions = [_decision(Kind.PRECISION, name, choices) for name in dict.fromkeys(names)]
    raised = tuple(str(at_least_8_bits(parse_precision(choice))) for choice in choices)
    if device is not None and not set(raised) <= set(device.precisions):
        return decisions
    return _spare_ends(builder, spec.layers, decisions, raised)


def _precision_choices(builder: _Builder, spec: PrecisionChoices, device: DeviceCapabilities | None) -> tuple[str, ...]:
    choices = []
    for number, text in enumerate(spec.choices):
        pointer = f"/space/precision/choices/{number}"
        try:
            precision = str(parse_precision(text))
        except ValueError as error:
            builder.faults.append((pointer, str(error)))
            continue
        if reason := why_not_computable(parse_precision(text)):
            builder.faults.append((pointer, reason))
            continue
        if device is not None and precision not in device.precisions:
            builder.faults.append((pointer, _not_executed(precision, device)))
        choices.append(precision)
    return tuple(dict.fromkeys(choices))


def _not_executed(precision: str, device: DeviceCapabilities) -> str:
    return f"{device.name} does not execute {precision}; it executes {', '.join(device.precisions)}"


def _bit_decisions(builder: _Builder, spec: BitChoices | None, kind: Kind) -> list[Decision]:
    if spec is None:
        return []
    known = WEIGHT_BITS if kind is Kind.WEIGHT_BITS else ACTIVATION_BITS
    for number, choice in enumerate(spec.choices):
        if choice not in known:
            message = f"{choice} is none of the bits that there are: {', '.join(map(str, known))}"
            builder.faults.append((f"/space/{kind}/choices/{number}", message))
    selection = builder.select(f"/space/{kind}", spec.layers, spec.exclude)
    choices = tuple(sorted(set(spec.choices), reverse=True))
    decisions = [_decision(kind, layer, choices) for layer in selection.layers]
    return _spare_ends(builder, spec.layers, decisions, tuple(max(choice, CONTAINER_BITS) for choice in choices))


def _spare_ends(
    builder: _Builder, named: Sequence[str], decisions: Sequence[Decision], raised: tuple[Value, ...]
) -> list[Decision]:
    """Give the first and the last layer the raised choices, unless they are named: few bits cost most there.

    Args:
        named: globs of the spec; one that is a layer's name is what names it.
        decisions: with a choice for each of `raised`.
    """
    layers = list(builder.structure.layers)
    spared = {layers[0], layers[-1]}.difference(named)
    of_spared = [d for d in decisions if spared.intersection(builder.structure.layers_of_target[d.target])]
    if of_spared and raised != of_spared[0].choices:
        builder.levels.update({decision.name: raised for decision in of_spared})
        names = " and ".join(name for name in layers if name in spared)
        builder.warnings.append(
            f"{names} keep at least {CONTAINER_BITS} bits, being first or last; name them in `layers` to choose fewer"
        )
    return [replace(d, choices=tuple(dict.fromkeys(builder.levels.get(d.name, d.choices)))) for d in decisions]


def _check_bits(
    builder: _Builder, spec: SpaceSpec, device: DeviceCapabilities | None, decisions: Sequence[Decision]
) -> None:
    """Separate bits are for devices that take them, and each pair that a layer can get must be executed."""
    kinds = [kind for kind in (Kind.WEIGHT_BITS, Kind.ACTIVATION_BITS) if getattr(spec, kind) is not None]
    for kind in kinds:
        if spec.precision is not None:
            builder.faults.append((f"/space/{kind}", "give either `precision` or separate bits, not both"))
        elif device is not None and not device.separate_bits:
            message = f"{device.name} does not take weight and activation bits separately; use `precision`"
            builder.faults.append((f"/space/{kind}", message))
    if kinds and device is not None and device.separate_bits:
        pairs = _pairs_of_bits(builder, decisions)
        refused = [precision for precision in pairs if precision not in device.precisions]
        if refused:
            first = f"{pairs[refused[0]]} could get {refused[0]}"
            message = f"{first}: {_not_executed(', '.join(refused), device)}; leave out the bits that lead to others"
            builder.faults.append((f"/space/{kinds[0]}", message))


def _pairs_of_bits(builder: _Builder, decisions: Sequence[Decision]) -> dict[str, str]:
    """Every precision that separate bits can lead to, and the first layer that could get it."""
    bits = {(decision.kind, decision.target): decision.choices for decision in decisions}
    pairs: dict[str, str] = {}
    for layer, node in builder.structure.layers.items():
        weights = bits.get((Kind.WEIGHT_BITS, layer), (node.precision.weight_bits,))
        activations = bits.get((Kind.ACTIVATION_BITS, layer), (node.precision.activation_bits,))
        for weight, activation in product(weights, activations):
            pairs.setdefault(str(Precision(int(weight), int(activation))), layer)
    return pairs


# --- methods ----------------------------------------------------------------------------------------------------


def _method_decisions(spec: SpaceSpec) -> list[Decision]:
    varied = {kind: getattr(spec, kind) for kind in Kind if kind in METHOD_KINDS}
    return [
        _decision(kind, METHOD_TARGET, tuple(dict.fromkeys(named.choices)))
        for kind, named in varied.items()
        if named is not None
    ]


# --- channels ---------------------------------------------------------------------------------------------------


def _pruned_groups(builder: _Builder, spec: RatioRange | None) -> list[int]:
    """The channel groups that are varied."""
    if spec is None:
        return []
    pointer, structure = "/space/prune_ratio", builder.structure
    selection = builder.select(pointer, spec.layers, spec.exclude)
    members = _layers_by_group(structure)
    free = [index for index, group in enumerate(structure.coupling.groups) if not group.frozen]
    for number, matched in enumerate(selection.by_glob):
        if matched and not any(members[index].intersection(matched) for index in free):
            message = f"{spec.layers[number]!r} matches only layers whose channels must all stay, such as {matched[0]}"
            builder.faults.append((f"{pointer}/layers/{number}", message))
    return [
        index
        for index in free
        if members[index].intersection(selection.included) and not members[index].intersection(selection.excluded)
    ]


def _channel_counts(
    builder: _Builder, spec: RatioRange | None, pruned: Sequence[int], group_sizes: GroupDecisions
) -> dict[str, list[int]]:
    """For each channel group that is varied the count of every ratio, in the order of the ratios."""
    groups = [(index, builder.structure.coupling.groups[index]) for index in pruned]
    ratios = [] if spec is None else _ratios(spec)
    return {group.name: _realised_counts(builder, index, group, ratios, group_sizes) for index, group in groups}


def _layers_by_group(structure: Structure) -> list[set[str]]:
    """The layers with output channels of each group: those that make them and those that follow."""
    members: list[set[str]] = [set() for _ in structure.coupling.groups]
    for layer in structure.layers:
        for group, _ in structure.coupling.channels_per_atom[layer]:
            members[group].add(layer)
    return members


def _ratios(spec: RatioRange) -> list[float]:
    steps = math.floor((spec.high - spec.low) / spec.step + 1e-9)
    return [spec.low + step * spec.step for step in range(steps + 1)]


def _realised_counts(
    builder: _Builder, index: int, group: ChannelGroup, ratios: Sequence[float], group_sizes: GroupDecisions
) -> list[int]:
    """Counts in multiples that the device and the group sizes want, at least one such multiple.

    A ratio of 0 keeps the group whole, even where its size is no such multiple.
    """
    step = _step(builder, index, group, group_sizes)
    if step > group.size:
        builder.warnings.append(
            f"{group.name} stays whole: its {group.size} channels are fewer than the {step} of which kept counts "
            "must be a multiple, for the device's channel divisor and the group sizes"
        )
        return [group.size] * len(ratios)
    return [_count(group.size, step, ratio) for ratio in ratios]


def _count(size: int, step: int, ratio: float) -> int:
    if ratio == 0:
        return size
    multiples = math.floor(size * (1 - ratio) / step + 0.5 + 1e-9)
    return min(max(multiples, 1), size // step) * step


def _step(builder: _Builder, index: int, group: ChannelGroup, group_sizes: GroupDecisions) -> int:
    """Least common multiple of all that a kept count of this group must be a multiple of, in atoms."""
    coupling, layers = builder.structure.coupling, builder.structure.layers
    demands = [(dict(coupling.channels_per_atom[producer])[index], builder.divisor) for producer in group.producers]
    for layer, sizes in group_sizes.sizes.items():
        read = dict(coupling.channels_per_atom[layers[layer].inputs[0]])
        demands += [(read[index], size) for size in sizes if index in read]
    return math.lcm(group.multiple_of, *(divisor // math.gcd(channels, divisor) for channels, divisor in demands))


# --- the uniform baseline ---------------------------------------------------------------------------------------


def _levels(builder: _Builder, decisions: Sequence[Decision]) -> list[int]:
    """Number of precisions, of weight bits and of activation bits; 1 where they are not varied."""
    return [
        max((len(builder.levels.get(d.name, d.choices)) for d in decisions if d.kind is kind), default=1)
        for kind in _PRECISION_KINDS
    ]


def _check_uniform_size(builder: _Builder, decisions: Sequence[Decision], ratios: int) -> None:
    size = ratios * math.prod(_levels(builder, decisions))
    if size > MAX_UNIFORM:
        message = f"the uniform baseline would have {size:,} designs; take a larger step or fewer precisions, so that"
        raise SpaceError([("/space", f"{message} it has at most {MAX_UNIFORM:,}")])


def _uniform_designs(
    builder: _Builder, decisions: Sequence[Decision], shapes: Sequence[dict[str, int]]
) -> tuple[Design, ...]:
    """Every shape with every precision (or pair of bits), at the base's group sizes or the smallest there are.

    Args:
        builder: of the space.
        decisions: of the space.
        shapes: channel group to its count, for each ratio.
    """
    base = {decision.name: base_value(builder.network, decision) for decision in decisions}
    designs: dict[Design, None] = {}
    for shape, positions in product(shapes, product(*map(range, _levels(builder, decisions)))):
        position = dict(zip(_PRECISION_KINDS, positions, strict=True))
        values: dict[str, Value] = {}
        for decision in decisions:
            if decision.kind is Kind.CHANNELS:
                values[decision.name] = shape[decision.target]
            elif decision.kind in (Kind.GROUP_SIZE, Kind.GROUPS):
                values[decision.name] = _nearest_to_base(decision, base[decision.name])
            elif decision.kind in METHOD_KINDS:
                values[decision.name] = decision.choices[0]
            else:
                choices = builder.levels.get(decision.name, decision.choices)
                values[decision.name] = choices[position[decision.kind]]
        designs[Design.of({name: value for name, value in values.items() if value != base[name]})] = None
    return tuple(designs)


def _nearest_to_base(decision: Decision, base: Value | None) -> Value:
    """The base's own where it is a choice; else the most groups, which are the first choice."""
    return base if base is not None and base in decision.choices else decision.choices[0]
