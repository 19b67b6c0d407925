"""The simulated devices that are closed forms, by name: what each says of itself, and what it tells of a network.

Both workers and the service compute with these, in well under a millisecond for a network of some ten layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from search_spaces.accelerators import bit_fusion, bit_serial, roofline
from search_spaces.accelerators.layers import NOT_CODED, Column, Layers, layers_of
from search_spaces.accelerators.operators import Operators, operators_of
from search_spaces.capabilities import DeviceCapabilities, TensorFormat
from search_spaces.costs import memory_bytes
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.precision import Precision

MODEL_VERSION = "1"
"""Raised whenever any of the models tells another figure: older ones then no longer compare."""

LOW_BITS = (8, 7, 6, 5, 4, 3, 2)
MIXED_PRECISIONS = tuple(str(Precision(weights, inputs)) for weights in LOW_BITS for inputs in LOW_BITS)
"""All pairs from 8 to 2 bits; w8a8 is first, since that is what the base is told in."""

WEIGHTS = TensorFormat(dtype="int", symmetric=True, granularity="channel")
ACTIVATIONS = TensorFormat(dtype="int", symmetric=False, granularity="tensor")
Figures = dict[Metric, float]
Told = Callable[[], Column]
"""Computes one metric, (...) of what the columns are (..., layers or operators)."""


class Columns(Protocol):
    """A network as the models see it, or several of one graph, stacked in front."""

    @property
    def layers(self) -> Layers: ...

    @property
    def operators(self) -> Operators: ...

    @property
    def memory_bytes(self) -> Column:
        """All weights, and the most that is alive of tensors at once."""
        ...


@dataclass(frozen=True)
class Model:
    """A simulated device: `figures` tells exactly the metrics of `capabilities`, for one inference of each network.

    A metric costs what it takes to compute only where it is asked for: agents ask for one, thousands of times.
    """

    capabilities: DeviceCapabilities
    figures: Callable[[Columns], Mapping[Metric, Told]]

    @cached_property
    def executed(self) -> frozenset[str]:
        return frozenset(self.capabilities.precisions)


def simulate(name: str, network: Network, coded: Mapping[str, float] = NOT_CODED) -> Figures:
    """What one inference takes on a simulated device: its metrics, in their own units.

    Args:
        name: of the device.
        network: as it is deployed.
        coded: mean bits that a value of a coded activation map takes in memory, by its tensor. Where a model counts
            traffic, energy and latency are those of the coded maps, and codecs themselves take nothing.

    Raises:
        KeyError: no model has that name.
        ValueError: the network has no layer, or one in a precision that the device does not execute.
    """
    model = MODELS[name]
    layers = network.compute_nodes()
    if not layers:
        raise ValueError(f"{name} models convolutions and linear layers; the network has none")
    for layer in layers:
        if str(layer.precision) not in model.executed:
            raise ValueError(
                f"layer {layer.name!r} is in {layer.precision}, which {name} does not execute: "
                f"choose from {_brief(model.capabilities.precisions)}"
            )
    return {metric: float(told()) for metric, told in model.figures(_OneNetwork(network, coded)).items()}


@dataclass(frozen=True)
class _OneNetwork:
    network: Network
    coded: Mapping[str, float]

    @property
    def layers(self) -> Layers:
        return layers_of(self.network, self.coded)

    @property
    def operators(self) -> Operators:
        return operators_of(self.network, self.coded)

    @property
    def memory_bytes(self) -> Column:
        return np.array(memory_bytes(self.network), dtype=np.float64)


def _brief(precisions: tuple[str, ...]) -> str:
    return "w2a2 to w8a8" if precisions == MIXED_PRECISIONS else ", ".join(precisions)


def _bit_fusion(size: str, array: bit_fusion.BitFusion) -> Model:
    def figures(columns: Columns) -> Mapping[Metric, Told]:
        found = bit_fusion.LayerFigures(columns.layers, array)
        return {
            Metric.LATENCY_S: lambda: found.cycles.sum(axis=-1) / array.clock_hz,
            Metric.ENERGY_J: lambda: found.energy_j.sum(axis=-1),
            Metric.MEMORY_BYTES: lambda: columns.memory_bytes,
        }

    capabilities = _mixed(
        f"bit-fusion-{size}",
        f"a model of Bit Fusion (ISCA 2018), {array.rows} x {array.columns} units at {array.clock_hz / 1e6:g} MHz; "
        "energy is of array, buffers and memory, without leakage; nothing is counted between layers",
        # A dot product fills the rows in multiples of these; of the columns a last pass may leave half idle.
        channel_divisor=array.rows,
        metrics=(Metric.LATENCY_S, Metric.ENERGY_J, Metric.MEMORY_BYTES),
    )
    return Model(capabilities, figures)


def _bit_serial(size: str, array: bit_serial.BitSerial) -> Model:
    def figures(columns: Columns) -> Mapping[Metric, Told]:
        return {Metric.LATENCY_S: lambda: bit_serial.latency_s(columns.layers, array)}

    images = "an image" if array.batch == 1 else f"a batch of {array.batch} images, which is one inference here"
    capabilities = _mixed(
        f"bit-serial-{size}",
        f"a model of bit-serial matrix multiplication as in BISMO (FPL 2018); latency is of {images}",
        channel_divisor=int(array.depthwise_lanes),  # what a depthwise layer takes in at a time
        metrics=(Metric.LATENCY_S,),
        unavailable={
            Metric.ENERGY_J: "nobody has published the energy of this hardware",
            Metric.MEMORY_BYTES: "nobody has published how this hardware holds tensors",
        },
        batch=array.batch,
        batches=(array.batch,),
    )
    return Model(capabilities, figures)


def _roofline(chip: str, peaks: roofline.Roofline) -> Model:
    def figures(columns: Columns) -> Mapping[Metric, Told]:
        latency_s, energy_j = roofline.cost(columns.operators, peaks)
        return {
            Metric.LATENCY_S: lambda: latency_s,
            Metric.ENERGY_J: lambda: energy_j,
            Metric.MEMORY_BYTES: lambda: columns.memory_bytes,
        }

    has_integers = peaks.integer_macs_per_s is not None
    capabilities = DeviceCapabilities(
        name=f"roofline-{chip}",
        description=f"a lower bound from peak figures, no measurement: {peaks.source}; "
        "how power divides and what a kernel's start takes are assumptions",
        precisions=("fp32", "w8a8") if has_integers else ("fp32",),
        weights=TensorFormat(dtype="int8", symmetric=True, granularity="channel") if has_integers else None,
        activations=TensorFormat(dtype="int8", symmetric=True, granularity="tensor") if has_integers else None,
        precision_scope="layer",
        channel_divisor=4,  # values of a four-byte word, or floats of the widest load; the bound itself is smooth
        metrics=(Metric.LATENCY_S, Metric.ENERGY_J, Metric.MEMORY_BYTES),
        fingerprint={"model": f"roofline-{chip}", "version": MODEL_VERSION},
        simulated=True,
    )
    return Model(capabilities, figures)


def _mixed(
    name: str,
    description: str,
    channel_divisor: int,
    metrics: tuple[Metric, ...],
    unavailable: Mapping[Metric, str] | None = None,
    batch: int = 1,
    batches: tuple[int, ...] = (1,),
) -> DeviceCapabilities:
    """What the accelerators have in common whose bits are free in every layer."""
    return DeviceCapabilities(
        name=name,
        description=description,
        precisions=MIXED_PRECISIONS,
        weights=WEIGHTS,
        activations=ACTIVATIONS,
        precision_scope="layer",
        separate_bits=True,
        channel_divisor=channel_divisor,
        metrics=metrics,
        unavailable=dict(unavailable or {}),
        batch=batch,
        batches=batches,
        fingerprint={"model": name, "version": MODEL_VERSION},
        simulated=True,
    )


_ALL = (
    _bit_fusion("edge", bit_fusion.EDGE),
    _bit_fusion("server", bit_fusion.SERVER),
    _bit_serial("cloud", bit_serial.CLOUD),
    _bit_serial("edge", bit_serial.EDGE),
    *(_roofline(chip, peaks) for chip, peaks in roofline.CHIPS.items()),
)
MODELS: Mapping[str, Model] = {model.capabilities.name: model for model in _ALL}


def is_everywhere(device: DeviceCapabilities) -> bool:
    """Whether any worker has it: closed forms come with Espalier, other models need a package or a folder."""
    return device.simulated and device.name in MODELS
