"""Whether a well-formed spec makes sense: for its data set, its network, its device, and in itself.

All faults are found at once, before anything is stored or computed. It must not know a database: devices
come as what they said of themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from search_spaces.build_space import SpaceError, build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_for
from search_spaces.datasets import DATASETS
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, Metric
from search_spaces.reach import Reach, symbolic_reach
from search_spaces.space import Space
from search_spaces.spec import LimitSpec, ObjectiveSpec, SamplerName, SearchSpec


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a spec.

    Attributes:
        pointer: RFC 6901, into the spec; empty for the whole of it.
        message: what is wrong and what would be right.
    """

    pointer: str
    message: str


class SpecError(ValueError):
    """A spec cannot be accepted. `faults` has everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{fault.pointer or 'spec'}: {fault.message}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec that makes sense.

    Attributes:
        spec: as submitted.
        network: the base.
        space: what may be varied of it.
        warnings: for people; nothing that stops a search.
        waiting_for: why the search cannot start yet: its device is not announced. Empty otherwise.
    """

    spec: SearchSpec
    network: Network
    space: Space
    warnings: tuple[str, ...]
    waiting_for: str


def check_spec(spec: SearchSpec, devices: Mapping[str, DeviceCapabilities]) -> Checked:
    """Check a spec against what is known.

    Args:
        spec: well-formed.
        devices: the announced devices, by name.

    Raises:
        SpecError: with all faults.
    """
    device = devices.get(spec.device) if spec.device else None
    faults = [*_dataset_faults(spec), *_device_faults(spec, devices), *_limit_faults(spec), *_image_faults(spec)]
    if spec.dataset.name not in DATASETS or _shape_differs(spec):
        raise SpecError(tuple(faults))
    network = build_for(spec)
    try:
        space, warnings = build_space(network, spec.space, device)
    except SpaceError as error:
        faults += [Fault(pointer, message) for pointer, message in error.faults]
        raise SpecError(tuple(faults)) from None
    faults += _space_faults(spec, space)
    if faults:
        raise SpecError(tuple(faults))
    return Checked(spec, network, space, (*warnings, *_budget_warnings(spec, space)), _waiting_for(spec, devices))


def _dataset_faults(spec: SearchSpec) -> Iterator[Fault]:
    info = DATASETS.get(spec.dataset.name)
    if info is None:
        close = get_close_matches(spec.dataset.name, DATASETS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        yield Fault("/dataset/name", f"{hint}Known data sets are {', '.join(DATASETS)}")
    elif _shape_differs(spec):
        yield Fault("/network/input", f"images of {info.name} are {list(info.shape)}; make the input that")


def _shape_differs(spec: SearchSpec) -> bool:
    return spec.network.input != DATASETS[spec.dataset.name].shape


def _judged(spec: SearchSpec) -> Iterator[tuple[str, ObjectiveSpec | LimitSpec]]:
    """Objectives and limits with their pointers."""
    for number, objective in enumerate(spec.objectives):
        yield f"/objectives/{number}", objective
    for number, limit in enumerate(spec.limits):
        yield f"/limits/{number}", limit


def _device_faults(spec: SearchSpec, devices: Mapping[str, DeviceCapabilities]) -> Iterator[Fault]:
    for pointer, part in _judged(spec):
        if part.device is not None and part.device != spec.device:
            message = f"a search runs on one device; this names {part.device} and another part {spec.device}"
            yield Fault(f"{pointer}/device", message)
        device = devices.get(part.device) if part.device else None
        if device is not None and part.metric in DEVICE_METRICS and part.metric not in device.metrics:
            yield Fault(f"{pointer}/metric", _cannot_tell(part.metric, device, devices))
    if spec.device is None:
        for kind in ("weight_bits", "activation_bits"):
            if getattr(spec.space, kind) is not None:
                message = "only some devices take bits separately; name one in an objective or a limit"
                yield Fault(f"/space/{kind}", message)


def _cannot_tell(metric: Metric, device: DeviceCapabilities, devices: Mapping[str, DeviceCapabilities]) -> str:
    reason = device.unavailable.get(metric, "it does not measure it")
    able = [name for name, other in sorted(devices.items()) if metric in other.metrics]
    remedy = f"devices that can: {', '.join(able)}" if able else "no announced device can; leave it out"
    return f"{device.name} cannot tell {metric}: {reason}; {remedy}"


def _limit_faults(spec: SearchSpec) -> Iterator[Fault]:
    """Limits that no design can meet, whatever the space is."""
    for number, limit in enumerate(spec.limits):
        pointer = f"/limits/{number}"
        if limit.metric is Metric.ACCURACY and limit.min is not None and limit.min > 1:
            yield Fault(f"{pointer}/min", "accuracy is a share of images; no design has more than 1")
        if limit.max is not None and limit.max < 0:
            yield Fault(f"{pointer}/max", f"no design can meet this: {limit.metric} is never below 0")
        lowest = min(
            (other.max for other in spec.limits if other.metric is limit.metric and other.max is not None), default=None
        )
        if limit.min is not None and lowest is not None and limit.min > lowest:
            yield Fault(
                f"{pointer}/min", f"no design can meet this: another limit keeps {limit.metric} to at most {lowest:g}"
            )


def _image_faults(spec: SearchSpec) -> Iterator[Fault]:
    info = DATASETS.get(spec.dataset.name)
    wanted = {"calibrate": "calibration_images", "score": "score_images"}
    for split, field in wanted.items() if info else ():
        available = info.split_size(split) if info else 0
        if getattr(spec.evaluation, field) > available:
            message = f"the split {split!r} of {spec.dataset.name} has {available:,} images; ask for at most that"
            yield Fault(f"/evaluation/{field}", message)


def _space_faults(spec: SearchSpec, space: Space) -> Iterator[Fault]:
    if space.size() == 1:
        message = "nothing can be varied: give prune_ratio, precision or group_size more than one choice that fits"
        yield Fault("/space", message)
    reach = symbolic_reach(space)
    for number, limit in enumerate(spec.limits):
        if limit.metric in reach:
            yield from _unreachable(f"/limits/{number}", limit, reach[limit.metric])


def _unreachable(pointer: str, limit: LimitSpec, reach: Reach) -> Iterator[Fault]:
    if limit.max is not None and 0 <= limit.max < reach.least:
        message = f"no design can meet this: the smallest {limit.metric} in this space is {reach.least:,.0f}"
        yield Fault(f"{pointer}/max", message)
    if limit.min is not None and limit.min > reach.greatest:
        message = f"no design can meet this: the greatest {limit.metric} in this space is {reach.greatest:,.0f}"
        yield Fault(f"{pointer}/min", message)


def _budget_warnings(spec: SearchSpec, space: Space) -> Iterator[str]:
    trials = spec.budget.trials
    if trials > space.size():
        yield f"the budget allows {trials:,} trials, the space has {space.size():,} designs: all will be tried"
    if len(space.uniform) > trials:
        yield f"the uniform baseline has {len(space.uniform):,} designs, more than the {trials:,} trials of the budget"
    if spec.sampler.population is not None and spec.sampler.name is not SamplerName.NSGA2:
        yield f"the sampler {spec.sampler.name} has no population; it is ignored"


def _waiting_for(spec: SearchSpec, devices: Mapping[str, DeviceCapabilities]) -> str:
    if spec.device is None or spec.device in devices:
        return ""
    known = f"announced are {', '.join(sorted(devices))}" if devices else "none is announced"
    return f"no worker has announced the device {spec.device!r} yet ({known}); start a worker that has it"
