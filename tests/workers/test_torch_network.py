import numpy as np
import pytest
import torch

from search_spaces.catalog import build_network
from search_spaces.network import InputContract, Network, Node, Op, infer_shapes
from search_spaces.spec import Family, NetworkSpec
from workers.torch_network import build_module, read_weights
from workers.weights import WeightsError, init_weights
from workers.weights_file import load_weights, save_weights

IMAGE = InputContract((4, 6, 6), (0.0,) * 4, (1.0,) * 4)


def compute(
    *nodes: Node, weights: dict[str, np.ndarray] | None = None, x: np.ndarray, train: bool = False
) -> np.ndarray:
    contract = InputContract(x.shape[1:], (0.0,) * x.shape[1], (1.0,) * x.shape[1])
    network = Network("one", contract, (Node("x", Op.INPUT), *nodes), nodes[-1].name)
    module = build_module(network, weights or {}).train(train)
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    assert y.shape[1:] == infer_shapes(network)[network.output]
    return y


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 4, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_conv_is_the_sum_over_its_window_and_group(x, groups, padding, stride):
    generator = np.random.default_rng(1)
    kernel = generator.standard_normal((8, 4 // groups, 3, 2)).astype(np.float32)
    bias = generator.standard_normal(8).astype(np.float32)
    node = Node("c", Op.CONV, ("x",), 8, (3, 2), stride, padding, groups, bias=True)

    y = compute(node, weights={"c.weight": kernel, "c.bias": bias}, x=x)

    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    inputs, outputs = 4 // groups, 8 // groups
    for channel, row, column in np.ndindex(*y.shape[1:]):
        first = channel // outputs * inputs
        window = padded[
            :,
            first : first + inputs,
            row * stride[0] : row * stride[0] + 3,
            column * stride[1] : column * stride[1] + 2,
        ]
        expected = (window * kernel[channel]).sum((1, 2, 3)) + bias[channel]
        np.testing.assert_allclose(y[:, channel, row, column], expected, atol=1e-4)


def test_linear_multiplies_the_flattened_map_in_channel_row_column_order(x):
    kernel = np.random.default_rng(1).standard_normal((5, 144)).astype(np.float32)
    nodes = Node("f", Op.FLATTEN, ("x",)), Node("l", Op.LINEAR, ("f",), 5)
    y = compute(*nodes, weights={"l.weight": kernel}, x=x)
    np.testing.assert_allclose(y, x.reshape(3, 144) @ kernel.T, atol=1e-4)


def batch_norm_weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"n.{part}": generator.uniform(0.5, 2, 4).astype(np.float32) for part in parts}


def test_batch_norm_uses_running_statistics_in_evaluation(x):
    weights = batch_norm_weights()
    scale, shift, mean, variance = (array.reshape(4, 1, 1) for array in weights.values())
    y = compute(Node("n", Op.BATCH_NORM, ("x",)), weights=weights, x=x)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5) * scale + shift, atol=1e-5)


def test_batch_norm_uses_and_remembers_the_batch_in_training(x):
    weights = batch_norm_weights()
    network = Network("n", IMAGE, (Node("x", Op.INPUT), Node("n", Op.BATCH_NORM, ("x",))), "n")
    module = build_module(network, weights).train()
    y = module(torch.from_numpy(x)).detach().numpy()
    normal = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    expected = normal * weights["n.weight"].reshape(4, 1, 1) + weights["n.bias"].reshape(4, 1, 1)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    remembered = 0.9 * weights["n.running_mean"] + 0.1 * x.mean((0, 2, 3))
    np.testing.assert_allclose(read_weights(module)["n.running_mean"], remembered, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (Op.RELU, lambda x: np.maximum(x, 0)),
        (Op.RELU6, lambda x: np.clip(x, 0, 6)),
        (Op.SIGMOID, lambda x: 1 / (1 + np.exp(-x))),
        (Op.GLOBAL_AVERAGE_POOL, lambda x: x.mean((2, 3), keepdims=True)),
        (Op.FLATTEN, lambda x: x.reshape(len(x), -1)),
    ],
)
def test_ops_of_one_input(x, op, function):
    np.testing.assert_allclose(compute(Node("y", op, ("x",)), x=4 * x), function(4 * x), atol=1e-5)


def test_ops_of_several_inputs(x):
    half = Node("s", Op.SIGMOID, ("x",))
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(compute(half, Node("y", Op.ADD, ("x", "s")), x=x), x + s, atol=1e-5)
    np.testing.assert_allclose(compute(half, Node("y", Op.ADD, ("x", "s", "x")), x=x), 2 * x + s, atol=1e-5)
    np.testing.assert_allclose(compute(half, Node("y", Op.MULTIPLY, ("x", "s")), x=x), x * s, atol=1e-5)
    np.testing.assert_allclose(
        compute(half, Node("y", Op.CONCAT, ("s", "x")), x=x), np.concatenate([s, x], 1), atol=1e-5
    )


def test_multiply_broadcasts_one_value_per_channel(x):
    gate = Node("g", Op.GLOBAL_AVERAGE_POOL, ("x",))
    y = compute(gate, Node("y", Op.MULTIPLY, ("x", "g")), x=x)
    np.testing.assert_allclose(y, x * x.mean((2, 3), keepdims=True), atol=1e-5)


def test_shuffle_interleaves_the_groups():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)
    y = compute(Node("y", Op.SHUFFLE, ("x",), groups=2), x=x)
    assert y.ravel().tolist() == [0, 3, 1, 4, 2, 5]


def test_pools_do_not_count_padding():
    x = -np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 0, 0, 1)}
    assert compute(Node("y", Op.MAX_POOL, ("x",), **window), x=x).ravel().tolist() == [-1, -3, -4, -6]
    assert compute(Node("y", Op.AVERAGE_POOL, ("x",), **window), x=x).ravel().tolist() == [-1.5, -3, -6, -7.5]


def test_unpadded_pools():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert compute(Node("y", Op.MAX_POOL, ("x",), kernel=(2, 2), stride=(2, 2)), x=x).ravel().tolist() == [5, 7, 13, 15]
    assert compute(Node("y", Op.AVERAGE_POOL, ("x",), kernel=(4, 4)), x=x).ravel().tolist() == [7.5]


@pytest.mark.parametrize("family", Family)
def test_weights_go_in_and_come_out_exactly(family, tmp_path):
    network = build_network(NetworkSpec(family=family, width=0.25, input=(3, 32, 32)), 10, (0.5,) * 3, (0.25,) * 3)
    weights = init_weights(network, seed=3)
    out = read_weights(build_module(network, weights))
    save_weights(out, tmp_path / "w.safetensors", {"from": "test"})
    back = load_weights(tmp_path / "w.safetensors")
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_the_module_does_not_share_memory_with_its_weights(x):
    weights = {"c.weight": np.ones((4, 4, 1, 1), dtype=np.float32)}
    network = Network("n", IMAGE, (Node("x", Op.INPUT), Node("c", Op.CONV, ("x",), 4)), "c")
    module = build_module(network, weights)
    weights["c.weight"][:] = 0
    out = read_weights(module)
    out["c.weight"][:] = 0
    assert np.abs(module(torch.from_numpy(x)).detach().numpy()).max() > 0


def test_initial_weights_keep_the_variance():
    node = Node("c", Op.CONV, ("x",), 512, (3, 3), groups=2)
    contract = InputContract((128, 8, 8), (0.0,) * 128, (1.0,) * 128)
    weights = init_weights(Network("n", contract, (Node("x", Op.INPUT), node), "c"), seed=0)["c.weight"]
    variance = 2 / (64 * 9)
    deviations = 6 * variance * np.sqrt(2 / weights.size)  # six sigma of a sample variance
    assert abs(float(weights.var()) - variance) < deviations


def test_observe_gives_named_tensors_and_computes_nothing_else(x):
    nodes = (
        Node("x", Op.INPUT),
        Node("a", Op.RELU, ("x",)),
        Node("b", Op.SIGMOID, ("a",)),
        Node("c", Op.ADD, ("b", "a")),
        Node("d", Op.FLATTEN, ("c",)),
    )
    module = build_module(Network("n", IMAGE, nodes, "d"), {})
    seen = module.observe(torch.from_numpy(x), ["b", "a"])
    assert list(seen) == ["b", "a"]
    np.testing.assert_array_equal(seen["a"].numpy(), np.maximum(x, 0))
    with pytest.raises(KeyError, match="'zz' is no tensor"):
        module.observe(torch.from_numpy(x), ["zz"])


def test_weights_that_do_not_fit_are_refused(tmp_path):
    network = Network("n", IMAGE, (Node("x", Op.INPUT), Node("c", Op.CONV, ("x",), 4)), "c")
    with pytest.raises(WeightsError, match="missing"):
        build_module(network, {})
    with pytest.raises(WeightsError, match=r"c.weight must be float32 \(4, 4, 1, 1\)"):
        build_module(network, {"c.weight": np.zeros((4, 4, 3, 3), np.float32)})
    with pytest.raises(WeightsError, match="float64"):
        build_module(network, {"c.weight": np.zeros((4, 4, 1, 1))})
    (tmp_path / "w.safetensors").write_bytes(b"half a fi")
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        load_weights(tmp_path / "w.safetensors")
