"""What is recorded: six decisions of four choices, small enough to try all 4,096 designs of.

A MobileNet-V1 of width 0.25 on cluttered Fashion-MNIST, with everything in 8 bits but for what is decided:

- how many channels blocks 3, 9 and 12 hand on: an early, a middle and a late layer pruned by 0, 30, 60 or 90 per cent,
- the bits of blocks 3, 8 and 13: 8, 5, 3 or 2 of both weights and activations.

The early layers weigh nothing and cost latency, the late ones are most of the size. Fewer channels and fewer bits of
one block, or of neighbours, do harm together that they do not do alone. 2 bits in block 3 leave little more than
chance, while late blocks bear all but the last step.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from search_spaces.accelerators.models import MODELS
from search_spaces.batch_shapes import Integers
from search_spaces.check import check_spec
from search_spaces.design import Design, Kind
from search_spaces.known import Known
from search_spaces.parse import parse_spec
from search_spaces.space import Decision, Space
from search_spaces.spec import SearchSpec

DEVICE = "bit-serial-edge"
PRUNED = ("block3.pointwise", "block9.pointwise", "block12.pointwise")
ROUNDED = ("block3", "block8", "block13")
PRECISIONS = ("w8a8", "w5a5", "w3a3", "w2a2")
NAME = "mobilenet_v1_cluttered"

DOCUMENT: dict[str, Any] = {
    "name": NAME,
    "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 28, 28], "stem_stride": 1},
    "dataset": {"name": "fashion_mnist_cluttered"},
    "space": {
        "prune_ratio": {"low": 0.0, "high": 0.9, "step": 0.3, "layers": PRUNED},
        "precision": {"choices": PRECISIONS, "scope": "block"},
    },
    "objectives": [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "latency_s", "direction": "minimize", "device": DEVICE},
    ],
    "evaluation": {"reconstruct": "least_squares", "calibration_images": 500, "score_images": 2000},
    "budget": {"trials": 4096},
}


def recorded_spec() -> SearchSpec:
    return parse_spec(DOCUMENT)


def space_of(spec: SearchSpec, rounded: tuple[str, ...] = ROUNDED) -> Space:
    """The spec's space, in which all blocks but those that are `rounded` have the first precision.

    Raises:
        SpecError: the spec makes no sense.
    """
    known = Known(devices={name: model.capabilities for name, model in MODELS.items()})
    whole = check_spec(spec, known).space
    decisions = tuple(_fixed(one) if _is_fixed(one, rounded) else one for one in whole.decisions)
    narrowed = Space(whole.network, decisions, ())
    uniform = dict.fromkeys(_narrowed(design, narrowed, rounded) for design in whole.uniform)
    return Space(whole.network, decisions, tuple(uniform))


def enumerate_space(space: Space) -> Integers:
    """Choice indices of all designs, (designs, decisions): the order of a table. The last decision changes fastest."""
    ranges = [range(len(decision.choices)) for decision in space.decisions]
    return np.array(list(product(*ranges)), dtype=np.int64)


def _is_fixed(decision: Decision, rounded: tuple[str, ...]) -> bool:
    return decision.kind is Kind.PRECISION and decision.target not in rounded


def _fixed(decision: Decision) -> Decision:
    return replace(decision, choices=decision.choices[:1])


def _narrowed(design: Design, space: Space, rounded: tuple[str, ...]) -> Design:
    fixed = {one.name: one.choices[0] for one in space.decisions if _is_fixed(one, rounded)}
    return Design.of({**design.to_json(), **fixed})
