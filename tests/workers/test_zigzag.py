"""Accelerators by ZigZag: the contract on one of an operator's own, published figures, bits, and what is remembered."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces.catalog import build_network
from search_spaces.costs import macs
from search_spaces.network import InputContract, Network, Node, Op, in_precision
from search_spaces.objectives import Metric
from search_spaces.precision import FP32, W8A8, Precision
from search_spaces.spec import Family, NetworkSpec
from service.config import get_settings
from workers.hardware import absent_devices, installed_devices, open_device, zigzag
from workers.hardware.base import Deployed, Device
from workers.hardware.testing import DeviceContract, small_network
from workers.hardware.zigzag import Zigzag, layer_figures
from workers.hardware.zigzag_descriptions import DESCRIPTIONS, Description, read_folder
from workers.hardware.zigzag_layers import layer_digest, zigzag_layers

TINY = Path(__file__).parent / "assets" / "accelerators" / "tiny"


def flat(*features: int, precision: Precision = W8A8) -> Network:
    """Linear layers only, the first of four inputs: ZigZag maps them in milliseconds."""
    layers = [
        Node(f"layer{number}", Op.LINEAR, (f"layer{number - 1}" if number else "flatten",), count, precision=precision)
        for number, count in enumerate(features)
    ]
    nodes = (Node("input", Op.INPUT), Node("flatten", Op.FLATTEN, ("input",)), *layers)
    return Network("flat", InputContract((4, 1, 1), (0.5,) * 4, (0.5,) * 4), nodes, layers[-1].name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder for what is remembered, with the accelerators beside this file."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_HOME", str(folder))
        patch.setenv("ESPALIER_ACCELERATORS", str(TINY.parent))
        _forget()
        yield folder
    _forget()


def _forget() -> None:
    get_settings.cache_clear()
    installed_devices.cache_clear()


@pytest.mark.usefixtures("home")
class TestTiny(DeviceContract):
    def make_device(self) -> Device:
        return open_device("zigzag-tiny", installed_devices())

    def precisions_tried(self, device: Device) -> tuple[str, ...]:
        return device.capabilities().precisions[:1]


class TestPublished:
    """ResNet-18 on the accelerator like the first TPU: two of its layers, of 21.

    ZigZag's own regression value, of 3.8.5, is 1,871,436,380.66 pJ and 3,703,960.5 cycles. 3.9.1 gives the same energy
    and 3,865,041 cycles: 1,273 more because results take a cycle for each unit to leave a systolic array, 159,807.5
    because what the memory's port has left shortens the loading of one operand after the other, no longer of all
    evenly. `benchmarks/zigzag_golden.py` prints the whole.
    """

    def test_layers_take_what_they_take_from_its_own_file(self, tmp_path: Path) -> None:
        network = build_network(NetworkSpec(family=Family.RESNET_18, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)
        by_loops = {tuple(one["loop_sizes"]): one for one in zigzag_layers(in_precision(network, W8A8))}
        shortcut, classifier = by_loops[1, 512, 1, 7, 7, 256, 1, 1], by_loops[512, 1, 1000]
        classifier["operand_precision"]["O_final"] = 8  # as its file has it; ours are the bits that readers want
        found = layer_figures([shortcut, classifier], DESCRIPTIONS["zigzag-tpu-like"](), tmp_path)
        assert [one.energy_pj for one in found] == pytest.approx([16_507_176.352, 45_108_639.12])
        assert [one.cycles for one in found] == [19_583, 63_739]


def free_memory(tmp_path: Path) -> Description:
    """The small accelerator, with memories that cost nothing."""
    folder = tmp_path / "free"
    shutil.copytree(TINY, folder)
    lines = (folder / "hardware.yaml").read_text().splitlines()
    free = [line.split(":")[0] + ": 0" if "_cost:" in line else line for line in lines]
    (folder / "hardware.yaml").write_text("\n".join(free))
    return read_folder(folder)


def test_a_multiplication_costs_by_the_bits_of_both_operands(tmp_path: Path) -> None:
    description, all_bits = free_memory(tmp_path), [(8, 8), (4, 8), (8, 4), (2, 2)]
    networks = [flat(16, precision=Precision(*bits)) for bits in all_bits]
    found = layer_figures([zigzag_layers(network)[0] for network in networks], description, tmp_path)
    expected = [0.1 * macs(network) * w * a / 64 for network, (w, a) in zip(networks, all_bits, strict=True)]
    assert [one.energy_pj for one in found] == pytest.approx(expected)


def test_a_conv_is_described_by_its_loops() -> None:
    conv = Node("conv", Op.CONV, ("input",), 8, (3, 5), (1, 2), (1, 2, 3, 4), groups=2, precision=Precision(4, 6))
    network = Network("one", InputContract((4, 9, 11), (0.5,) * 4, (0.5,) * 4), (Node("input", Op.INPUT), conv), "conv")
    (layer,) = zigzag_layers(network)
    loops = dict(zip(layer["loop_dims"], layer["loop_sizes"], strict=True))
    assert loops == {"B": 1, "K": 4, "G": 2, "OX": 7, "OY": 11, "C": 2, "FX": 5, "FY": 3}
    assert layer["dimension_relations"] == ["ix=2*ox+1*fx", "iy=1*oy+1*fy"]
    assert layer["padding"] == [[2, 4], [1, 3]]
    assert layer["pr_loop_sizes"] == [11, 9]
    assert layer["operand_precision"] == {"W": 4, "I": 6, "O": 10, "O_final": 10}


def test_the_figures_are_the_sums_over_layers_at_the_stated_clock(home: Path) -> None:
    network = flat(4, 4, 4, 8)
    results = open_device("zigzag-tiny", installed_devices()).measure(Deployed(network))
    layers = layer_figures(zigzag_layers(network), read_folder(TINY), home / "zigzag")
    assert results[Metric.LATENCY_S].median == pytest.approx(sum(one.cycles for one in layers) / 100e6)
    assert results[Metric.ENERGY_J].median == pytest.approx(sum(one.energy_pj for one in layers) * 1e-12)
    assert results[Metric.ENERGY_J].protocol["clock_hz"] == "1e+08"


def test_equal_layers_are_looked_at_once_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_bits = [Precision(8, 8), Precision(8, 8), Precision(4, 4), Precision(2, 2)]
    layers = [zigzag_layers(flat(64, precision=precision))[0] for precision in all_bits]
    found = layer_figures(layers, read_folder(TINY), tmp_path)
    assert found[0] == found[1]
    assert found[1].energy_pj > found[2].energy_pj > found[3].energy_pj
    assert found[1].cycles > found[2].cycles > found[3].cycles
    assert len(list(tmp_path.rglob("*.json"))) == 3
    monkeypatch.setattr(zigzag.sys, "executable", "/bin/false")
    assert layer_figures(layers, read_folder(TINY), tmp_path) == found


def test_what_is_remembered_badly_is_found_again(home: Path) -> None:
    layers, folder = zigzag_layers(flat(4)), home / "zigzag"
    first = layer_figures(layers, read_folder(TINY), folder)
    path = folder / read_folder(TINY).digest / f"{layer_digest(layers[0])}.json"
    path.write_text('{"energy_pj": 1')
    assert layer_figures(layers, read_folder(TINY), folder) == first


def test_another_description_is_another_accelerator(tmp_path: Path) -> None:
    assert free_memory(tmp_path).digest != read_folder(TINY).digest


def test_a_program_that_dies_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho out of memory >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(zigzag.sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="ended early: out of memory"):
        layer_figures(zigzag_layers(flat(4)), read_folder(TINY), tmp_path)


def test_a_description_that_zigzag_refuses_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(TINY, folder)
    text = (folder / "hardware.yaml").read_text()
    (folder / "hardware.yaml").write_text(text.replace("sizes: [4, 4]", "sizes: [4, many]"))
    with pytest.raises(ValueError, match=r"ZigZag cannot map a layer to this accelerator: .*sizes"):
        layer_figures(zigzag_layers(flat(4)), read_folder(folder), tmp_path)


def test_arrays_that_compute_in_memory_are_refused(tmp_path: Path) -> None:
    shipped = DESCRIPTIONS["zigzag-tpu-like"]()
    inside = replace(shipped, hardware=shipped.hardware.with_name("dimc.yaml"), mapping=None)
    with pytest.raises(ValueError, match="compute in memory are not modelled"):
        layer_figures(zigzag_layers(flat(4)), inside, tmp_path)


@pytest.mark.parametrize(
    ("precision", "message"), [(FP32, "is in fp32, which zigzag-tiny does not execute: choose from w2a2 to w8a8")]
)
def test_a_layer_in_another_precision_is_named(precision: Precision, message: str) -> None:
    device = Zigzag("zigzag-tiny", lambda: read_folder(TINY))
    with pytest.raises(ValueError, match=f"'first' {message}"):
        device.measure(Deployed(small_network(precision)))


class TestOwn:
    """What is wrong with an operator's files is told; the other devices go on."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        shutil.copytree(TINY, tmp_path / "tiny")
        monkeypatch.setenv("ESPALIER_ACCELERATORS", str(tmp_path))
        _forget()
        yield tmp_path / "tiny"
        monkeypatch.undo()
        _forget()

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [
            ("device.yaml", "description: no clock", "device.yaml: clock_hz: Field required"),
            ("device.yaml", "clock_hz: -1", "clock_hz: Input should be greater than 0"),
            ("device.yaml", "clock_hz: 1e9\nclok_hz: 2", "clok_hz: Extra inputs are not permitted"),
            ("device.yaml", "- 1", "device.yaml: the file: "),
            ("hardware.yaml", "name: [", "its description cannot be read"),
            ("hardware.yaml", "name: tiny", "hardware.yaml lacks name, memories or operational_array"),
            ("mapping.yaml", "default: {}", "mapping.yaml is no list of mappings"),
        ],
    )
    def test_a_file_that_is_wrong(self, folder: Path, name: str, text: str, reason: str) -> None:
        assert "zigzag-tiny" not in absent_devices()
        (folder / name).write_text(text)
        assert reason in absent_devices()["zigzag-tiny"]

    def test_a_file_that_is_missing(self, folder: Path) -> None:
        (folder / "hardware.yaml").unlink()
        assert "No such file" in absent_devices()["zigzag-tiny"]

    def test_a_name_that_is_none_is_left_out(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder.rename(folder.with_name("Tiny one"))
        with caplog.at_level(logging.WARNING):
            assert not [name for name in installed_devices() if "iny" in name]
        assert "accelerator 'Tiny one' is left out" in caplog.text
