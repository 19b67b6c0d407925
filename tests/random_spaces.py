"""Hypothesis strategies of spaces over random networks, with every kind of decision. Shared by all test folders."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from search_spaces.apply import structure_of
from search_spaces.build_space import build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.network import Network
from search_spaces.space import Space
from search_spaces.spec import SpaceSpec
from tests.random_networks import networks

LOW_BITS = (2, 4, 8)


def any_device(divisor: int) -> DeviceCapabilities:
    """A device that executes all that the spaces here may hold, in any layer."""
    pairs = tuple(f"w{weights}a{activations}" for weights in LOW_BITS for activations in LOW_BITS)
    return DeviceCapabilities(
        name="any",
        description="",
        precisions=("fp32", *pairs),
        channel_divisor=divisor,
        metrics=("latency_s",),
        separate_bits=True,
    )


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    network = draw(networks())
    spec: dict[str, Any] = {"prune_ratio": {"low": draw(st.sampled_from([0.0, 0.25])), "high": 0.75, "step": 0.25}}
    spec |= draw(_precisions())
    if structure_of(network).grouped:
        spec |= draw(_groups(network))
    if draw(st.booleans()):
        spec["importance"] = {"choices": draw(st.sampled_from([["l1", "l2"], ["l2"]]))}
    divisor = draw(st.sampled_from([1, 2, 4, 16]))
    return build_space(network, SpaceSpec.model_validate(spec), any_device(divisor))[0]


@st.composite
def _precisions(draw: st.DrawFn) -> dict[str, Any]:
    pairs = st.sampled_from([["fp32", "w8a8"], ["w8a8"], ["w4a4", "fp32", "w8a8"]])
    bits = st.lists(st.sampled_from(LOW_BITS), min_size=1, max_size=3, unique=True)
    scope = draw(st.sampled_from(["block", "layer", "apart"]))
    if scope == "apart":
        return {"weight_bits": {"choices": draw(bits)}, "activation_bits": {"choices": draw(bits)}}
    return {"precision": {"choices": draw(pairs), "scope": scope}}


@st.composite
def _groups(draw: st.DrawFn, network: Network) -> dict[str, Any]:
    is_each = bool(structure_of(network).depthwise)
    kinds = ["nothing", "size", "count"] + ["each"] * is_each
    match draw(st.sampled_from(kinds)):
        case "each":
            return {"group_size": {"choices": [1, 2]}}
        case "size":
            return {"group_size": {"choices": [1, 2, 4], "scope": "network"}}
        case "count":
            return {"groups": {"choices": [1, 2, 4]}}
        case _:
            return {}
