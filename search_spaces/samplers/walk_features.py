"""What a step of a walk is about: its layer in figures, as AMC and HAQ have them, and what each choice is as an action.

It must not know costs or agents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.apply import Structure
from search_spaces.costs import LayerCost, layer_costs
from search_spaces.design import METHOD_KINDS, Kind
from search_spaces.network import Op, Shape, infer_shapes
from search_spaces.precision import parse_precision
from search_spaces.space import Decision, Space

Numbers = NDArray[np.float64]

_WITHIN_A_LAYER = (
    Kind.CHANNELS,
    Kind.GROUP_SIZE,
    Kind.GROUPS,
    Kind.PRECISION,
    Kind.WEIGHT_BITS,  # HAQ: of a layer first the weights, then the activations
    Kind.ACTIVATION_BITS,
)


def steps_of(space: Space, structure: Structure) -> list[int]:
    """Numbers of the decisions with a choice, in the order of the first layer of each; of the whole network first."""
    place = {name: number for number, name in enumerate(structure.layers)}
    columns = [column for column, decision in enumerate(space.decisions) if len(decision.choices) > 1]

    def order(column: int) -> tuple[int, int, int]:
        decision = space.decisions[column]
        if decision.kind in METHOD_KINDS:
            return -1, 0, column
        layers = () if _is_of_all(decision, structure) else layers_of(decision, structure)
        return min((place[name] for name in layers), default=-1), _WITHIN_A_LAYER.index(decision.kind), column

    return sorted(columns, key=order)


def layers_of(decision: Decision, structure: Structure) -> tuple[str, ...]:
    """The layers that a decision changes: of channels those that make them, of methods none."""
    match decision.kind:
        case kind if kind in METHOD_KINDS:
            return ()
        case Kind.CHANNELS:
            producers = structure.coupling.groups[structure.group_index[decision.target]].producers
            return tuple(name for name in producers if name in structure.layers)
        case _ if _is_of_all(decision, structure):
            return tuple(sorted(structure.grouped))
        case _:
            return structure.layers_of_target[decision.target]


def _is_of_all(decision: Decision, structure: Structure) -> bool:
    return decision.kind in (Kind.GROUP_SIZE, Kind.GROUPS) and decision.target not in structure.grouped


def kept_by(decision: Decision) -> Numbers:
    """What each choice keeps, (choices,), from 0 for the least to 1 for the most.

    Of channels as preserve ratios are spaced (AMC). Of anything else the middles of bins of equal width (HAQ), from the
    fewest bits to the most, from the smallest groups to the largest: the nearest is the bin that an action lies in.
    """
    count = len(decision.choices)
    if decision.kind is Kind.CHANNELS:
        channels = np.array(decision.choices, dtype=np.float64)
        spaced: Numbers = (channels - channels.min()) / (channels.max() - channels.min())
        return spaced
    ranks = np.empty(count)
    ranks[np.argsort(_keeps(decision), kind="stable")] = np.arange(count)
    return (ranks + 0.5) / count


def _keeps(decision: Decision) -> Numbers:
    """A number for each choice that grows with what it keeps."""
    match decision.kind:
        case kind if kind in METHOD_KINDS:
            return np.arange(len(decision.choices), dtype=np.float64)
        case Kind.PRECISION:
            read = [parse_precision(str(choice)) for choice in decision.choices]
            return np.array([one.weight_bits + one.activation_bits for one in read], dtype=np.float64)
        case Kind.GROUPS:  # fewer groups mix more
            return -np.array(decision.choices, dtype=np.float64)
        case _:
            return np.array(decision.choices, dtype=np.float64)


def static_features(space: Space, structure: Structure, columns: Sequence[int]) -> Numbers:
    """What of a state no design changes, (steps, features), each column scaled from its least to its most to [0, 1].

    In this order: the step's number, whether its layer is depthwise, whether it is linear, inputs, outputs, stride,
    kernel, places of its input, weights and MACs of all its layers, a flag for each kind of decision that there is, and
    one for each step: in the hundreds of trials that there are, nothing is learned of single layers without.
    Where a step is of several layers, the first one stands for them; of methods there is none, and all are 0.
    """
    decisions = [space.decisions[column] for column in columns]
    kinds = [kind for kind in Kind if any(decision.kind is kind for decision in decisions)]
    shapes, costs = infer_shapes(space.network), {cost.name: cost for cost in layer_costs(space.network)}
    figures = [[number, *_layer_features(one, structure, shapes, costs)] for number, one in enumerate(decisions)]
    raw = np.array(figures, dtype=np.float64).reshape(len(decisions), 1 + _LAYER_FEATURES)
    least, most = raw.min(axis=0, initial=np.inf), raw.max(axis=0, initial=-np.inf)
    scaled = (raw - least) / np.where(most > least, most - least, 1.0)
    flags = np.array([[decision.kind is kind for kind in kinds] for decision in decisions], dtype=np.float64)
    own = np.eye(len(decisions))
    return np.concatenate([scaled, flags.reshape(len(decisions), len(kinds)), own], axis=1)


_LAYER_FEATURES = 9


def _layer_features(
    decision: Decision, structure: Structure, shapes: Mapping[str, Shape], costs: Mapping[str, LayerCost]
) -> list[float]:
    layers = layers_of(decision, structure)
    if not layers:
        return [0.0] * _LAYER_FEATURES
    first = structure.layers[layers[0]]
    source = shapes[first.inputs[0]]
    return [
        float(first.name in structure.depthwise),
        float(first.op is Op.LINEAR),
        source[0],
        shapes[first.name][0],
        _side(first.stride),
        _side(first.kernel),
        float(np.prod(source[1:])),
        sum(costs[name].parameters for name in layers),
        sum(costs[name].macs for name in layers),
    ]


def _side(sides: tuple[int, int]) -> float:
    """Of a square with the same area."""
    return math.sqrt(sides[0] * sides[1])
