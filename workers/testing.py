"""Whether pruning does to a network what it should, tried at random: for the catalog's networks and for anybody's.

A design's network is sliced, and computed by torch and by ONNX Runtime; the base is computed with the removed channels
zeroed as soon as they are made. All must agree, and all shapes must be those that ONNX infers from the written file.
Torch computes in float64, so that a tensor of one value near zero agrees as well as others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch

from search_spaces.apply import Structure, apply, atoms_kept, structure_of
from search_spaces.coupling import keep_atoms, kept_positions
from search_spaces.design import Design, Value
from search_spaces.network import Network, Op, infer_shapes
from workers.onnx_writer import INPUT_NAME, OUTPUT_NAME, write_onnx
from workers.torch_network import OPERATORS, NetworkModule, build_module
from workers.transforms.prune import Kept, slice_weights
from workers.transforms.regroup import regroup
from workers.weights import Weights, init_weights

Arrays = dict[str, np.ndarray]
"""By tensor, without the batch."""

EXACT, SINGLE = 1e-9, 1e-4
"""Of a tensor's scale: how far float64 and float32 may be off, after some hundred operators."""

GROUP_SIZES = (2, 3, 4)


def random_weights(network: Network, seed: int = 0) -> Weights:
    """Weights with biases and statistics that are not neutral, so that forgetting one shows."""
    generator = np.random.default_rng(seed)
    weights = init_weights(network, seed)
    for name, array in weights.items():
        if name.endswith((".bias", ".running_mean")):
            weights[name] = generator.normal(0, 0.2, array.shape).astype(np.float32)
        elif array.ndim == 1:
            weights[name] = generator.uniform(0.5, 1.5, array.shape).astype(np.float32)
    return weights


def prune_at_random(
    network: Network, count: int, at_once: int, seed: int, weights: Weights | None = None
) -> Iterator[Design]:
    """Draw `count` designs, prune the weights by each, and yield each once it has passed.

    Args:
        network: the base.
        count: of designs.
        at_once: designs for which the base is computed together: faster, but all its tensors are kept.
        seed: of designs, channels and images, and of weights.
        weights: of the base; random ones unless they are given. Networks that multiply their own tensors make of
            random weights numbers of which single precision keeps nothing.

    Raises:
        AssertionError: something does not agree; the message names the tensor and the design.
    """
    weights = random_weights(network, seed) if weights is None else weights
    base = build_module(network, weights).eval().double()
    generator = np.random.default_rng(seed)
    for first in range(0, count, at_once):
        designs = [draw_design(network, generator) for _ in range(min(at_once, count - first))]
        kept = [_draw_channels(network, design, generator) for design in designs]
        images = torch.from_numpy(generator.standard_normal((len(designs), *network.input.shape)))
        masked = _run_masked(base, images, kept)
        for number, design in enumerate(designs):
            expected = {name: tensor[number, kept[number][name]].numpy() for name, tensor in masked.items()}
            _check(network, design, weights, kept[number], images[number : number + 1], expected)
            yield design


def draw_design(network: Network, generator: np.random.Generator) -> Design:
    """Counts of about half of the groups, and group sizes of about half of the depthwise layers that they fit."""
    structure = structure_of(network)
    values: dict[str, Value] = {}
    for group in structure.coupling.groups:
        if not group.frozen and generator.random() < 0.5:
            steps = group.size // group.multiple_of
            values[f"channels/{group.name}"] = group.multiple_of * int(generator.integers(1, steps + 1))
    for layer in sorted(structure.depthwise):
        inputs = _channels_left(structure, values, structure.layers[layer].inputs[0])
        sizes = [size for size in GROUP_SIZES if inputs % size == 0]
        if sizes and generator.random() < 0.5:
            values[f"group_size/{layer}"] = int(generator.choice(sizes))
    return Design.of(values)


def _channels_left(structure: Structure, values: Mapping[str, Value], tensor: str) -> int:
    groups = structure.coupling.groups
    read = [(groups[index], per_atom) for index, per_atom in structure.coupling.channels_per_atom[tensor]]
    return sum(int(values.get(f"channels/{group.name}", group.size)) * per_atom for group, per_atom in read)


def _draw_channels(network: Network, design: Design, generator: np.random.Generator) -> Kept:
    """Which channels stay: any that the coupling allows, not the best ones."""
    coupling = structure_of(network).coupling
    keep = keep_atoms(coupling, atoms_kept(network, design), generator.random(len(coupling.group_of_atom)))
    return {tensor: kept_positions(coupling, keep, tensor) for tensor in coupling.atoms}


def _run_masked(base: NetworkModule, images: torch.Tensor, kept: Sequence[Kept]) -> dict[str, torch.Tensor]:
    """Every tensor of the base, for one image of each design, with what that design removes zeroed."""
    tensors: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for node in base.network.nodes:
            inputs = [tensors[name] for name in node.inputs]
            made = images if node.op is Op.INPUT else OPERATORS[node.op](base, node, inputs)
            mask = torch.zeros(made.shape[:2], dtype=made.dtype)
            for row, channels in zip(mask, kept, strict=True):
                row[channels[node.name]] = 1
            tensors[node.name] = made * mask.view(*mask.shape, *[1] * (made.dim() - 2))
    return tensors


def _check(
    network: Network, design: Design, weights: Weights, kept: Kept, image: torch.Tensor, expected: Arrays
) -> None:
    applied = apply(network, design)
    sliced = regroup(applied, slice_weights(network, weights, kept))
    model = write_onnx(applied, sliced)
    assert _onnx_shapes(applied, model) == infer_shapes(applied), design
    is_single = any(node.op in (Op.OPAQUE, Op.POINTWISE) for node in network.nodes)  # which ONNX Runtime computes
    _compare(_run_torch(applied, sliced, image), expected, SINGLE if is_single else EXACT, design)
    _compare({network.output: _run_onnx(model, image)}, expected, SINGLE, design)


def _onnx_shapes(network: Network, model: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of each of the network's tensors, without the batch, as ONNX infers it; a fault is raised."""
    proto = onnx.ModelProto.FromString(model)
    onnx.checker.check_model(proto)
    graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    found = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    found[network.nodes[0].name] = found[INPUT_NAME]
    return {node.name: tuple(size.dim_value for size in found[node.name][1:]) for node in network.nodes}


def _run_torch(network: Network, weights: Weights, image: torch.Tensor) -> Arrays:
    module = build_module(network, weights).eval().double()
    with torch.inference_mode():
        tensors = module.observe(image, [node.name for node in network.nodes])
    return {name: tensor[0].numpy() for name, tensor in tensors.items()}


def _run_onnx(model: bytes, image: torch.Tensor) -> np.ndarray:
    """Without optimisation, which takes longer than all else."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: image.float().numpy()})[0][0])


def _compare(found: Arrays, expected: Arrays, tolerance: float, design: Design) -> None:
    for name, values in found.items():
        assert values.shape == expected[name].shape, f"{name} of {design}"
        error = np.abs(values - expected[name]).max()
        scale = np.abs(expected[name]).max()
        assert error <= tolerance * scale, f"{name} is off by {error / scale:.3g} of its largest value: {design}"
