"""Models of accelerators: against published shares, closed forms, and what every cost must keep."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from search_spaces.accelerators import bit_fusion, bit_serial, roofline
from search_spaces.accelerators.layers import layers_of
from search_spaces.accelerators.models import MODELS, simulate
from search_spaces.accelerators.operators import operators_of
from search_spaces.catalog import build_network
from search_spaces.costs import macs, parameters
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import Precision
from search_spaces.spec import Family, NetworkSpec


def imagenet(family: Family) -> Network:
    return build_network(NetworkSpec(family=family, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)


def in_bits(network: Network, weight_bits: int, activation_bits: int, *, ends: bool = False) -> Network:
    """Everywhere, but for the first and the last layer, which stay at 8 unless `ends`."""
    layers = network.compute_nodes()
    kept = set() if ends else {layers[0].name, layers[-1].name}
    return network.with_nodes(
        {
            layer.name: replace(
                layer, precision=Precision(8, 8) if layer.name in kept else Precision(weight_bits, activation_bits)
            )
            for layer in layers
        }
    )


def one_layer(inputs: int, outputs: int, side: int, kernel: int = 1, groups: int = 1, bits: int = 8) -> Network:
    padding = (kernel // 2,) * 4
    conv = Node("conv", Op.CONV, ("input",), outputs, (kernel, kernel), padding=padding, groups=groups)
    nodes = (Node("input", Op.INPUT), replace(conv, precision=Precision(bits, bits)))
    return Network("one", InputContract((inputs, side, side), (0.5,) * inputs, (0.5,) * inputs), nodes, "conv")


@pytest.mark.parametrize("family", [Family.MOBILENET_V1, Family.RESNEXT_50, Family.RESNET_18])
def test_columns_are_the_networks_own_counts(family: Family) -> None:
    network = imagenet(family)
    layers = layers_of(network)
    assert layers.macs.sum() == macs(network)
    assert layers.weights.sum() == parameters(network)


class TestBitSerial:
    """HAQ's table of a MobileNet-V2 with 100 classes at batch 16: 39,624,933 cycles at 8 bits, and shares of it."""

    @staticmethod
    def published_network() -> Network:
        spec = NetworkSpec(family=Family.MOBILENET_V2, input=(3, 224, 224))
        return build_network(spec, 100, (0.5,) * 3, (0.5,) * 3)

    def cycles(self, weight_bits: int, activation_bits: int, *, ends: bool = False) -> dict[str, float]:
        layers = layers_of(in_bits(self.published_network(), weight_bits, activation_bits, ends=ends))
        return dict(zip(layers.names, bit_serial.cycles(layers, bit_serial.CLOUD), strict=True))

    def share(self, weight_bits: int, activation_bits: int, *, ends: bool = False) -> float:
        found, all_8 = self.cycles(weight_bits, activation_bits, ends=ends), self.cycles(8, 8)
        return sum(found.values()) / sum(all_8.values())

    @pytest.mark.parametrize(("bits", "published"), [(4, 0.418), (5, 0.544), (6, 0.683), (7, 0.835)])
    def test_uniform_bits_take_the_published_share(self, bits: int, published: float) -> None:
        assert self.share(bits, bits) == pytest.approx(published, rel=0.01)

    @pytest.mark.parametrize(("bits", "published"), [((8, 4), 0.506), ((4, 8), 0.788)])
    def test_so_do_mixed_bits(self, bits: tuple[int, int], published: float) -> None:
        assert self.share(*bits, ends=True) == pytest.approx(published, rel=0.01)

    def test_the_whole_takes_the_published_cycles(self) -> None:
        assert sum(self.cycles(8, 8).values()) == pytest.approx(39_624_933, rel=0.03)

    @pytest.mark.parametrize(
        ("layer", "published", "within"),
        [
            ("stem", 1_620_752, 0.01),
            ("block2.expand", 4_860_688, 0.01),
            ("block4.depthwise", 904_176, 0.01),
            ("block7.project", 57_456, 0.08),
            ("block11.depthwise", 617_088, 0.03),
            ("block14.depthwise", 262_080, 0.15),
            ("block17.project", 340_080, 0.15),
            ("head", 667_872, 0.11),
            ("classifier", 40_021, 0.17),
        ],
    )
    def test_layers_on_large_maps_take_what_is_published_and_small_ones_about(
        self, layer: str, published: int, within: float
    ) -> None:
        assert self.cycles(8, 8)[layer] == pytest.approx(published, rel=within)

    def test_fewer_bits_never_take_longer(self) -> None:
        network = imagenet(Family.MOBILENET_V1)
        taken = [
            [bit_serial.latency_s(layers_of(in_bits(network, w, a, ends=True)), bit_serial.EDGE) for w in range(2, 9)]
            for a in range(2, 9)
        ]
        assert (np.diff(taken, axis=0) > 0).all()
        assert (np.diff(taken, axis=1) >= 0).all()


class TestBitFusion:
    @pytest.mark.parametrize(
        ("bits", "factor"),
        [((8, 8), 1), ((6, 6), 1), ((4, 4), 4), ((2, 2), 16), ((2, 8), 4), ((1, 1), 16), ((4, 8), 2)],
    )
    def test_units_come_apart(self, bits: tuple[int, int], factor: int) -> None:
        weights, activations = (np.array([float(one)]) for one in bits)
        assert bit_fusion.speed_factor(weights, activations).tolist() == [factor]

    def test_a_full_array_multiplies_in_every_unit(self) -> None:
        layers = layers_of(one_layer(inputs=64, outputs=64, side=8))
        found = bit_fusion.LayerFigures(layers, bit_fusion.EDGE)
        assert found.compute_cycles.tolist() == [64 * (64 / 16) * (64 / 32)]
        assert found.utilisation.tolist() == [1.0]

    def test_a_depthwise_layer_leaves_most_of_it_idle(self) -> None:
        layers = layers_of(one_layer(inputs=64, outputs=64, side=8, kernel=3, groups=64))
        (used,) = bit_fusion.LayerFigures(layers, bit_fusion.EDGE).utilisation
        assert used == pytest.approx(9 / (16 * 32))

    def test_six_bits_are_no_faster_than_eight_and_four_are(self) -> None:
        network = imagenet(Family.MOBILENET_V1)
        by_bits = {
            bits: bit_fusion.LayerFigures(layers_of(in_bits(network, bits, bits)), bit_fusion.EDGE)
            for bits in (8, 6, 4)
        }
        assert by_bits[6].compute_cycles.sum() == by_bits[8].compute_cycles.sum()
        assert by_bits[4].cycles.sum() < by_bits[6].cycles.sum()
        assert by_bits[4].energy_j.sum() < by_bits[6].energy_j.sum() < by_bits[8].energy_j.sum()

    def test_more_work_takes_longer_and_costs_more(self) -> None:
        found = [
            bit_fusion.LayerFigures(layers_of(one_layer(channels, channels, 16)), bit_fusion.EDGE)
            for channels in (16, 32, 64, 128, 256, 512)
        ]
        assert (np.diff([one.cycles.sum() for one in found]) > 0).all()
        assert (np.diff([one.energy_j.sum() for one in found]) > 0).all()

    def test_what_fits_no_buffer_waits_for_the_memory(self) -> None:
        layers = layers_of(one_layer(inputs=4096, outputs=4096, side=1))
        found = bit_fusion.LayerFigures(layers, bit_fusion.EDGE)
        assert found.memory_cycles[0] > found.compute_cycles[0]
        assert found.cycles[0] == found.memory_cycles[0]


class TestRoofline:
    def test_a_wide_layer_takes_its_arithmetic_and_a_thin_one_its_traffic(self) -> None:
        chip = roofline.CHIPS["p100"]
        wide = one_layer(inputs=1024, outputs=1024, side=64, bits=32)
        latency_s, _ = roofline.cost(operators_of(wide), chip)
        assert latency_s == pytest.approx(roofline.KERNEL_START_S + macs(wide) / (9.3e12 / 2))
        thin = one_layer(inputs=1024, outputs=1024, side=64, kernel=3, groups=1024, bits=32)
        moved_bytes = 4 * (2 * 1024 * 64 * 64 + 1024 * 9)
        assert roofline.cost(operators_of(thin), chip)[0] == pytest.approx(
            roofline.KERNEL_START_S + moved_bytes / 732e9
        )

    @pytest.mark.parametrize("chip", sorted(roofline.CHIPS))
    def test_a_board_draws_between_idle_power_and_its_limit(self, chip: str) -> None:
        peaks = roofline.CHIPS[chip]
        for network in (imagenet(Family.MOBILENET_V1), one_layer(1024, 1024, 64, bits=32)):
            latency_s, energy_j = roofline.cost(operators_of(network), peaks)
            assert roofline.IDLE_SHARE * peaks.board_w < energy_j / latency_s < peaks.board_w

    @pytest.mark.parametrize("chip", ["p4000", "v100", "t4", "a100", "h100"])
    def test_integers_are_no_slower_and_cost_less(self, chip: str) -> None:
        network = imagenet(Family.RESNET_18)
        of_floats, of_integers = (
            roofline.cost(operators_of(one), roofline.CHIPS[chip]) for one in (network, in_bits(network, 8, 8))
        )
        assert of_integers[0] < of_floats[0]
        assert of_integers[1] < of_floats[1]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_network_of_28_layers_is_simulated_within_a_millisecond(name: str) -> None:
    network = imagenet(Family.MOBILENET_V1)
    assert len(network.compute_nodes()) == 28
    if "w8a8" in MODELS[name].capabilities.precisions:
        network = in_bits(network, 8, 8)
    seconds = []
    for _ in range(30):
        start = perf_counter()
        simulate(name, network)
        seconds.append(perf_counter() - start)
    assert min(seconds) < 1e-3  # the least: other things run on this machine
