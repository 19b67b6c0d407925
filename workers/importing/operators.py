"""ONNX's operators in the words of a Network: one function for each, on views and constants.

A function says what a node becomes, or raises UnsupportedError: then the node may be kept as it is (`opaque_parts`).
What is left over when several nodes turn out to be one operator is dropped when the draft is finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from search_spaces.network import Op
from workers.importing.draft import UnsupportedError
from workers.importing.elementwise import BINARY, UNARY
from workers.importing.site import Site, Value
from workers.importing.views import Atom, View, reshaped, transposed
from workers.importing.windows import convert_average_pool, convert_conv, convert_max_pool, convert_pad
from workers.weights import BATCH_NORM_EPSILON

Convert = Callable[[Site], Value | list[Value]]


# --- layers -----------------------------------------------------------------------------------------------------


def _gemm(site: Site) -> Value:
    if site.attribute("transA", 0):
        raise UnsupportedError("the input is transposed")
    weight, bias = _times(site.required(1), site.attribute("alpha", 1.0)), site.constant(2)
    if bias is not None:
        bias = _times(bias, site.attribute("beta", 1.0))
    return _dense(site, weight if site.attribute("transB", 0) else weight.T, bias)


def _times(array: np.ndarray, factor: float) -> np.ndarray:
    return array if factor == 1 else array * np.float32(factor)


def _matmul(site: Site) -> Value:
    weight = site.required(1)
    if weight.ndim != 2:
        raise UnsupportedError("the weights have other than two axes")
    return _dense(site, weight.T, None)


def _dense(site: Site, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    """A linear layer on vectors, or on the channels at each place of a map; `weight` is (outputs, inputs)."""
    view, draft = site.view(0), site.draft
    weights = {"weight": weight}
    if bias is not None:
        weights["bias"] = np.broadcast_to(bias.reshape(-1), (len(weight),))
    rest = {"channels": len(weight), "bias": bias is not None}
    if len(view.groups) == 1 and not view.lead:
        return _linear(site, weights, rest)
    is_map = len(draft.shapes[view.source]) == 3
    if not is_map or draft.channel_axis(view) != len(view.groups) - 1:
        raise UnsupportedError("mixes another axis than the channels")
    name = draft.add(site.name, Op.CONV, view.source, weights=weights | {"weight": weight[:, :, None, None]}, **rest)
    return _with_channels(view, name, len(weight))


def _linear(site: Site, weights: dict[str, np.ndarray], rest: dict[str, Any]) -> Value:
    """The weight's columns are in the order of the view."""
    source, order = site.draft.as_vector(site.view(0), site.name)
    if order is not None:
        columns = np.empty_like(weights["weight"])
        columns[:, order] = weights["weight"]
        weights = weights | {"weight": columns}
    return site.draft.plain(site.draft.add(site.name, Op.LINEAR, source, weights=weights, **rest))


def _batch_norm(site: Site) -> Value:
    view = site.view(0)
    if site.attribute("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the network in evaluation mode")
    if site.draft.channel_axis(view) != 0:
        raise UnsupportedError("normalises another axis than the channels")
    scale, shift, mean, variance = (site.required(index).astype(np.float64) for index in range(1, 5))
    # Every norm here has one epsilon; the difference goes into the variance, which computes the same.
    variance = variance + site.attribute("epsilon", 1e-5) - BATCH_NORM_EPSILON
    weights = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    return view.of(site.draft.add(site.name, Op.BATCH_NORM, view.source, weights=weights))


def _with_channels(view: View, source: str, channels: int) -> View:
    """The arrangement of a view for a tensor with another number of channels, which are one whole group of it."""
    whole = (Atom(0, (), channels),) if channels > 1 else ()
    groups = tuple(whole if any(atom.axis == 0 for atom in group) else group for group in view.groups)
    return replace(view, source=source, groups=groups)


# --- pools over everything --------------------------------------------------------------------------------------


def _global_average_pool(site: Site) -> Value:
    source = site.draft.as_map(site.view(0), site.name)
    return site.draft.plain(site.draft.add(site.name, Op.GLOBAL_AVERAGE_POOL, source))


def _global_max_pool(site: Site) -> Value:
    source = site.draft.as_map(site.view(0), site.name)
    size = site.draft.shapes[source][1:]
    return site.draft.plain(site.draft.add(site.name, Op.MAX_POOL, source, kernel=size, stride=size))


def _reduce_mean(site: Site) -> Value:
    """Over height and width, wherever they are."""
    view, draft = site.view(0), site.draft
    axes = site.axes(1, len(view.groups) + 1)
    shape = draft.shapes[view.source]
    reduced = [] if axes is None else [axis - 1 for axis in axes]
    atoms = [atom for axis in reduced if axis >= 0 for atom in view.groups[axis]]
    covered = math.prod(atom.size for atom in atoms)
    if len(shape) != 3 or -1 in reduced or any(atom.axis == 0 for atom in atoms) or covered != shape[1] * shape[2]:
        raise UnsupportedError("averages over something else than height and width")
    name = draft.add(site.name, Op.GLOBAL_AVERAGE_POOL, view.source)
    groups = tuple(() if axis in reduced else group for axis, group in enumerate(view.groups))
    if not site.attribute("keepdims", 1):
        groups = tuple(group for axis, group in enumerate(groups) if axis not in reduced)
    return View(name, groups)


# --- channels ---------------------------------------------------------------------------------------------------


def _concat(site: Site) -> Value:
    views = [site.view(index) for index in range(len(site.inputs))]
    axis = _channel_axis_named(site, views[0], site.attribute("axis"))
    sources = _sources_of_channels(site, views, axis)
    if len(sources) == 1:
        return views[0]
    name = site.draft.add(site.name, Op.CONCAT, *sources)
    return _regrouped(site, views[0], axis, name)


def _split(site: Site) -> list[Value]:
    view = site.view(0)
    axis = _channel_axis_named(site, view, site.attribute("axis", 0))
    total, count = view.shape[axis], len(site.outputs)
    sizes = site.whole_numbers("split", 1)
    if sizes is None:
        size = -(-total // count)
        sizes = [size] * (count - 1) + [total - size * (count - 1)]
    if sum(sizes) != total or len(sizes) != count:
        raise UnsupportedError(f"{total} channels cannot be split into {sizes}")
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        _sliced(site, view, axis, int(start), size, f"{site.name}.{number}")
        for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def _slice(site: Site) -> Value:
    view = site.view(0)
    starts, ends = site.whole_numbers("starts", 1), site.whole_numbers("ends", 2)
    rank = len(view.groups) + 1
    if starts is None or ends is None:
        raise UnsupportedError("starts and ends have to be constants")
    axes = site.axes(3, rank) or list(range(len(starts)))
    steps = site.whole_numbers("steps", 4) or [1] * len(starts)
    result: View = view
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = (1, *view.shape)[axis]
        first, last, _ = slice(start, end, step).indices(size)
        if step != 1 or (axis == 0 and (first, last) != (0, 1)):
            raise UnsupportedError("takes other than neighbouring channels")
        if (first, last) == (0, size):
            continue
        channels = _channel_axis_named(site, result, axis)
        result = _sliced(site, result, channels, first, last - first, site.name)
    return result


def _gather(site: Site) -> Value:
    """Neighbouring channels in order."""
    view, indices = site.view(0), site.required(1)
    axis = _channel_axis_named(site, view, site.attribute("axis", 0))
    wanted = np.where(indices < 0, indices + view.shape[axis], indices)
    if indices.ndim != 1 or not np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
        raise UnsupportedError("takes other than neighbouring channels")
    return _sliced(site, view, axis, int(wanted[0]), len(wanted), site.name)


def _sliced(site: Site, view: View, axis: int, start: int, size: int, name: str) -> View:
    (source,) = _sources_of_channels(site, [view], axis)
    return _regrouped(site, view, axis, site.draft.add(name, Op.SLICE, source, start=start, channels=size))


def _channel_axis_named(site: Site, view: View, axis: int) -> int:
    """The named axis, counted after the batch, when it is one along which tensors of the network can be cut."""
    rank = len(view.groups) + 1
    if not -rank <= axis < rank or axis % rank == 0:
        raise UnsupportedError(f"works along axis {axis}, which is not that of the channels")
    place = axis % rank - 1
    if len(view.groups) > 1 and site.draft.channel_axis(view) != place:
        raise UnsupportedError(f"works along axis {axis}, which is not that of the channels")
    return place


def _sources_of_channels(site: Site, views: list[View], axis: int) -> list[str]:
    """Tensors that can be joined or cut along their first axis; flattened maps become vectors."""
    sources = []
    for view in views:
        if len(view.groups) == 1:
            source, order = site.draft.as_vector(view, site.name)
            if order is not None:
                raise UnsupportedError("its input is flattened in another order")
        else:
            others = [group for place, group in enumerate(view.groups) if place != axis]
            wanted = [group for place, group in enumerate(views[0].groups) if place != axis]
            if site.draft.channel_axis(view) != axis or others != wanted:
                raise UnsupportedError("its inputs have their axes in different orders")
            source = view.source
        sources.append(source)
    return sources


def _regrouped(site: Site, view: View, axis: int, source: str) -> View:
    if len(view.groups) == 1:
        return site.draft.plain(source)
    channels = site.draft.shapes[source][0]
    groups = list(view.groups)
    groups[axis] = (Atom(0, (), channels),) if channels > 1 else ()
    return View(source, tuple(groups))


# --- arrangements -----------------------------------------------------------------------------------------------


def _reshape(site: Site) -> Value:
    view, target = site.view(0), site.required(1)
    return _in_shape(view, _resolved([int(size) for size in target], view, bool(site.attribute("allowzero", 0))))


def _resolved(target: list[int], view: View, keeps_zero: bool) -> list[int]:
    """The whole target shape, with its batch of 1."""
    there = view.whole_shape
    sizes = [
        there[place] if size == 0 and not keeps_zero and place < len(there) else size
        for place, size in enumerate(target)
    ]
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        if known <= 0 or math.prod(there) % known:
            raise UnsupportedError(f"{list(there)} cannot become {target}")
        sizes[sizes.index(-1)] = math.prod(there) // known
    if math.prod(sizes) != math.prod(there) or min(sizes, default=0) < 1:
        raise UnsupportedError(f"{list(there)} cannot become {target}")
    return sizes


def _in_shape(view: View, shape: list[int]) -> View:
    following = reshaped(view, shape) if shape else None
    if following is None:
        raise UnsupportedError("splits an axis across others")
    return following


def _flatten(site: Site) -> Value:
    view = site.view(0)
    rank = len(view.groups) + 1
    if site.attribute("axis", 1) % rank != 1 % rank:
        raise UnsupportedError("mixes the images of a batch")
    return _in_shape(view, [1, math.prod(view.shape)])


def _squeeze(site: Site) -> Value:
    view = site.view(0)
    axes = site.axes(1, len(view.groups) + 1)
    if axes is not None and 0 in axes:
        raise UnsupportedError("takes the batch axis away")
    if axes is None:
        axes = [place + 1 for place, size in enumerate(view.shape) if size == 1]
    return _in_shape(view, [size for axis, size in enumerate(view.whole_shape) if axis not in axes])


def _unsqueeze(site: Site) -> Value:
    view = site.view(0)
    axes = site.whole_numbers("axes", 1) or []
    rank = len(view.groups) + 1 + len(axes)
    new = {axis % rank for axis in axes}
    if 0 in new:
        raise UnsupportedError("makes another batch axis")
    old = iter(view.whole_shape)
    return _in_shape(view, [1 if axis in new else next(old) for axis in range(rank)])


def _transpose(site: Site) -> Value:
    view = site.view(0)
    rank = len(view.groups) + 1
    order = list(site.attribute("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)) or order[0] != 0:
        raise UnsupportedError("mixes the images of a batch")
    return transposed(view, [axis - 1 for axis in order[1:]])


# --- the rest ---------------------------------------------------------------------------------------------------


def _as_it_is(site: Site) -> Value:
    return site.view(0)


def _cast(site: Site) -> Value:
    if site.attribute("to") != 1:
        raise UnsupportedError("casts to another type than float32")
    return site.view(0)


def _expand(site: Site) -> Value:
    """A gate spread over height and width before it is multiplied: the product spreads it by itself."""
    view, target = site.view(0), site.required(1)
    spread = np.broadcast_shapes((1, *view.shape), tuple(int(size) for size in target))
    if spread != (1, *view.shape) and set(site.readers) != {"Mul"}:
        raise UnsupportedError("spreads its input")
    return view


def _shape(site: Site) -> Value:
    sizes = np.array(site.view(0).whole_shape, np.int64)
    return sizes[slice(site.attribute("start"), site.attribute("end"))]


def _size(site: Site) -> Value:
    return np.array(math.prod(site.view(0).whole_shape), np.int64)


OPERATORS: dict[str, Convert] = {
    "Conv": convert_conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "MaxPool": convert_max_pool,
    "AveragePool": convert_average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "ReduceMean": _reduce_mean,
    "Pad": convert_pad,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Identity": _as_it_is,
    "Dropout": _as_it_is,
    "Cast": _cast,
    "Expand": _expand,
    "Shape": _shape,
    "Size": _size,
    **UNARY,
    **BINARY,
}


_ROWWISE = frozenset({*UNARY, *BINARY, "Gemm", "Identity", "MatMul", "Reshape", "Shape", "Size"})
"""What may be done with all pixels of all images as rows."""


def convert(site: Site) -> list[Value]:
    """What a node's outputs become, in order.

    Raises:
        UnsupportedError: a Network has no operator for it.
    """
    function = OPERATORS.get(site.op_type)
    if function is None:
        raise UnsupportedError("Espalier has no such operator")
    if site.op_type not in _ROWWISE and any(isinstance(value, View) and value.lead for value in site.inputs):
        raise UnsupportedError("mixes the images of a batch")
    settled = [site.draft.settled(value, site.name) if isinstance(value, View) else value for value in site.inputs]
    result = function(replace(site, inputs=settled))
    return result if isinstance(result, list) else [result]
