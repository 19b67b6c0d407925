"""The torch interpreter of a quantised network: what the file computes in integers, in floats that lie on its grids.

It follows the plan and the grids of `search_spaces.quantisation` and `workers.onnx_quantize`, as the ONNX writer does.
Zero points stay as they were calibrated; steps can be learned. What it has learned it gives back as weights and ranges
from which the writer makes the same integers again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from search_spaces.network import Network, Node, Op, infer_shapes
from search_spaces.precision import FLOAT_BITS
from search_spaces.quantisation import is_quantised_layer, plan_quantisation
from search_spaces.spec import Estimator
from workers.onnx_quantize import TensorRange, activation_grid, image_range, quantise_weight
from workers.quantisation_aware.estimators import Levels, lsq_step_share, round_to_grid, weight_levels
from workers.torch_network import NetworkModule, read_weights
from workers.weight_grids import find_in_codebook, make_codebook, quantised_weight
from workers.weights import Weights, check_weights

_LEARNS_WEIGHT_STEPS = frozenset({Estimator.LSQ, Estimator.EWGS})

_SMALLEST = 1 / 64
"""Of what a step was at first: one that training takes to zero or below would make nothing but infinities."""

_RELU6_END = 6.0
_NEARLY_HALF = 0.49
_NEARLY_ONE = 1 - 1e-6
_BIAS_LIMIT = float(2**31 - 128)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where something is rounded.

    Attributes:
        levels: its integers.
        step_share: what its step gets of the gradient.
        first: the step at first, (), or (O, 1, ...) of a weight.
        most: the largest step that is of use, of an activation.
    """

    levels: Levels
    step_share: float
    first: Tensor
    most: float = math.inf


class QuantisedModule(NetworkModule):
    """A folded network whose layers declare precisions: (N, C, H, W), normalised, to what its file puts out.

    Where the estimator learns a step, of weights per output channel, of activations per tensor, the parameter is its
    ratio to what it was at first, so that one learning rate suits all.

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
        self._layers = {layer.name: layer for layer in network.compute_nodes() if is_quantised_layer(layer)}
        self._held = {f"{layer.name}.weight": layer for layer in network.compute_nodes() if _is_held(layer)}
        self._codebooks = {
            name: make_codebook(weights[name], layer.precision.weight_bits)
            for name, layer in self._held.items()
            if layer.precision.is_codebook
        }
        sites = dict(self._activation_sites(ranges))
        self._sites = sites | {f"{name}.weight": self._weight_site(layer) for name, layer in self._layers.items()}
        for name, site in self._sites.items():
            if self._is_learned(name):
                self.register_parameter(_ratio(name), torch.nn.Parameter(torch.ones_like(site.first)))
        self.settle()

    def _is_learned(self, name: str) -> bool:
        if name not in self._quantisation.bits:
            return self.estimator in _LEARNS_WEIGHT_STEPS
        # The file takes the image's range from the input contract, so there is nothing to learn.
        return self.estimator is not Estimator.STE and name != self.network.nodes[0].name

    def _activation_sites(self, ranges: Mapping[str, TensorRange]) -> Iterator[tuple[str, _Site]]:
        image, shapes, nodes = self.network.nodes[0].name, infer_shapes(self.network), self.network.by_name()
        for tensor, bits in self._quantisation.bits.items():
            if tensor != image and tensor not in ranges:
                raise ValueError(f"tensor {tensor!r} is quantised and has no range: calibrate first")
            grid = activation_grid(image_range(self.network.input) if tensor == image else ranges[tensor], bits)
            levels = Levels(-grid.zero_point, grid.top - grid.zero_point)
            # A grid that reaches beyond a relu6 would not swallow it, and its layer would be computed in floats.
            most = _RELU6_END / levels.highest if nodes[tensor].op is Op.RELU6 and levels.highest else math.inf
            share = lsq_step_share(math.prod(shapes[tensor]), levels)
            yield tensor, _Site(levels, share, torch.tensor(float(grid.scale)), most)

    def _weight_site(self, layer: Node) -> _Site:
        """The file's own step; or, where steps are learned, LSQ's first, 2 mean |w| / sqrt(Qp), if of use.

        Activations begin as they were calibrated, on more images than LSQ's one batch: measured, that is better.
        """
        weight, levels = self._kernel(layer).detach(), weight_levels(layer.precision.weight_bits)
        step = torch.from_numpy(quantise_weight(weight.numpy(), layer.precision.weight_bits)[1])
        if self.estimator in _LEARNS_WEIGHT_STEPS and not levels.is_binary:
            magnitudes = weight.abs().flatten(1)
            first = 2 * magnitudes.mean(1) / math.sqrt(levels.largest)
            step = torch.where(first > 0, _storable(torch.minimum(first, magnitudes.amax(1) / levels.largest)), step)
        share = lsq_step_share(weight[0].numel(), levels)
        return _Site(levels, share, step.view(-1, *[1] * (weight.dim() - 1)))

    def _kernel(self, layer: Node) -> Tensor:
        kernel = super().weight(f"{layer.name}.weight")
        assert kernel is not None, "every layer has a weight"
        return kernel

    def step(self, name: str) -> Tensor:
        """The step of a quantised tensor, (), or of a layer's `<node>.weight`, (O, 1, ...)."""
        ratio = self._parameters.get(_ratio(name))
        first = self._sites[name].first
        if ratio is None:
            return first
        return first * ratio if name in self._quantisation.bits else _storable(first * ratio)

    def first_steps(self) -> dict[str, Tensor]:
        """What steps are ratios to, by name. Of weights whose steps are not learned `settle` changes them."""
        return {name: site.first for name, site in self._sites.items()}

    def set_first_steps(self, steps: Mapping[str, Tensor]) -> None:
        """As `first_steps` told them."""
        self._sites = {
            name: replace(site, first=steps[name].to(site.first.device)) for name, site in self._sites.items()
        }

    def move_to(self, device: str) -> None:
        """All that it computes with. `to` alone would leave the first steps behind."""
        self.to(device)
        self._sites = {name: replace(site, first=site.first.to(device)) for name, site in self._sites.items()}

    def ratios(self) -> list[torch.nn.Parameter]:
        """What is learned beside the weights."""
        return [ratio for name in self._sites if (ratio := self._parameters.get(_ratio(name))) is not None]

    @torch.no_grad()
    def settle(self) -> None:
        """Keep steps where they mean something; to be called after each change of weights or steps.

        The largest weight of a channel stays at the end of its grid, so that the file, which tells the step by the
        largest weight, tells the one that was learned. Channels of zeros tell nothing: they keep the file's step.
        """
        for name, site in self._sites.items():
            ratio = self._parameters.get(_ratio(name))
            if ratio is not None:
                ratio.clamp_(min=_SMALLEST)
                if name in self._quantisation.bits:
                    ratio.clamp_(max=float(site.most * _NEARLY_ONE / site.first))
        for name, layer in self._layers.items():
            self._reach_peak(f"{name}.weight", self._kernel(layer))

    def _reach_peak(self, name: str, kernel: Tensor) -> None:
        site, ratio = self._sites[name], self._parameters.get(_ratio(name))
        peak = kernel.abs().flatten(1).amax(1).view_as(site.first)
        most = torch.full_like(peak, torch.inf)
        if not site.levels.is_binary:
            most = torch.where(peak > 0, peak / (site.levels.highest - _NEARLY_HALF), most)
        if ratio is None:
            self._sites[name] = replace(site, first=torch.where(most < site.first, _storable(most), site.first))
        else:
            ratio.copy_(torch.where(peak > 0, torch.minimum(ratio, most / site.first), 1.0))

    def weight(self, name: str) -> Tensor | None:
        """As the file has it: kernels on their grid, biases in the unit of the integer accumulator."""
        value = super().weight(name)
        if value is not None and name in self._held:
            return self._hold(name, value)
        layer = self._layers.get(name.rpartition(".")[0])
        if value is None or layer is None:
            return value
        return self._round(name, value) if name in self._sites else self._round_bias(layer, value)

    def _hold(self, name: str, value: Tensor) -> Tensor:
        """Weights in few bits of a layer that computes in floats; the gradient passes as it is.

        A grid follows the weights, a codebook keeps its values, since to find them takes longer than a step.
        """
        weight = value.detach().cpu().numpy()
        if name in self._codebooks:
            codebook = self._codebooks[name]
            rounded = codebook[find_in_codebook(weight, codebook)]
        else:
            rounded = quantised_weight(weight, self._held[name].precision)
        return torch.from_numpy(rounded).to(value.device) + (value - value.detach())

    def _round_bias(self, layer: Node, bias: Tensor) -> Tensor:
        source = self._quantisation.root[layer.inputs[0]]
        scale = (self.step(source) * self.step(f"{layer.name}.weight").flatten()).detach()
        integers = torch.round(bias / scale).clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
        return bias + (integers * scale - bias).detach()

    def _round(self, name: str, values: Tensor) -> Tensor:
        site = self._sites[name]
        share = 1.0 if self.estimator is Estimator.PACT else site.step_share
        rounded = round_to_grid(values, self.step(name), site.levels, self.estimator, share)
        return rounded * _alive(values) if site.levels.is_binary else rounded

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
            tensors[rounded] = self._round(root, tensors[tensor])
        return tensors[rounded]

    def forward(self, images: Tensor) -> Tensor:
        output = self.network.output
        return self._as_read("", output, self.observe(images, [output]))

    @torch.no_grad()
    def deployed(self) -> tuple[Weights, dict[str, TensorRange]]:
        """Float32 weights and ranges from which `write_onnx` makes the integers that this module computes with."""
        weights = read_weights(self)
        for name in (*self._held, *(f"{layer}.weight" for layer in self._layers)):
            rounded = self.weight(name)
            assert rounded is not None, "every layer has a weight"
            weights[name] = np.ascontiguousarray(rounded.cpu().numpy())
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
    """A module with copies of the weights, its convs stored channels last; batch norms that are left stay as they are.

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


def _is_held(layer: Node) -> bool:
    """Whether its weights are in few bits and it computes in floats."""
    return layer.precision.weight_bits < FLOAT_BITS and not is_quantised_layer(layer)


def _storable(step: Tensor) -> Tensor:
    """To 16 significant bits: its product with an integer is exact, and so is what a file reads off that."""
    rounded = ((step.detach().view(torch.int32) + 0x80) & -0x100).view(torch.float32)
    return step + (rounded - step).detach()


def _alive(kernel: Tensor) -> Tensor:
    """1 for channels that have a weight, 0 for those of zeros only, (O, 1, ...): one bit has no zero of its own."""
    return (kernel != 0).flatten(1).any(1).view(-1, *[1] * (kernel.dim() - 1)).float()


def _ratio(name: str) -> str:
    """What the parameter is called: torch reserves the dot, and no weight has two slashes."""
    return f"{name.replace('.', '/')}/step/ratio"
