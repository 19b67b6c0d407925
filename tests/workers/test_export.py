"""What is counted of a stored file is its own, and a file that is not what was declared is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from search_spaces.costs import parameters, size_bytes
from search_spaces.network import InputContract, Network, Node, Op
from search_spaces.precision import FP32, W8A8, Precision
from workers.calibrate import calibrate
from workers.export import FileMismatchError, recount
from workers.onnx_writer import write_onnx
from workers.weights import init_weights


def network_in(precision: Precision) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("conv", Op.CONV, ("image",), 8, (3, 3), padding=(1, 1, 1, 1), bias=True, precision=precision),
        Node("relu", Op.RELU, ("conv",)),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("relu",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flat",), 3, bias=True, precision=precision),
    )
    return Network("small", InputContract((2, 6, 6), (0.0,) * 2, (1.0,) * 2), nodes, "classifier")


def file_of(network: Network) -> bytes:
    weights = init_weights(network, seed=1)
    images = np.random.default_rng(0).standard_normal((8, 2, 6, 6)).astype(np.float32)
    return write_onnx(network, weights, calibrate(network, weights, images))


@pytest.mark.parametrize(
    "precision",
    [FP32, W8A8, Precision(4, 8), Precision(2, 8), Precision(1, 4), Precision(3, 32), Precision(2, 32, True)],
    ids=str,
)
def test_a_files_own_arrays_add_up_to_what_was_computed_from_the_design(precision: Precision) -> None:
    network = network_in(precision)

    counted = recount(network, file_of(network))

    assert counted == {"parameters": parameters(network), "size_bytes": size_bytes(network)}


def test_a_file_in_more_bits_than_declared_is_refused() -> None:
    with pytest.raises(FileMismatchError, match=r"'conv' is stored as float32 of .* values, declared w8a8"):
        recount(network_in(W8A8), file_of(network_in(FP32)))


def test_a_file_that_lacks_a_layer_is_refused() -> None:
    network = network_in(FP32)
    model = onnx.ModelProto.FromString(file_of(network))
    kept = [array for array in model.graph.initializer if array.name != "conv.weight"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)

    with pytest.raises(FileMismatchError, match="no weights of 'conv'"):
        recount(network, model.SerializeToString())


@pytest.mark.parametrize(
    "precision", [Precision(4, 8), Precision(1, 8), Precision(4, 32), Precision(2, 32, True)], ids=str
)
def test_one_weight_off_the_declared_grid_is_found(precision: Precision) -> None:
    network = network_in(precision)
    model = onnx.ModelProto.FromString(file_of(network))
    array = next(array for array in model.graph.initializer if array.name == "conv.weight")
    values = onnx.numpy_helper.to_array(array).copy()
    values.reshape(-1)[5] = 11 if values.dtype == np.int8 else values.reshape(-1)[5] * np.float32(1.001) + 1e-3
    array.CopyFrom(onnx.numpy_helper.from_array(values, "conv.weight"))

    with pytest.raises(FileMismatchError, match=f"'conv' is stored as {values.dtype} of .* declared {precision}"):
        recount(network, model.SerializeToString())
