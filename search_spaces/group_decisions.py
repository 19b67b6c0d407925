"""What a space varies of groups: channels per group layer by layer, or one size or one number for the whole network.

For a layer only what divides its channels is a choice, and kept counts are multiples of all choices. For the whole
network a layer that a choice does not divide gets the nearest group size that does (`search_spaces.grouping`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from search_spaces.apply import Structure
from search_spaces.design import EVERY_LAYER, Kind, decision_name
from search_spaces.grouping import nearest_group_count, nearest_group_size, possible_group_counts
from search_spaces.layer_globs import Faults, LayerSelection
from search_spaces.space import Decision
from search_spaces.spec import GroupCountChoices, GroupSizeChoices, SpaceSpec

_SIZE, _COUNT = "/space/group_size", "/space/groups"


@dataclass(frozen=True)
class GroupDecisions:
    """The decisions, and what channel counts they need.

    Attributes:
        sizes: by layer the group sizes that the number of channels which it reads must be a multiple of.
    """

    decisions: tuple[Decision, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def group_decisions(
    structure: Structure,
    spec: SpaceSpec,
    selection: LayerSelection | None,
    pruned: Collection[int],
    faults: Faults,
    warnings: list[str],
) -> GroupDecisions:
    """The decisions of a network.

    Args:
        structure: of the network.
        spec: what to vary.
        selection: layers that group sizes are chosen for, where they are chosen.
        pruned: indices of the channel groups that are varied.
        faults, warnings: appended to in place.
    """
    if spec.groups is not None and spec.group_size is not None:
        faults.append((_COUNT, "give either `group_size` or `groups`, not both: each follows from the other"))
        return GroupDecisions()
    if spec.groups is not None:
        return _group_counts(structure, spec.groups, faults, warnings)
    if spec.group_size is None or selection is None:
        return GroupDecisions()
    if spec.group_size.scope == "network":
        return _one_group_size(structure, spec.group_size, faults, warnings)
    _check_globs(structure, spec.group_size, selection, faults)
    layers = [layer for layer in selection.layers if layer in structure.grouped]
    free = [layer for layer in layers if not _has_pruned_outputs(structure, layer, pruned)]
    if len(free) < len(layers):
        stays = next(layer for layer in layers if layer not in free)
        warnings.append(f"{stays} {_STAYS} (and {len(layers) - len(free) - 1} more)")
    return _group_sizes(structure, spec.group_size, free, warnings)


# --- layer by layer ---------------------------------------------------------------------------------------------


_STAYS = (
    "keeps its number of groups: it is grouped, not depthwise, and its inputs and outputs are pruned apart, so that no "
    "group size divides both always; choose `scope: network`, or exclude it from prune_ratio"
)


def _has_pruned_outputs(structure: Structure, layer: str, pruned: Collection[int]) -> bool:
    """Whether a conv that has outputs of its own may lose some of them, or some of its inputs."""
    if layer in structure.depthwise:
        return False
    tensors = (structure.layers[layer].inputs[0], layer)
    return any(group in pruned for tensor in tensors for group, _ in structure.coupling.channels_per_atom[tensor])


def _check_globs(structure: Structure, spec: GroupSizeChoices, selection: LayerSelection, faults: Faults) -> None:
    for number, matched in enumerate(selection.by_glob):
        if matched and not structure.grouped.intersection(matched):
            text = f"{spec.layers[number]!r} matches only layers without groups, such as {matched[0]}"
            faults.append((f"{_SIZE}/layers/{number}", f"{text}; {_grouped_hint(structure)}"))


def _group_sizes(
    structure: Structure, spec: GroupSizeChoices, layers: Sequence[str], warnings: list[str]
) -> GroupDecisions:
    sizes = {layer: _sizes_that_fit(structure, layer, spec.choices, warnings) for layer in layers}
    sizes = {layer: fitting for layer, fitting in sizes.items() if fitting}
    decisions = tuple(
        Decision(decision_name(Kind.GROUP_SIZE, layer), Kind.GROUP_SIZE, layer, fitting)
        for layer, fitting in sizes.items()
    )
    return GroupDecisions(decisions, sizes)


def _grouped_hint(structure: Structure) -> str:
    names = [name for name in structure.layers if name in structure.grouped]
    if not names:
        return "this network has no depthwise or grouped layer"
    kind = "depthwise" if names[0] in structure.depthwise else "grouped"
    return f"{kind} layers are {', '.join(names[:3])} ..."


def _sizes_that_fit(structure: Structure, layer: str, choices: Sequence[int], warnings: list[str]) -> tuple[int, ...]:
    """Those that divide the channels of every group that the layer reads; else what is whole could not stay."""
    coupling = structure.coupling
    read = coupling.channels_per_atom[structure.layers[layer].inputs[0]]
    parts = [coupling.groups[group].size * channels for group, channels in read]
    inputs, outputs = _channels(structure, layer)
    possible = {inputs // count for count in possible_group_counts(inputs, outputs)}
    fitting = {choice for choice in choices if choice in possible and all(part % choice == 0 for part in parts)}
    for choice in sorted(set(choices) - fitting):
        warnings.append(f"{layer}: group size {choice} is left out, it does not divide {inputs} channels")
    return tuple(sorted(fitting))


def _channels(structure: Structure, layer: str) -> tuple[int, int]:
    atoms = structure.coupling.atoms
    return len(atoms[structure.layers[layer].inputs[0]]), len(atoms[layer])


# --- of the whole network ---------------------------------------------------------------------------------------


def _one_group_size(
    structure: Structure, spec: GroupSizeChoices, faults: Faults, warnings: list[str]
) -> GroupDecisions:
    if EVERY_LAYER in structure.layers:
        message = f"a layer of this network is called {EVERY_LAYER!r}, which here means all layers; choose scope layer"
        faults.append((f"{_SIZE}/scope", message))
        return GroupDecisions()
    found = _sizes_by_choice(structure, _SIZE, sorted(set(spec.choices)), nearest_group_size, faults)
    warnings += [_of_odd(choice, by_layer) for choice, by_layer in found.items() if set(by_layer.values()) != {choice}]
    sizes = {layer: tuple({row[layer] for row in found.values()}) for layer in structure.grouped if found}
    return GroupDecisions(_one_decision(Kind.GROUP_SIZE, found, warnings), sizes)


def _of_odd(choice: int, by_layer: Mapping[str, int]) -> str:
    odd = [layer for layer, size in by_layer.items() if size != choice]
    message = f"group size {choice} does not divide the channels of {len(odd)} layers, which get the nearest that does"
    return f"{message}: {odd[0]} gets {by_layer[odd[0]]}"


def _group_counts(structure: Structure, spec: GroupCountChoices, faults: Faults, warnings: list[str]) -> GroupDecisions:
    """Kept counts are free: the nearest number of groups is taken, whatever is left."""

    def size(inputs: int, outputs: int, count: int) -> int:
        return inputs // nearest_group_count(inputs, outputs, count)

    found = _sizes_by_choice(structure, _COUNT, sorted(set(spec.choices), reverse=True), size, faults)
    return GroupDecisions(_one_decision(Kind.GROUPS, found, warnings))


def _sizes_by_choice(
    structure: Structure,
    pointer: str,
    choices: Sequence[int],
    size: Callable[[int, int, int], int],
    faults: Faults,
) -> dict[int, dict[str, int]]:
    """For each choice the group size of every grouped layer, while all channels are there."""
    if not structure.grouped:
        faults.append((pointer, _grouped_hint(structure)))
        return {}
    layers = [layer for layer in structure.layers if layer in structure.grouped]
    return {choice: {layer: size(*_channels(structure, layer), choice) for layer in layers} for choice in choices}


def _one_decision(kind: Kind, found: Mapping[int, Mapping[str, int]], warnings: list[str]) -> tuple[Decision, ...]:
    """Choices that lead to the same group sizes everywhere are one choice, the first of them."""
    first: dict[tuple[int, ...], int] = {}
    for choice, by_layer in found.items():
        same = first.setdefault(tuple(by_layer.values()), choice)
        if same != choice:
            warnings.append(f"{kind.replace('_', ' ')} {choice} is left out, it leads to the same as {same}")
    if not first:
        return ()
    return (Decision(decision_name(kind, EVERY_LAYER), kind, EVERY_LAYER, tuple(first.values())),)
