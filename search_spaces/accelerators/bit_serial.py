"""Matrix multiplication bit by bit, as BISMO does it (Umuroglu et al., FPL 2018): a pass for each activation bit.

A model of our own. Its form was read off the only public cost table of such hardware, that of HAQ (Wang et al., CVPR
2019) for MobileNet-V2 on the large configuration at batch 16: the shares that uniform and mixed bits take of 8 bits
throughout, which the tests hold. The small configuration has fewer lanes, at batch 1, and is not checked against
anything published. Nobody has published energy for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.accelerators.layers import Column, Layers


@dataclass(frozen=True, slots=True)
class BitSerial:
    """A configuration.

    Attributes:
        depth: input values of one dot product that are taken in at a time.
        lanes: bit columns of weights that are multiplied at a time; narrower layers leave lanes idle.
        depthwise_lanes: channels of a depthwise layer at a time.
        load: cycles that one bit of weights takes to load, which nothing hides.
        clock_hz: of the array.
        batch: images at a time.
    """

    depth: float
    lanes: float
    depthwise_lanes: float
    load: float
    clock_hz: float
    batch: int


CLOUD = BitSerial(depth=192, lanes=256, depthwise_lanes=16, load=0.03, clock_hz=150e6, batch=16)
EDGE = BitSerial(depth=96, lanes=64, depthwise_lanes=8, load=0.06, clock_hz=150e6, batch=1)


def cycles(layers: Layers, array: BitSerial) -> Column:
    """Cycles of each layer for a batch, (..., layers).

    A layer of few groups is one product for each group; a depthwise one has a path of its own, which does not gain
    from fewer bits of weights.
    """
    pixels = array.batch * layers.pixels
    depth = np.ceil(layers.inputs / layers.groups * layers.taps / array.depth)
    width = np.maximum(1, layers.weight_bits * layers.outputs / layers.groups / array.lanes)
    products = layers.groups * pixels * depth * width * layers.activation_bits
    channelwise = pixels * np.ceil(layers.inputs / array.depthwise_lanes) * layers.activation_bits
    is_depthwise = (layers.groups == layers.inputs) & (layers.groups > 1)
    return np.where(is_depthwise, channelwise, products + array.load * layers.weight_volume)


def latency_s(layers: Layers, array: BitSerial) -> Column:
    """Seconds of one batch, (...) of what the columns are (..., layers)."""
    seconds: Column = np.sum(cycles(layers, array), axis=-1) / array.clock_hz
    return seconds
