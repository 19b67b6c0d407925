"""The torch interpreter of a quantised network: what the file computes in integers, in floats that lie on its grids.

It follows the plan and the grids of `search_spaces.quantisation` and `workers.onnx_quantize`, as the ONNX writer does.
Zero points stay as they were calibrated; steps can be learned. What it has learned it gives back as weights and ranges
from which the writer makes the same integers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.quantisation import is_quantised_layer, plan_quantisation
from search_spaces.spec import Estimator
from workers.onnx_quantize import TensorRange, activation_grid, image_range, quantise_weight
from workers.quantisation_aware.estimators import Levels, lsq_step_share, round_to_grid, to_integers, weight_levels
from workers.torch_network import NetworkModule, read_weights
from workers.weights import Weights, check_weights

_LEARNS_WEIGHT_STEPS = frozenset({Estimator.LSQ, Estimator.EWGS})
_SMALLEST_SHARE = 1 / 64
"""Of what it was at first: a step that training takes to zero or below would make nothing but infinities."""

_NEARLY_HALF = 0.49
_BIAS_LIMIT = float(2**31 - 128)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where something is rounded: its integers, and the share that its step gets of the gradient."""

    levels: Levels
    step_share: float


class QuantisedModule(NetworkModule):
    """A folded network whose layers declare precisions: (N, C, H, W), normalised, to what its file puts out.

    Steps are parameters where the estimator learns them: of weights per output channel, of activations per tensor. PACT
    learns the width that is not clipped instead of the step.

    Raises:
        ValueError: a range is missing, or is none.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, np.ndarray],
        ranges: Mapping[str, TensorRange],
        estimator: Estimator = Estimator.STE,
    ) -> None:
        super().__init__(network, weights)
        self.estimator = estimator
        self._quantisation = plan_quantisation(network)
        self._sites: dict[str, _Site] = {}
        self._smallest: dict[str, Tensor] = {}
        self._layers = {layer.name: layer for layer in network.compute_nodes() if is_quantised_layer(layer)}
        self._add_activations(ranges)
        for layer in self._layers.values():
            self._add_weight(layer)
        self.settle()

    def _add_activations(self, ranges: Mapping[str, TensorRange]) -> None:
        image, shapes = self.network.nodes[0].name, infer_shapes(self.network)
        for tensor, bits in self._quantisation.bits.items():
            if tensor != image and tensor not in ranges:
                raise ValueError(f"tensor {tensor!r} is quantised and has no range: calibrate first")
            grid = activation_grid(image_range(self.network.input) if tensor == image else ranges[tensor], bits)
            levels = Levels(-grid.zero_point, grid.top - grid.zero_point)
            step = torch.tensor(float(grid.scale))
            # The file takes the image's range from the input contract, so there is nothing to learn.
            self._add_site(tensor, step, levels, int(np.prod(shapes[tensor])), is_learned=tensor != image)

    def _add_weight(self, layer: Node) -> None:
        name, bits = f"{layer.name}.weight", layer.precision.weight_bits
        weight = _given(super().weight(name))
        step = torch.from_numpy(quantise_weight(weight.detach().numpy(), bits)[1])
        step = step.reshape(-1, *[1] * (weight.dim() - 1))
        is_learned = self.estimator in _LEARNS_WEIGHT_STEPS
        self._add_site(name, step, weight_levels(bits), weight[0].numel(), is_learned)

    def _add_site(self, name: str, step: Tensor, levels: Levels, values_per_step: int, is_learned: bool) -> None:
        is_learned = is_learned and self.estimator is not Estimator.STE
        is_clip = is_learned and self.estimator is Estimator.PACT
        self._sites[name] = _Site(levels, 1.0 if is_clip else lsq_step_share(values_per_step, levels))
        value = step * _width(levels) if is_clip else step
        self._smallest[name] = value * _SMALLEST_SHARE
        registered = _registered(name)
        if is_learned:
            self.register_parameter(registered, torch.nn.Parameter(value))
        else:
            self.register_buffer(registered, value)

    def step(self, name: str) -> Tensor:
        """The step of a quantised tensor, (), or of a layer's `<node>.weight`, (O, 1, ...)."""
        value: Tensor = getattr(self, _registered(name))
        is_clip = self.estimator is Estimator.PACT and isinstance(value, torch.nn.Parameter)
        return value / _width(self._sites[name].levels) if is_clip else value

    def learned(self) -> list[torch.nn.Parameter]:
        """Steps, or widths that are not clipped, that are learned."""
        values = (getattr(self, _registered(name)) for name in self._sites)
        return [value for value in values if isinstance(value, torch.nn.Parameter)]

    def start_from(self, magnitudes: Mapping[str, float]) -> None:
        """Begin with LSQ's steps, 2 mean |v| / sqrt(Qp), where those are finer than calibration's.

        Args:
            magnitudes: mean |v| of each activation whose step is learned.
        """
        if self.estimator not in _LEARNS_WEIGHT_STEPS:
            return
        for name, site in self._sites.items():
            step = getattr(self, _registered(name))
            if name in magnitudes:
                mean = torch.tensor(magnitudes[name])
            elif name.endswith(".weight"):
                weight = _given(super().weight(name))
                mean = weight.detach().abs().mean(tuple(range(1, weight.dim())), keepdim=True)
            else:
                continue
            first = 2 * mean / site.levels.largest**0.5
            with torch.no_grad():
                step.copy_(torch.where((first > 0) & (first < step), first, step))
            self._smallest[name] = step.detach() * _SMALLEST_SHARE
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Keep steps where they mean something; to be called after each change of weights or steps.

        The largest weight of a channel stays at the end of its grid, so that the file, which tells the step by the
        largest weight, tells the one that was learned.
        """
        for name, smallest in self._smallest.items():
            getattr(self, _registered(name)).clamp_(min=smallest)
        for layer in self._layers.values():
            name = f"{layer.name}.weight"
            top = self._sites[name].levels.highest
            if top > 1:
                peak = _given(super().weight(name)).abs().flatten(1).amax(1)
                step = getattr(self, _registered(name))
                bound = (peak / (top - _NEARLY_HALF)).view_as(step)
                step.copy_(torch.where(bound > 0, torch.minimum(step, bound), step))

    def weight(self, name: str) -> Tensor | None:
        """As the file has it: kernels on their grid, biases in the unit of the integer accumulator."""
        value = super().weight(name)
        layer = self._layers.get(name.rpartition(".")[0])
        if value is None or layer is None:
            return value
        if name in self._sites:
            return self._rounded(name, value)
        return self._rounded_bias(layer, value)

    def _rounded_bias(self, layer: Node, bias: Tensor) -> Tensor:
        source = self._quantisation.root[layer.inputs[0]]
        scale = (self.step(source) * self.step(f"{layer.name}.weight").flatten()).detach()
        integers = torch.round(bias / scale).clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
        return bias + (integers * scale - bias).detach()

    def _rounded(self, name: str, values: Tensor) -> Tensor:
        site = self._sites[name]
        return round_to_grid(values, self.step(name), site.levels, self.estimator, site.step_share)

    def read(self, node: Node, tensors: dict[str, Tensor]) -> list[Tensor]:
        return [self._as_read(node.name, name, tensors) for name in node.inputs]

    def _as_read(self, reader: str, tensor: str, tensors: dict[str, Tensor]) -> Tensor:
        plan = self._quantisation
        root = plan.root[tensor]
        is_on_grid = tensor != root and root in plan.integer_tensors  # made of values that were read from the grid
        if is_on_grid or not plan.reads_quantised(reader, tensor):
            return tensors[tensor]
        rounded = f"{tensor}/rounded"
        if rounded not in tensors:
            tensors[rounded] = self._round_activation(root, tensors[tensor])
        return tensors[rounded]

    def _round_activation(self, root: str, values: Tensor) -> Tensor:
        site = self._sites[root]
        return round_to_grid(values, self.step(root), site.levels, self.estimator, site.step_share)

    def forward(self, images: Tensor) -> Tensor:
        output = self.network.output
        return self._as_read("", output, self.observe(images, [output]))

    @torch.no_grad()
    def deployed(self) -> tuple[Weights, dict[str, TensorRange]]:
        """Float32 weights and ranges from which `write_onnx` makes the integers that this module computes with."""
        weights = read_weights(self)
        for name, site in self._sites.items():
            if name in weights:
                value, step = _given(super().weight(name)), self.step(name)
                weights[name] = np.ascontiguousarray((to_integers(value, step, site.levels) * step).numpy())
        image = self.network.nodes[0].name
        return weights, {name: self._range(name) for name in self._quantisation.bits if name != image}

    def _range(self, tensor: str) -> TensorRange:
        levels, step = self._sites[tensor].levels, float(self.step(tensor).detach())
        return levels.lowest * step, levels.highest * step


def build_quantised_module(
    network: Network,
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, TensorRange],
    estimator: Estimator = Estimator.STE,
) -> QuantisedModule:
    """A module with copies of the weights, its convs stored channels last; batch norms that are left use what they know.

    Args:
        network: folded, with the precisions that are wanted.
        weights: float32, of the folded network.
        ranges: of each of `calibrated_tensors(network)`.
        estimator: of the gradients.

    Raises:
        WeightsError: `weights` are not those of `network`.
        ValueError: a range is missing, or is none.
    """
    check_weights(network, weights)
    module = QuantisedModule(network, weights, ranges, estimator).eval()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    return module


def _registered(name: str) -> str:
    return f"{name.replace('.', '/')}/step"


def _width(levels: Levels) -> int:
    return levels.highest - levels.lowest


def _given(value: Tensor | None) -> Tensor:
    assert value is not None, "every layer has a weight"
    return value
