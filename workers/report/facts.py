"""What an export's report says, put together from what was found. Texts for people; no markup."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import yaml

from search_spaces.design import METHOD_KINDS, Design
from search_spaces.design_keys import design_key
from search_spaces.methods import method_of
from search_spaces.network import Network, Op
from search_spaces.quantisation import why_emulated
from search_spaces.spec import LimitSpec, NetworkSpec
from service.units import ABSENT, show_with_unit, unit_of
from service.wording import (
    counted,
    describe_design,
    describe_file,
    describe_settings,
    describe_training,
    describe_values,
    named_metrics,
    plain_words,
    show_value,
)
from workers.report.layers import Hue, LayerRow, layer_rows, legend
from workers.splits import Split
from workers.workbench import Workbench

_PACKAGES = ("espalier", "onnxruntime", "openvino", "torch", "onnx", "safetensors", "numpy")


class File(Protocol):
    """A stored file, as `workers.export.StoredFile`."""

    @property
    def filename(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Exported:
    """What was exported, and all that was found out about it.

    Attributes:
        network: as deployed.
        weights_digest: of the trained weights that it was rebuilt from; None where the base's own were taken.
        of_base: values of the base itself, with scores on `split`.
        details: evidence, with `checks` of `workers.verify`.
        split: whose images the reported scores are of.
        files: beside the report.
        refined: how the weights were trained on after the search; None where they were not.
        found: by which `sampler` (empty for the uniform baseline), as which `trial`, and what it was worth at each of
            the `rungs` before its full evaluation; empty where no search has found it.
    """

    bench: Workbench
    design: Design
    network: Network
    weights_digest: str | None
    of_base: Mapping[str, float]
    reported: Mapping[str, float]
    remeasured: Mapping[str, float]
    details: Mapping[str, Any]
    split: Split
    files: Sequence[File]
    refined: Mapping[str, float] | None = None
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A name and what is said of it; a digest or a command is set as code."""

    name: str
    text: str
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class FigureLine:
    name: str
    base: str
    reported: str
    measured: str


@dataclass(frozen=True)
class Facts:
    """All that the template shows, in its order."""

    title: str
    subtitle: str
    figures: tuple[FigureLine, ...]
    figures_of: str
    rows: tuple[LayerRow, ...]
    hues: tuple[Hue, ...]
    methods: tuple[Line, ...]
    checks: tuple[Line, ...]
    files: tuple[Line, ...]
    limits: tuple[str, ...]
    provenance: tuple[Line, ...]
    versions: tuple[Line, ...]
    commands: tuple[Line, ...]
    spec: str
    design: str


def facts_of(exported: Exported) -> Facts:
    """Put the report together."""
    bench, spec = exported.bench, exported.bench.spec
    rows = layer_rows(bench.base.network, exported.network)
    images = exported.details["images"]
    return Facts(
        title=spec.name,
        subtitle=f"{_network_name(bench)} on {bench.dataset.name}: {describe_design(exported.design)}",
        figures=tuple(_figures(exported)),
        figures_of=f"{images['count']:,} images of the split {images['split']}",
        rows=rows,
        hues=legend(rows),
        methods=tuple(_methods(exported)),
        checks=tuple(_checks(exported)),
        files=tuple(_files(exported)),
        limits=tuple(_limits(exported)),
        provenance=tuple(_provenance(exported)),
        versions=tuple(_versions()),
        commands=tuple(_commands(exported)),
        spec=yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True),
        design=json.dumps(exported.design.to_json(), indent=1),
    )


def _network_name(bench: Workbench) -> str:
    network = bench.spec.network
    return f"{network.family}" if isinstance(network, NetworkSpec) else bench.base.network.name


def _figures(exported: Exported) -> Iterator[FigureLine]:
    for metric in named_metrics(exported.remeasured):
        texts = (show_value(metric, values) for values in (exported.of_base, exported.reported, exported.remeasured))
        yield FigureLine(unit_of(metric).heading, *texts)


def _methods(exported: Exported) -> Iterator[Line]:
    spec, evaluation = exported.bench.spec, exported.bench.spec.evaluation
    for kind in sorted(METHOD_KINDS):
        yield Line(plain_words(kind), plain_words(method_of(exported.design, kind, spec)))
    yield Line("reconstruction", plain_words(evaluation.reconstruct))
    yield Line("bias correction", "yes" if evaluation.bias_correction else "no")
    yield Line("calibration images", f"{len(exported.bench.observed.images):,} of the split calibrate")
    yield Line(
        "fine-tuning",
        f"{counted(evaluation.finetune_epochs, 'epoch')} of every candidate, "
        f"{evaluation.finalists.finetune_epochs:g} more of finalists. What made a design worse was not kept",
    )
    if exported.refined is not None:
        yield Line("refined", f"after the search, for {describe_training(exported.refined)}")
    every, final = evaluation.quantisation_aware.epochs, evaluation.finalists.quantisation_aware.epochs
    if every or final:
        told = f"{counted(every, 'epoch')} of every candidate, {final or every:g} of finalists"
        yield Line("training through the rounding", told)
    yield from _found(exported)


def _found(exported: Exported) -> Iterator[Line]:
    """Who proposed the design, and what it was worth at the cheap steps that it has passed."""
    spec, found = exported.bench.spec, exported.found
    sampler = found.get("sampler", spec.sampler.name)
    who = f"{sampler}, seed {spec.sampler.seed}" if sampler else "nobody: it is of the uniform baseline"
    trial = [f"trial {found['trial']}"] if "trial" in found else []
    yield Line("found by", ", ".join([who, *trial, f"{counted(spec.budget.trials, 'trial')} at most"]))
    for number, step in enumerate(found.get("rungs", ()), start=1):
        taken = f"{counted(step['score_images'], 'image')}, {counted(step['finetune_epochs'], 'epoch')} of training"
        worth = describe_values(step["values"], spec.objectives) or "nothing that it could be ranked by"
        yield Line(f"at the cheap step {number}", f"{taken}: {worth}")


def _checks(exported: Exported) -> Iterator[Line]:
    checks = exported.details["checks"]
    operators = Counter(checks["executed"].values())
    counted = checks["recounted"]
    yield Line(
        "to the bit", "the ONNX file is what is written from the safetensors file, read back; so are packed weights"
    )
    yield Line(
        "counted in the file",
        f"{counted['parameters']:,} parameters and {counted['size_bytes']:,} bytes of payload, as reported",
    )
    yield Line(
        "executed",
        "every layer, and no other, in its declared precision with the file's own weights: "
        + ", ".join(f"{count} by {operator}" for operator, count in operators.most_common()),
    )
    for runtime in checks["runtimes"]:
        yield Line(runtime["runtime"], _describe_agreement(runtime, checks["images"]))


TELLS_NOTHING = 1.0
"""A difference as large as the outputs: so much was allowed."""


def _describe_agreement(runtime: Mapping[str, Any], images: int) -> str:
    if runtime["difference"] is None:
        return f"not run: {runtime['note']}"
    note = f"; {runtime['note']}" if runtime["note"] else ""
    if runtime["tolerance"] >= TELLS_NOTHING:
        return f"runs the file; at so few bits its outputs are too rough to be compared{note}"
    return (
        f"computes what the file says: its outputs for {images} images differ by {runtime['difference']:.1e} of their "
        f"size, and at most {runtime['tolerance']:.1e} was allowed{note}"
    )


def _files(exported: Exported) -> Iterator[Line]:
    for file in exported.files:
        yield Line(file.filename, f"{file.size_bytes:,} bytes: {describe_file(file.filename)}")


def _limits(exported: Exported) -> Iterator[str]:
    """What was asked of the design, and what this report cannot say."""
    for limit in exported.bench.spec.limits:
        yield _describe_limit(limit, exported.remeasured)
    if exported.split.name != exported.bench.splits.confirm.name:
        yield (
            "Scores are of the images that the search has chosen by, so that they flatter the design. Finalists are "
            "scored on the split confirm, which nothing is chosen by."
        )
    if reason := why_emulated(exported.network):
        yield (
            f"The ONNX file computes some layers in wider arithmetic than they are declared in ({reason}). It scores "
            "what hardware with such bits would compute, and is no faster and no smaller for them. The payload counts "
            "the declared bits, the file what it takes."
        )
    if any(node.op in (Op.OPAQUE, Op.POINTWISE) for node in exported.network.nodes):
        yield "The network has parts that are kept as they were imported. They are executed, and were not compressed."
    yield from _limits_of_device(exported)


def _describe_limit(limit: LimitSpec, values: Mapping[str, float]) -> str:
    bound, word = (limit.max, "at most") if limit.max is not None else (limit.min, "at least")
    value = values.get(limit.metric)
    title = unit_of(limit.metric).title
    asked = f"Asked for: {title} {word} {show_with_unit(limit.metric, bound)}"
    if value is None or bound is None:
        return f"{asked}; not measured."
    is_met = value <= bound if limit.max is not None else value >= bound
    return f"{asked}; the file has {show_with_unit(limit.metric, value)}{'' if is_met else ', which misses it'}."


def _limits_of_device(exported: Exported) -> Iterator[str]:
    device = exported.bench.device
    if device is None:
        yield "No device was named, so that nothing is said of latency and energy."
        return
    capabilities = device.capabilities()
    if capabilities.simulated:
        yield f"Figures of {capabilities.name} come from a model of that hardware. Nothing was executed on it."
    else:
        yield f"Figures of {capabilities.name} hold for the machine and the conditions below, and for no other."
    for metric, reason in sorted(capabilities.unavailable.items()):
        yield f"There is no {unit_of(metric).title}: {reason}"


def _provenance(exported: Exported) -> Iterator[Line]:
    bench, base = exported.bench, exported.bench.base
    yield Line("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    yield Line("design", design_key(base.network, exported.design), is_code=True)
    yield Line("base", base.key, is_code=True)
    if exported.weights_digest is None:
        yield Line("weights", "made of the base's again, as in the search")
    else:
        yield Line("weights, as trained", exported.weights_digest, is_code=True)
    yield Line("base trained", _describe_training(base.report))
    yield Line("data set", f"{bench.dataset.name} {bench.dataset.digest}".strip())
    digests = bench.splits.digests()
    for name, digest in digests.items():
        yield Line(f"split {name}, {len(getattr(bench.splits, name)):,} images", digest, is_code=True)
    yield from _conditions(exported)


def _describe_training(report: Mapping[str, Any]) -> str:
    recipe = report.get("recipe")
    if not recipe:
        return "elsewhere; its file was imported"
    return f"here, by the recipe: {describe_settings(recipe)}"


def _conditions(exported: Exported) -> Iterator[Line]:
    device = exported.bench.device
    if device is None:
        return
    capabilities = device.capabilities()
    yield Line("device", f"{capabilities.name}: {capabilities.description}")
    for name, value in sorted(capabilities.fingerprint.items()):
        yield Line(f"device, {plain_words(name)}", value)
    for measurement in exported.details.get("measurements", ()):
        unit = unit_of(measurement["metric"])
        ends = (unit.show(measurement[end]) for end in ("lower_quartile", "upper_quartile"))
        spread = f"half of {measurement['count']:,} values lie in {' to '.join(ends)} {unit.symbol}".strip()
        yield Line(f"{unit.title}, {measurement['provenance']}", spread)


def _versions() -> Iterator[Line]:
    yield Line("python", platform.python_version())
    for package in _PACKAGES:
        yield Line(package, _version(package))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def _commands(exported: Exported) -> Iterator[Line]:
    """With the spec and the design below saved as `spec.yaml` and `design.json`."""
    program = next((file.filename for file in exported.files if file.filename.endswith(".py")), None)
    if program is not None:
        yield Line("run it on pictures", f"python {program} picture.png", is_code=True)
    yield Line("try the design again", "espalier try spec.yaml --design design.json", is_code=True)
    yield Line("search again", "espalier submit spec.yaml --watch", is_code=True)
    for file in exported.files:
        yield Line("check a file", f"echo '{file.digest}  {file.filename}' | sha256sum --check", is_code=True)
