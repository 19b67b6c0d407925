"""A packed file takes the bits that are declared, gives back what was packed, and refuses what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load

from search_spaces.costs import size_bytes
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import CODEBOOK_BITS, WEIGHT_BITS, Precision
from tests.random_networks import networks
from workers.fold import fold_batch_norms
from workers.packed_weights import pack_weights, unpack_weights
from workers.testing import random_weights
from workers.weight_grids import quantise_weights
from workers.weights import Weights, WeightsError
from workers.weights_file import weights_as_bytes

PRECISIONS = [Precision(bits, 32) for bits in WEIGHT_BITS] + [Precision(bits, 32, True) for bits in CODEBOOK_BITS]
FEW = settings(max_examples=40, deadline=None)


def one_linear(weight: np.ndarray, precision: Precision) -> tuple[Network, Weights]:
    nodes = (
        Node("image", Op.INPUT),
        Node("flat", Op.FLATTEN, ("image",)),
        Node("layer", Op.LINEAR, ("flat",), len(weight), precision=precision),
    )
    contract = InputContract((weight.shape[1], 1, 1), (0.0,) * weight.shape[1], (1.0,) * weight.shape[1])
    return Network("one", contract, nodes, "layer"), {"layer.weight": weight}


@FEW
@given(networks(), st.data())
def test_what_is_unpacked_is_what_was_packed(network: Network, data: st.DataObject) -> None:
    chosen = {
        node.name: replace(node, precision=data.draw(st.sampled_from(PRECISIONS))) for node in network.compute_nodes()
    }
    folded, weights = fold_batch_norms(network.with_nodes(chosen), random_weights(network))
    rounded = quantise_weights(folded, weights)
    unpacked = unpack_weights(pack_weights(folded, rounded, {"espalier.note": "kept"}))
    assert unpacked.keys() == rounded.keys()
    bits = {f"{layer.name}.weight": layer.precision.weight_bits for layer in folded.compute_nodes()}
    for name, array in rounded.items():
        np.testing.assert_allclose(unpacked[name], array, rtol=2e-7 if bits.get(name) == 16 else 0, err_msg=name)


@FEW
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-4, 4, width=32)),
    st.sampled_from(PRECISIONS),
)
def test_any_weights_survive(weight: np.ndarray, precision: Precision) -> None:
    network, weights = one_linear(weight, precision)
    rounded = quantise_weights(network, weights)
    unpacked = unpack_weights(pack_weights(network, rounded))
    np.testing.assert_allclose(unpacked["layer.weight"], rounded["layer.weight"], rtol=2e-7, atol=0)
    assert np.isfinite(unpacked["layer.weight"]).all()


def test_the_same_weights_are_packed_into_the_same_bytes() -> None:
    network, weights = one_linear(np.ones((2, 5), np.float32), Precision(2, 8))
    notes = {f"espalier.{number}": "note" for number in range(9)}
    assert len({pack_weights(network, weights, notes) for _ in range(5)}) == 1


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p.weight_bits < 32], ids=str)
def test_arrays_take_the_payload_that_was_told(precision: Precision) -> None:
    weight = np.random.default_rng(0).standard_normal((9, 31)).astype(np.float32)
    network, weights = one_linear(weight, precision)
    packed = load(pack_weights(network, quantise_weights(network, weights)))
    assert sum(array.nbytes for array in packed.values()) == size_bytes(network)


def test_four_bits_lie_low_half_first() -> None:
    network, weights = one_linear(np.array([[-7, 7, 0, 1, -1]], np.float32), Precision(4, 8))
    packed = load(pack_weights(network, weights))
    assert packed["layer.weight"].tolist() == [0xE0, 0x87, 0x06]
    assert packed["layer.weight.scale"].tolist() == [1.0]


def test_weights_off_their_grid_are_not_rounded_in_passing() -> None:
    network, weights = one_linear(np.array([[1.0, 0.3, -0.7]], np.float32), Precision(4, 8))
    with pytest.raises(WeightsError, match=r"layer\.weight is not on the grid of w4a8; quantise it first"):
        pack_weights(network, weights)


def packed_file() -> bytes:
    network, weights = one_linear(np.ones((2, 5), np.float32), Precision(2, 8))
    return pack_weights(network, weights)


def changed(**metadata: str) -> bytes:
    table = {"layer.weight": {"bits": 2, "shape": [2, 5], "form": "grid"}}
    own = {"espalier.packed": "1", "espalier.weights": json.dumps(table)} | metadata
    return weights_as_bytes(load(packed_file()), own)


def said_to_be(bits: int, shape: list[int], form: str = "grid") -> bytes:
    return changed(**{"espalier.weights": json.dumps({"layer.weight": {"bits": bits, "shape": shape, "form": form}})})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header is not all there"),
        (packed_file()[:-3], "no whole safetensors file"),
        (b"\xff" * 40, "header is not all there"),
        ((2).to_bytes(8, "little") + b"[]", "header is not JSON"),
        ((2).to_bytes(8, "little") + b"{}", "version None"),
        (changed(**{"espalier.packed": "7"}), "version '7'; version 1 can be read"),
        (changed(**{"espalier.weights": "{"}), "Invalid JSON"),
        (changed(**{"espalier.weights": "{}"}), r"layer\.weight is uint8, and not said to be packed"),
        (said_to_be(2, [2, 99]), r"layer\.weight must be uint8 \(50,\), not uint8 \(3,\)"),
        (said_to_be(2, [2**32, 2**32]), r"layer\.weight\.scale must be float32"),
        (said_to_be(99, [2, 5]), "bits of a grid are one of 1, 2, 3, 4, 5, 6, 7, 8, 16, not 99"),
        (said_to_be(16, [2, 5], "codebook"), "bits of a codebook are one of 1, 2, 3, 4, 5, 6, 7, 8, not 16"),
        (said_to_be(2, [2, 5], "codebook"), r"layer\.weight\.codebook must be float32 \(4,\), not missing"),
    ],
)
def test_hostile_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        unpack_weights(data)
