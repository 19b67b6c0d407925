"""Convs, pools and pads: the operators with a window, and all the ways in which ONNX says their padding."""

from __future__ import annotations

from typing import cast

import numpy as np

from search_spaces.network import Op
from workers.importing.draft import UnsupportedError
from workers.importing.site import Site, Value
from workers.importing.views import Atom, View, is_axis

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def convert_conv(site: Site) -> Value:
    weight, bias = site.required(1), site.constant(2)
    if weight.ndim != 4:
        raise UnsupportedError("only convolutions over height and width can be searched")
    draft, source = site.draft, site.draft.as_map(site.view(0), site.name)
    padding = _padding(site, draft.shapes[source][1:], _pair(weight.shape[2:]), _pairs(site, "dilations"))
    before = draft.nodes[source]
    if before.op is Op.PAD:
        source, padding = before.inputs[0], cast(Padding, tuple(np.add(padding, before.padding).tolist()))
    name = draft.add(
        site.name,
        Op.CONV,
        source,
        weights={"weight": weight} | ({} if bias is None else {"bias": bias}),
        channels=weight.shape[0],
        kernel=_pair(weight.shape[2:]),
        stride=_pairs(site, "strides"),
        dilation=_pairs(site, "dilations"),
        padding=padding,
        groups=int(site.attribute("group", 1)),
        bias=bias is not None,
    )
    return draft.plain(name)


def convert_max_pool(site: Site) -> Value:
    draft, source = site.draft, site.draft.as_map(site.view(0), site.name)
    padding, extension = _pool_padding(site, draft.shapes[source][1:])
    kernel, stride = _kernel(site), _pairs(site, "strides")
    whole = cast(Padding, tuple(np.add(padding, extension).tolist()))
    return draft.plain(draft.add(site.name, Op.MAX_POOL, source, kernel=kernel, stride=stride, padding=whole))


def convert_average_pool(site: Site) -> Value:
    """A pool that counts its padding is a pad, and a pool that has none to count."""
    draft, source = site.draft, site.draft.as_map(site.view(0), site.name)
    size = draft.shapes[source][1:]
    padding, extension = _pool_padding(site, size)
    kernel, stride = _kernel(site), _pairs(site, "strides")
    if kernel == size and not any(padding):
        return draft.plain(draft.add(site.name, Op.GLOBAL_AVERAGE_POOL, source))
    if site.attribute("count_include_pad", 0) and any(padding):
        source = draft.add(f"{site.name}.pad", Op.PAD, source, padding=padding)
        padding = (0, 0, 0, 0)
    whole = cast(Padding, tuple(np.add(padding, extension).tolist()))
    return draft.plain(draft.add(site.name, Op.AVERAGE_POOL, source, kernel=kernel, stride=stride, padding=whole))


def convert_pad(site: Site) -> Value:
    """Zeros around height and width."""
    view = site.view(0)
    mode, value = site.attribute("mode", "constant"), site.constant(2)
    if mode != "constant" or (value is not None and np.any(np.asarray(value) != 0)):
        raise UnsupportedError("pads with other values than zero")
    pads, axes = site.whole_numbers("pads", 1), site.axes(3, len(view.groups) + 1)
    if pads is None:
        raise UnsupportedError("the padding has to be a constant")
    before, after = _pads_by_axis(pads, axes, len(view.groups) + 1)
    if not any(before) and not any(after):
        return view
    if min(before + after) < 0 or before[0] or after[0]:
        raise UnsupportedError("crops its input, or pads the batch")
    return _padded(site, view, before[1:], after[1:])


def _padded(site: Site, view: View, before: list[int], after: list[int]) -> View:
    """The view with zeros around height and width, whichever of its axes those are."""
    shape = site.draft.shapes[view.source]
    padding, groups = [0, 0, 0, 0], list(view.groups)
    for place, (first, last) in enumerate(zip(before, after, strict=True)):
        if first == last == 0:
            continue
        axis = _spatial_axis(site, view, place)
        padding[axis - 1], padding[axis + 1] = first, last
        groups[place] = (Atom(axis, (), shape[axis] + first + last),)
    added = site.draft.add(site.name, Op.PAD, view.source, padding=(padding[0], padding[1], padding[2], padding[3]))
    return View(added, tuple(groups))


def _spatial_axis(site: Site, view: View, place: int) -> int:
    """Which of height and width an axis of a view is: 1 or 2."""
    shape = site.draft.shapes[view.source]
    if len(shape) == 3 and view.groups == site.draft.plain(view.source).groups and place > 0:
        return place
    axes = [axis for axis in (1, 2) if len(shape) == 3 and is_axis(view.groups[place], axis, shape[axis])]
    if len(axes) != 1 or shape[axes[0]] == 1:
        raise UnsupportedError("pads other than around height and width")
    return axes[0]


def _pads_by_axis(pads: list[int], axes: list[int] | None, rank: int) -> tuple[list[int], list[int]]:
    axes = list(range(rank)) if axes is None else axes
    if len(pads) != 2 * len(axes):
        raise UnsupportedError(f"{len(pads)} pads do not fit {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[len(axes) + place]
    return before, after


def _pool_padding(site: Site, size: tuple[int, ...]) -> tuple[Padding, Padding]:
    """The padding, and what the last windows need beyond it where sizes are rounded up."""
    if _pairs(site, "dilations") != (1, 1) or site.attribute("storage_order", 0):
        raise UnsupportedError("pools with dilation or in another storage order")
    kernel, stride = _kernel(site), _pairs(site, "strides")
    padding = _padding(site, size, kernel, (1, 1))
    extension = [0, 0, 0, 0]
    for axis in range(2) if site.attribute("ceil_mode", 0) else ():
        begin, length = padding[axis], size[axis] + padding[axis] + padding[axis + 2]
        windows = -(-(length - kernel[axis]) // stride[axis]) + 1
        if (windows - 1) * stride[axis] >= size[axis] + begin:
            windows -= 1  # a window that would begin in the padding is left out
        extension[axis + 2] = max(0, (windows - 1) * stride[axis] + kernel[axis] - length)
    return padding, cast(Padding, tuple(extension))


def _padding(site: Site, size: tuple[int, ...], kernel: Pair, dilation: Pair) -> Padding:
    mode = site.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = [int(pad) for pad in site.attribute("pads", (0, 0, 0, 0))] if mode == "NOTSET" else [0] * 4
        if len(pads) != 4 or min(pads) < 0:
            raise UnsupportedError(f"padding {pads} is not that of height and width")
        return pads[0], pads[1], pads[2], pads[3]
    strides = _pairs(site, "strides")
    sides = []
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        missing = max(0, (-(-size[axis] // strides[axis]) - 1) * strides[axis] + reach - size[axis])
        small, large = missing // 2, missing - missing // 2
        sides.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _kernel(site: Site) -> Pair:
    return _pair(site.attribute("kernel_shape", ()))


def _pairs(site: Site, name: str) -> Pair:
    return _pair(site.attribute(name, (1, 1)))


def _pair(values: tuple[int, ...]) -> Pair:
    if len(values) != 2 or min(values) < 1:
        raise UnsupportedError("only windows over height and width are known")
    return int(values[0]), int(values[1])
