"""A network's JSON from anywhere is read as it was written, or refused with the place of what is wrong."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.catalog import build_network
from search_spaces.network import Network, Node, infer_shapes, network_to_json
from search_spaces.network_reading import _FIELDS, read_network
from search_spaces.spec import Family, NetworkSpec


def network_of(family: Family) -> Network:
    return build_network(NetworkSpec(family=family, input=(3, 32, 32)), 10, (0.5,) * 3, (0.25,) * 3)


SMALL = network_to_json(network_of(Family.VGG_13))


@pytest.mark.parametrize("family", Family)
def test_what_was_written_is_read(family: Family) -> None:
    network = network_of(family)
    assert read_network(json.loads(json.dumps(network_to_json(network)))) == network


def test_every_attribute_of_a_node_is_read() -> None:
    assert _FIELDS.keys() == {field.name for field in fields(Node)}


WRONG = {
    "nodes/1/kernel: must be a list of 2 whole numbers": ("nodes", 1, "kernel", [3]),
    "nodes/1/channels: must be a whole number from 1": ("nodes", 1, "channels", True),
    "nodes/1/groups: must be a whole number from 1": ("nodes", 1, "groups", 10**400),
    "nodes/1/bias: must be true or false": ("nodes", 1, "bias", 1),
    "nodes/1/inputs: conv cannot read 0 tensors": ("nodes", 1, "inputs", []),
    "nodes/1/op: ": ("nodes", 1, "op", "os.system"),
    "nodes/1/precision: ": ("nodes", 1, "precision", "w8"),
    "nodes/1: has an unknown key 'command'": ("nodes", 1, "command", "rm"),
    "nodes/1/op: the first node, and no other, is the input": ("nodes", 1, {"name": "x", "op": "input"}),
    "nodes/2/precision: only convs and linears": ("nodes", 2, "precision", "w8a8"),
    "input/std: must be above zero": ("input", "std", [0.0, 1.0, 1.0]),
    "input/mean: must be a list of 3 finite numbers": ("input", "mean", [0.0, 1.0, float("nan")]),
    "input/shape: must be a list of 3 whole numbers": ("input", "shape", [3, 32]),
    "input/interpolation: ": ("input", "interpolation", "nearest"),
    "nodes: must be a list": ("nodes", {}),
    "name: must be a text": ("name", 3),
    "the output 'x' is not a node": ("output", "x"),
}


@pytest.mark.parametrize(("told", "change"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_named_by_its_place(told: str, change: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        read_network(replaced(SMALL, change[:-1], change[-1]))


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return changed


PLACES = [
    *[(name,) for name in SMALL],
    *[("input", name) for name in SMALL["input"]],
    *[("nodes", index, name) for index in range(8) for name in _FIELDS],
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["conv", "image"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_whatever_is_in_it_nothing_else_is_raised(place: tuple[Any, ...], value: Any) -> None:
    try:
        network = read_network(replaced(SMALL, place, value))
    except ValueError:
        return
    assert infer_shapes(network)[network.output]
