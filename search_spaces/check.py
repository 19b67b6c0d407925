"""Whether a well-formed spec makes sense: for its data set, its network, its device, and in itself.

All faults are found at once, before anything is stored or computed. It must not know a database: devices
come as what they said of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from search_spaces.activation_maps import travelling_maps
from search_spaces.budgets import Budget, budgets_of
from search_spaces.build_space import SpaceError, build_space
from search_spaces.capabilities import DeviceCapabilities
from search_spaces.catalog import build_for
from search_spaces.check_budgets import budget_faults, tight_budgets, tight_limits
from search_spaces.datasets import DatasetInfo
from search_spaces.design import Kind
from search_spaces.faults import Fault, SpecError
from search_spaces.known import Known, OwnNetwork, Sources
from search_spaces.methods import named_methods, unused_methods
from search_spaces.network import Network, Op, infer_shapes
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Metric
from search_spaces.precision import FLOAT_BITS, Precision, parse_precision
from search_spaces.reach import Reach, symbolic_reach
from search_spaces.rungs import step_faults
from search_spaces.scores import MAIN_SCORE, Scale, ScoreInfo
from search_spaces.space import Space
from search_spaces.spec import (
    BASE,
    GRADIENT_IMPORTANCES,
    BudgetLimitSpec,
    LimitSpec,
    NetworkSpec,
    ObjectiveSpec,
    RecipeSpec,
    SamplerName,
    SearchSpec,
)

FEW_IMAGES = 400
"""Scoring on fewer deserves a warning."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec that makes sense.

    Attributes:
        spec: as submitted.
        budgets: its budget limits, and what they come to as far as is known before anything is measured.
        network: the base.
        own_network: where the base was imported.
        dataset: what it is scored on.
        space: what may be varied of it.
        warnings: for people; nothing that stops a search.
        waiting_for: why the search cannot start yet: no live worker has its device. Empty otherwise.
    """

    spec: SearchSpec
    budgets: tuple[Budget, ...]
    network: Network
    own_network: OwnNetwork | None
    dataset: DatasetInfo
    space: Space
    warnings: tuple[str, ...]
    waiting_for: str

    @property
    def sources(self) -> Sources:
        own = self.own_network
        return Sources(network=None if own is None else own.base_key, dataset=self.dataset.digest or None)


def check_spec(spec: SearchSpec, known: Known) -> Checked:
    """Check a spec against what is known.

    Raises:
        SpecError: with all faults.
    """
    faults = [
        *_name_faults(spec, known),
        *_sampler_faults(spec),
        *_device_faults(spec, known.devices),
        *_score_faults(spec, known),
        *_limit_faults(spec, known.scores),
        *budget_faults(spec, known.devices),
        *_image_faults(spec, known),
        *_training_faults(spec, known),
        *_warm_start_faults(spec, known),
    ]
    dataset = known.datasets.get(spec.dataset.name)
    own = None if isinstance(spec.network, NetworkSpec) else known.networks.get(spec.network.name)
    if dataset is None or (own is None and not isinstance(spec.network, NetworkSpec)):
        raise SpecError(tuple(faults))
    faults += _fit_faults(spec, dataset, own, known.scores)
    if any(fault.pointer.startswith(("/network", "/dataset")) for fault in faults):
        raise SpecError(tuple(faults))
    network = own.network if own is not None else build_for(_catalog(spec), dataset)
    try:
        space, warnings = build_space(network, spec.space, known.devices.get(spec.device) if spec.device else None)
    except SpaceError as error:
        faults += [Fault(pointer, message) for pointer, message in error.faults]
        raise SpecError(tuple(faults)) from None
    faults += [*_space_faults(spec, space), *_gradient_faults(spec, known, network), *_map_faults(spec, network)]
    if faults:
        raise SpecError(tuple(faults))
    budgets = budgets_of(spec, network)
    if tight := (*tight_limits(spec, space), *tight_budgets(spec, budgets, space)):
        raise SpecError(tight)
    warnings += [
        *unused_methods(spec),
        *_codec_warnings(spec, known.devices),
        *_training_warnings(spec),
        *_rounding_warnings(spec, space),
        *_budget_warnings(spec, space),
        *_origin_warnings(own, dataset),
        *_size_warnings(spec, dataset),
    ]
    return Checked(spec, budgets, network, own, dataset, space, tuple(warnings), waiting_for(spec.device, known))


def scores_of(spec: SearchSpec, dataset: DatasetInfo) -> tuple[str, ...]:
    """Names of the scores that are told of each trial, the main one of the task first."""
    known = {*DEVICE_METRICS, *SYMBOLIC_METRICS, *MAP_METRICS}
    named = [part.metric for _, part in _judged(spec) if part.metric not in known]
    return tuple(dict.fromkeys([MAIN_SCORE[dataset.task], *named]))


def _catalog(spec: SearchSpec) -> NetworkSpec:
    assert isinstance(spec.network, NetworkSpec)
    return spec.network


def _name_faults(spec: SearchSpec, known: Known) -> Iterator[Fault]:
    """Names that nothing has."""
    named = [
        ("/dataset/name", "data set", spec.dataset.name, list(known.datasets)),
        ("/sampler/name", "sampler", spec.sampler.name, sorted(known.samplers)),
        *((one.pointer, str(one.kind), one.name, one.known) for one in named_methods(spec, known)),
    ]
    if not isinstance(spec.network, NetworkSpec):
        named.append(("/network/name", "network", spec.network.name, list(known.networks)))
    for pointer, kind, name, names in named:
        if f"{kind} {name}" in known.unready:
            yield Fault(pointer, known.unready[f"{kind} {name}"])
        elif name not in names:
            yield Fault(pointer, unknown_name(kind, name, names))


def _sampler_faults(spec: SearchSpec) -> Iterator[Fault]:
    if spec.sampler.greedy is not None and spec.sampler.name != SamplerName.GREEDY:
        message = f"these are options of the sampler greedy, and the sampler is {spec.sampler.name}: leave them out"
        yield Fault("/sampler/greedy", message)


def unknown_name(kind: str, name: str, names: Sequence[str]) -> str:
    """For people: that nothing is called so, and what might have been meant."""
    word = kind.replace("_", " ")
    if not names:
        return f"there is no {word} {name!r}; import one first"
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no {word} {name!r}: {hint}known are {', '.join(names)}"


def _fit_faults(
    spec: SearchSpec, dataset: DatasetInfo, own: OwnNetwork | None, scores: Mapping[str, ScoreInfo]
) -> Iterator[Fault]:
    """Whether images fit the network, and its outputs what is to be told of them."""
    shape = own.network.input.shape if own is not None else _catalog(spec).input
    pointer = "/network/name" if own is not None else "/network/input"
    if not dataset.is_resized and shape != dataset.shape:
        yield Fault(pointer, f"images of {dataset.name} are {list(dataset.shape)}; make the input that")
    elif dataset.is_resized and shape[0] not in (1, 3):
        yield Fault(pointer, f"images have one channel or three, and the input has {shape[0]}")
    if own is not None:
        yield from _output_faults(own, dataset)
        yield from _narrow_faults(spec, own, dataset, scores)


def _narrow_faults(
    spec: SearchSpec, own: OwnNetwork, dataset: DatasetInfo, scores: Mapping[str, ScoreInfo]
) -> Iterator[Fault]:
    """Scores that look at all outputs, of networks that know more classes than the data set has."""
    outputs = _count_outputs(own.network)
    for pointer, part in _judged(spec):
        score = scores.get(part.metric)
        most = None if score is None else score.most_classes
        if most is not None and outputs > max(most, dataset.classes):
            message = f"{part.metric} is told of at most {most} classes, and {own.name} tells {outputs} apart"
            yield Fault(f"{pointer}/metric", message)


def _count_outputs(network: Network) -> int:
    return infer_shapes(network)[network.output][0]


def _output_faults(own: OwnNetwork, dataset: DatasetInfo) -> Iterator[Fault]:
    outputs = _count_outputs(own.network)
    if own.class_names and dataset.class_names:
        strangers = [name for name in dataset.class_names if name not in own.class_names]
        if strangers:
            message = (
                f"{own.name} knows no class {_few(strangers)}; import it with class names that hold all of these, or "
                "without any when its outputs are the data set's classes in their order"
            )
            yield Fault("/dataset/name", message)
        return
    if not dataset.classes and own.left_out:
        message = f"{own.name} ends with {own.left_out}, which tells classes; values are told by a network without it"
        yield Fault("/network/name", message)
    fitting = {1} if not dataset.classes else {dataset.classes} | ({1} if dataset.classes == 2 else set())
    if outputs not in fitting:
        wanted = f"{dataset.classes} classes" if dataset.classes else "one number to be told"
        yield Fault("/dataset/name", f"{dataset.name} has {wanted}, and {own.name} has {outputs} outputs")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _origin_warnings(own: OwnNetwork | None, dataset: DatasetInfo) -> Iterator[str]:
    if own is None:
        return
    yield (
        f"{own.name} was trained elsewhere: if it has seen images of {dataset.name} that are held out here, "
        "its accuracy and that of all designs is told too high"
    )
    if dataset.classes and not (own.class_names and dataset.class_names):
        yield f"the outputs of {own.name} are taken to be the classes of {dataset.name} in their order"


def _judged(spec: SearchSpec) -> Iterator[tuple[str, ObjectiveSpec | LimitSpec | BudgetLimitSpec]]:
    """Objectives, limits and budget limits with their pointers."""
    for number, objective in enumerate(spec.objectives):
        yield f"/objectives/{number}", objective
    for number, limit in enumerate(spec.limits):
        yield f"/limits/{number}", limit
    for number, budget in enumerate(spec.budget_limits):
        yield f"/budget_limits/{number}", budget


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


def _size_warnings(spec: SearchSpec, dataset: DatasetInfo) -> Iterator[str]:
    images = min(spec.evaluation.most_score_images, dataset.split_size("score"))
    if dataset.classes and images < FEW_IMAGES:
        half_width = 98 / math.sqrt(max(images, 1))  # 1.96 standard errors of a share of one half, in points
        yield (
            f"trials are scored on {images} images, which tells an accuracy to about {half_width:.0f} points at worst: "
            "more images tell designs apart"
        )


def _cannot_tell(metric: str, device: DeviceCapabilities, devices: Mapping[str, DeviceCapabilities]) -> str:
    reason = device.unavailable.get(Metric(metric), "it does not measure it")
    able = [name for name, other in sorted(devices.items()) if metric in other.metrics]
    remedy = f"devices that can: {', '.join(able)}" if able else "no announced device can; leave it out"
    return f"{device.name} cannot tell {metric}: {reason}; {remedy}"


def _score_faults(spec: SearchSpec, known: Known) -> Iterator[Fault]:
    """Metrics that nobody knows, and scores of another task than the data set's."""
    dataset = known.datasets.get(spec.dataset.name)
    others = [*DEVICE_METRICS, *SYMBOLIC_METRICS, *MAP_METRICS]
    for pointer, part in _judged(spec):
        score = known.scores.get(part.metric)
        if score is None and part.metric not in others:
            yield Fault(
                f"{pointer}/metric", unknown_name("metric", part.metric, [*sorted(known.scores), *sorted(others)])
            )
        elif score is not None and dataset is not None and (reason := _unfit(score, dataset)):
            yield Fault(f"{pointer}/metric", reason)
        if score is not None and isinstance(part, ObjectiveSpec) and part.direction != score.direction:
            yield Fault(f"{pointer}/direction", f"{score.name} is to be {score.direction}d")


def _unfit(score: ScoreInfo, dataset: DatasetInfo) -> str:
    if score.task != dataset.task:
        return f"{score.name} is told of {score.task}, and {dataset.name} is a data set for {dataset.task}"
    if not score.least_classes <= dataset.classes <= (score.most_classes or dataset.classes):
        most = f" and at most {score.most_classes}" if score.most_classes else ""
        return f"{score.name} needs at least {score.least_classes}{most} classes; {dataset.name} has {dataset.classes}"
    return ""


def _limit_faults(spec: SearchSpec, scores: Mapping[str, ScoreInfo]) -> Iterator[Fault]:
    """Limits that no design can meet, whatever the space is."""
    for number, limit in enumerate(spec.limits):
        pointer, score = f"/limits/{number}", scores.get(limit.metric)
        if score is not None and score.scale is Scale.SHARE and limit.min is not None and limit.min > 1:
            yield Fault(f"{pointer}/min", f"{limit.metric} is a share; no design has more than 1")
        if limit.max is not None and limit.max < 0 and (score is None or score.scale is Scale.SHARE):
            yield Fault(f"{pointer}/max", f"no design can meet this: {limit.metric} is never below 0")
        lowest = min(
            (other.max for other in spec.limits if other.metric == limit.metric and other.max is not None), default=None
        )
        if limit.min is not None and lowest is not None and limit.min > lowest:
            yield Fault(
                f"{pointer}/min", f"no design can meet this: another limit keeps {limit.metric} to at most {lowest:g}"
            )


def _image_faults(spec: SearchSpec, known: Known) -> Iterator[Fault]:
    info = known.datasets.get(spec.dataset.name)
    wanted = {"calibrate": "calibration_images", "score": "score_images"}
    for split, field in wanted.items() if info else ():
        available = info.split_size(split) if info else 0
        asked = getattr(spec.evaluation, field)
        if asked is not None and asked > available:
            message = f"the split {split!r} of {spec.dataset.name} has {available:,} images; ask for at most that"
            yield Fault(f"/evaluation/{field}", message)
    available = info.split_size("score") if info else spec.evaluation.most_score_images
    yield from (Fault(*one) for one in step_faults(spec.evaluation, available))


def _training_faults(spec: SearchSpec, known: Known) -> Iterator[Fault]:
    """What is asked of a training that does not take place, or that it cannot do."""
    dataset, evaluation = known.datasets.get(spec.dataset.name), spec.evaluation
    if not isinstance(spec.network, NetworkSpec) and spec.recipe != RecipeSpec():
        message = "a recipe is for networks of the catalog; an imported one is trained already: leave the recipe out"
        yield Fault("/recipe", message)
    if evaluation.distillation is not None and dataset is not None and not dataset.classes:
        message = f"distillation is of classes, and {dataset.name} has values: leave it out"
        yield Fault("/evaluation/distillation", message)


def _warm_start_faults(spec: SearchSpec, known: Known) -> Iterator[Fault]:
    for number, search_id in enumerate(spec.warm_start):
        if search_id not in known.searches:
            yield Fault(f"/warm_start/{number}", f"there is no search {search_id}; see espalier list")


def _space_faults(spec: SearchSpec, space: Space) -> Iterator[Fault]:
    if space.size() == 1:
        message = "nothing can be varied: give a part of the space more than one choice that fits"
        yield Fault("/space", message)
    reach = symbolic_reach(space)
    for number, limit in enumerate(spec.limits):
        if limit.metric in reach:
            yield from _unreachable(f"/limits/{number}", limit, reach[limit.metric])


def _gradient_faults(spec: SearchSpec, known: Known, network: Network) -> Iterator[Fault]:
    opaque = next((node.name for node in network.nodes if node.op is Op.OPAQUE), None)
    for one in named_methods(spec, known) if opaque is not None else ():
        if one.kind is Kind.IMPORTANCE and one.name in GRADIENT_IMPORTANCES:
            message = f"{one.name} needs gradients, and none passes {opaque}, which is kept as it is"
            yield Fault(one.pointer, f"{message}; take one that needs none, such as l1 or filter_l2")


def _map_faults(spec: SearchSpec, network: Network) -> Iterator[Fault]:
    if spec.why_maps and not travelling_maps(network):
        message = f"{network.name} has no activation map between two operators; leave this out"
        yield Fault(spec.why_maps, message)


def _unreachable(pointer: str, limit: LimitSpec, reach: Reach) -> Iterator[Fault]:
    if limit.max is not None and 0 <= limit.max < reach.least:
        message = f"no design can meet this: the smallest {limit.metric} in this space is {reach.least:,.0f}"
        yield Fault(f"{pointer}/max", message)
    if limit.min is not None and limit.min > reach.greatest:
        message = f"no design can meet this: the greatest {limit.metric} in this space is {reach.greatest:,.0f}"
        yield Fault(f"{pointer}/min", message)


def _codec_warnings(spec: SearchSpec, devices: Mapping[str, DeviceCapabilities]) -> Iterator[str]:
    """Codecs change what is told of maps, and what a simulated device moves; nothing else of a design."""
    device = devices.get(spec.device) if spec.device else None
    is_told = any(part.metric in MAP_METRICS for _, part in _judged(spec)) or (device is not None and device.simulated)
    varied = spec.space.activation_codec
    if varied is not None and len(set(varied.choices)) > 1 and not is_told:
        yield "no objective or limit is told of activation maps: designs that differ in their codec will look alike"


def _training_warnings(spec: SearchSpec) -> Iterator[str]:
    evaluation = spec.evaluation
    asked = {"distillation": evaluation.distillation is not None, "activation_l1": evaluation.activation_l1 > 0}
    for name in [name for name, is_asked in asked.items() if is_asked and not evaluation.fine_tunes]:
        yield f"{name} is for fine-tuning: without finetune_epochs, of trials or finalists, only refining will use it"


def _rounding_warnings(spec: SearchSpec, space: Space) -> Iterator[str]:
    """What is asked of roundings that no design of the space has."""
    evaluation = spec.evaluation
    precisions = list(_precisions_of(space))
    trains = any(rung.epochs for rung in (evaluation.quantisation_aware, evaluation.finalists.quantisation_aware))
    if trains and not any(precision.is_integer for precision in precisions):
        yield "quantisation_aware is for layers that compute in integers, and none can: nothing will be trained so"
    if evaluation.bias_correction and all(precision.weight_bits == FLOAT_BITS for precision in precisions):
        yield "bias_correction is for rounded weights, and no layer can have any: nothing will be corrected"


def _precisions_of(space: Space) -> Iterator[Precision]:
    """Some precision of each choice that there is; with separate bits, those of the fewest activation bits."""
    choices = {kind: [c for d in space.decisions if d.kind is kind for c in d.choices] for kind in Kind}
    yield from (layer.precision for layer in space.network.compute_nodes())
    yield from (parse_precision(str(choice)) for choice in choices[Kind.PRECISION])
    activations = min((int(bits) for bits in choices[Kind.ACTIVATION_BITS]), default=FLOAT_BITS)
    yield from (Precision(int(bits), activations) for bits in choices[Kind.WEIGHT_BITS])


def _budget_warnings(spec: SearchSpec, space: Space) -> Iterator[str]:
    trials = spec.budget.trials
    if trials > space.size():
        yield f"the budget allows {trials:,} trials, the space has {space.size():,} designs: all will be tried"
    if len(space.uniform) > trials:
        yield f"the uniform baseline has {len(space.uniform):,} designs, more than the {trials:,} trials of the budget"
    if spec.budget.plateau is not None and spec.budget.plateau.trials >= trials:
        yield f"a plateau of {spec.budget.plateau.trials:,} trials is not seen within the {trials:,} of the budget"
    rungs = spec.evaluation.rungs
    if rungs is not None and rungs.keep is None and spec.budget.evaluator_s is None and spec.budget.wall_time_s is None:
        yield (
            f"trials that are stopped at a cheap step count among the {trials:,}, and most will be: "
            "bound the search by budget.evaluator_s, and allow several times as many"
        )
    for budget in spec.budget_limits:
        if budget.at_most > 1 and budget.relative_to == BASE:
            yield f"a budget of {budget.at_most:g} times the base's {budget.metric} limits hardly anything: 0.5 is half"
    if spec.sampler.population is not None and spec.sampler.name != SamplerName.NSGA2:
        yield f"the sampler {spec.sampler.name} has no population; it is ignored"


def waiting_for(device: str | None, known: Known) -> str:
    """Why a search on a device has to wait; empty when it need not."""
    if device is None:
        return ""
    if device in known.devices:
        return known.absent.get(device, "")
    announced = f"announced are {', '.join(sorted(known.devices))}" if known.devices else "none is announced"
    return f"no worker has announced the device {device!r} yet ({announced}); start a worker that has it"
