"""Operators that work on one value at a time, alone, with a constant, or with a value of another tensor.

Exporters write some activations in several nodes; they are recognised by what the draft has already.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search_spaces.network import Node, Op
from workers.importing.draft import UnsupportedError
from workers.importing.site import Site, Value
from workers.importing.views import View, merged, same_arrangement

_PLENTY = 1e30
"""A bound as good as none."""


# --- one tensor -------------------------------------------------------------------------------------------------


def _unary(op: Op) -> Callable[[Site], Value]:
    def convert(site: Site) -> Value:
        return _applied(site, op, site.view(0))

    return convert


def _applied(site: Site, op: Op, view: View) -> Value:
    return view.of(site.draft.add(site.name, op, view.source))


def _clip(site: Site) -> Value:
    low = _bound(site, "min", 1, -np.inf)
    high = _bound(site, "max", 2, np.inf)
    if low != 0:
        raise UnsupportedError(f"clips below {low:g}; only clips below 0 are known")
    if high > _PLENTY:
        return _applied(site, Op.RELU, site.view(0))
    if high != 6:
        raise UnsupportedError(f"clips above {high:g}; only clips above 6 are known")
    return _applied(site, Op.RELU6, site.view(0))


def _bound(site: Site, name: str, index: int, default: float) -> float:
    found = site.attribute(name)
    constant = site.constant(index) if found is None else found
    return default if constant is None else float(np.ravel(constant)[0])


def _hard_sigmoid(site: Site) -> Value:
    slope, offset = site.attribute("alpha", 0.2), site.attribute("beta", 0.5)
    if abs(slope - 1 / 6) > 1e-6 or abs(offset - 0.5) > 1e-6:
        raise UnsupportedError(f"has the slope {slope:g}; only 1/6 is known")
    return _applied(site, Op.HARD_SIGMOID, site.view(0))


def _swish(site: Site) -> Value:
    if abs(site.attribute("alpha", 1.0) - 1) > 1e-6:
        raise UnsupportedError("is a swish with a factor inside")
    return _applied(site, Op.SWISH, site.view(0))


# --- two tensors, or one and a constant -------------------------------------------------------------------------


def _add(site: Site) -> Value:
    return _with_constant(site, lambda value: (np.ones_like(value), value)) or _joined(site, Op.ADD)


def _subtract(site: Site) -> Value:
    if isinstance(site.inputs[0], np.ndarray):
        return _affine(site, site.view(1), site.inputs[0], lambda value: (-np.ones_like(value), value))
    return _affine(site, site.view(0), site.required(1), lambda value: (np.ones_like(value), -value))


def _multiply(site: Site) -> Value:
    return _with_constant(site, lambda value: (value, np.zeros_like(value))) or _product(site)


def _divide(site: Site) -> Value:
    divisor = site.required(1)
    if np.any(divisor == 0):
        raise UnsupportedError("divides by zero")
    return _affine(site, site.view(0), divisor, lambda value: (1 / value, np.zeros_like(value)))


def _sum(site: Site) -> Value:
    return site.view(0) if len(site.inputs) == 1 else _joined(site, Op.ADD)


Coefficients = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A constant to the scale and shift that it stands for."""


def _with_constant(site: Site, coefficients: Coefficients) -> Value | None:
    """None when neither input is a constant."""
    for place in range(2):
        constant = site.inputs[place]
        if isinstance(constant, np.ndarray):
            return _affine(site, site.view(1 - place), constant, coefficients)
    return None


def _affine(site: Site, view: View, constant: np.ndarray, coefficients: Coefficients) -> Value:
    values = _per_channel(site, view, constant.astype(np.float64))
    scale, shift = coefficients(values)
    recognised = _recognise_scaled(site, view, scale, shift)
    if recognised is not None:
        return recognised
    return view.of(site.draft.affine(site.name, view.source, scale, shift))


def _per_channel(site: Site, view: View, constant: np.ndarray) -> np.ndarray:
    """A constant as one value for each channel of the view's tensor."""
    channels = site.draft.shapes[view.source][0]
    if constant.size == 1:
        return np.full(channels, constant.reshape(-1)[0])
    axis = site.draft.channel_axis(view)
    rank = len(view.groups) + 1
    if axis is None or constant.ndim > rank:
        raise UnsupportedError("the constant differs along other axes than the channels")
    sides = [1] * rank
    sides[axis + 1] = channels
    if (1,) * (rank - constant.ndim) + constant.shape != tuple(sides):
        raise UnsupportedError("the constant differs along other axes than the channels")
    return constant.reshape(-1)


def _joined(site: Site, op: Op) -> Value:
    views = [site.view(index) for index in range(len(site.inputs))]
    if not all(same_arrangement(views[0], view) for view in views[1:]):
        raise UnsupportedError("its inputs have other shapes, or their axes in other orders")
    sources = [view.source for view in views]
    if len({site.draft.shapes[source] for source in sources}) > 1:
        sources = [site.draft.arranged(view, site.name) for view in views]
        return site.draft.plain(site.draft.add(site.name, op, *sources))
    return views[0].of(site.draft.add(site.name, op, *sources))


def _product(site: Site) -> Value:
    first, second = site.view(0), site.view(1)
    for data, gate in ((first, second), (second, first)):
        recognised = _recognise_gated(site, data, gate)
        if recognised is not None:
            return recognised
    for data, gate in ((first, second), (second, first)):
        if _is_gate(site, data, gate):
            source = site.draft.as_map(_in_map_order(gate), site.name)
            return data.of(site.draft.add(site.name, Op.MULTIPLY, data.source, source))
    return _joined(site, Op.MULTIPLY)


def _is_gate(site: Site, data: View, gate: View) -> bool:
    """Whether the gate has one value for each channel of a map, wherever the channels are."""
    axis = site.draft.channel_axis(data)
    if axis is None or len(gate.groups) != len(data.groups) or len(site.draft.shapes[data.source]) != 3:
        return False
    others_are_one = all(not group for place, group in enumerate(gate.groups) if place != axis)
    return others_are_one and gate.shape[axis] == data.shape[axis] and data.shape != gate.shape


def _in_map_order(gate: View) -> View:
    """A gate's channels first."""
    return View(gate.source, tuple(sorted((merged(group) for group in gate.groups), key=len, reverse=True)))


# --- activations in several nodes -------------------------------------------------------------------------------


def _recognise_gated(site: Site, data: View, gate: View) -> Value | None:
    """Swish, x * sigmoid(x), and hard swish, x * hard_sigmoid(x)."""
    node = site.draft.nodes[gate.source]
    op = {Op.SIGMOID: Op.SWISH, Op.HARD_SIGMOID: Op.HARD_SWISH}.get(node.op)
    if op is None or node.inputs != (data.source,) or not same_arrangement(data, gate):
        return None
    return _applied(site, op, data)


def _recognise_scaled(site: Site, view: View, scale: np.ndarray, shift: np.ndarray) -> Value | None:
    """Hard sigmoid, relu6(x + 3) / 6, and hard swish, x * relu6(x + 3) / 6."""
    if not np.allclose(scale, 1 / 6, rtol=1e-5) or np.any(shift):
        return None
    node = site.draft.nodes[view.source]
    inner = _inside_relu6(site, node)
    if inner is not None:
        return view.of(site.draft.add(site.name, Op.HARD_SIGMOID, inner))
    if node.op is Op.MULTIPLY:
        for data, gate in (node.inputs, node.inputs[::-1]):
            if _inside_relu6(site, site.draft.nodes[gate]) == data:
                return view.of(site.draft.add(site.name, Op.HARD_SWISH, data))
    return None


def _inside_relu6(site: Site, node: Node) -> str | None:
    """x, when the node is relu6(x + 3)."""
    if node.op is not Op.RELU6:
        return None
    moved = site.draft.nodes[node.inputs[0]]
    scale, shift = (site.draft.weights.get(f"{moved.name}.{part}") for part in ("weight", "bias"))
    if moved.name not in site.draft.affines or scale is None or shift is None:
        return None
    return moved.inputs[0] if (scale == 1).all() and (shift == 3).all() else None


UNARY: dict[str, Callable[[Site], Value]] = {
    "Relu": _unary(Op.RELU),
    "Sigmoid": _unary(Op.SIGMOID),
    "HardSwish": _unary(Op.HARD_SWISH),
    "HardSigmoid": _hard_sigmoid,
    "Swish": _swish,
    "Clip": _clip,
}

POINTWISE = frozenset(
    {
        *("Abs", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "LeakyRelu", "Log", "Mish", "Neg"),
        *("Pow", "Reciprocal", "Selu", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
"""Other functions of one value at a time, kept as they are; channels may still come and go."""
BINARY: dict[str, Callable[[Site], Value]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Sum": _sum,
}
