"""What people are told of the networks and data sets that they brought, as words. JSON of the API in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.states import JobState

Json = Mapping[str, Any]
FEW = 8
"""Of names in one line."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is told: what of, and what."""

    name: str
    text: str


def network_facts(report: Json) -> tuple[Fact, ...]:
    """What an imported network is, and how far it is what the file says; nothing before it is imported."""
    if not report:
        return ()
    source, contract = report["source"], report["input"]
    facts = [
        Fact("source", _source(source)),
        Fact("parity", _parity(report["parity"])),
        Fact("size", f"{report['nodes']} nodes, {report['layers']} layers with weights, in {report['blocks']} blocks"),
        Fact("costs", f"{report['macs'] / 1e6:,.2f} M MACs, {report['parameters'] / 1e6:,.3f} M weights"),
        Fact("input", _shape(contract)),
        Fact("normalised", f"mean {_few(contract['mean'])}; std {_few(contract['std'])}, of pixels in [0, 1]"),
        Fact("outputs", _outputs(report)),
        Fact("can be pruned", _searchable(report["groups"])),
    ]
    return tuple(facts)


def fixed_parts(report: Json) -> tuple[Fact, ...]:
    """What cannot be searched, by node or channel group, with the reason."""
    if not report:
        return ()
    fixed = [Fact(one["node"], one["reason"]) for one in report["fixed"]]
    frozen = [
        Fact(one["name"], f"its {one['size']} channels stay: {one['frozen']}")
        for one in report["groups"]
        if one["frozen"] and one["frozen"] not in _AS_EVER
    ]
    return (*fixed, *frozen)


_AS_EVER = ("the network's input", "the network's output")


def usable_version(dataset: Json) -> Json:
    """The newest version that can be used; where none can, the newest."""
    versions: Sequence[Json] = dataset["versions"]
    return next((one for one in versions if one["state"] == JobState.SUCCEEDED), versions[0])


def dataset_facts(item: Json, report: Json) -> tuple[Fact, ...]:
    """What a data set is; nothing before it is indexed."""
    if not report:
        return ()
    splits = ", ".join(f"{count:,} {name}" for name, count in report["splits"].items())
    facts = [
        Fact("images", f"{report['images']:,}: {splits}"),
        Fact("labels", _labels(item, report)),
        Fact("sizes", _sizes(report["sizes"])),
    ]
    told = [f"{split}: {100 * half:.1f} points" for split, half in report["half_widths"].items()]
    if told:
        facts.append(Fact("an accuracy of 90% is told to within", ", ".join(told)))
    return tuple(facts)


def class_rows(report: Json) -> tuple[tuple[str, ...], ...]:
    """Name and number of images in each split, of each class."""
    splits = list(report.get("splits", {}))
    return tuple((one["name"], *(f"{one[split]:,}" for split in splits)) for one in report.get("classes", ()))


def notes_of(report: Json) -> tuple[str, ...]:
    """What to know, in sentences."""
    return tuple(note if isinstance(note, str) else _note(note) for note in report.get("notes", ()))


def _note(note: Json) -> str:
    shown = note["parts"][:FEW]
    rest = note["count"] - len(shown)
    more = f", and {rest:,} more" if rest > 0 else ""
    named = f": {'; '.join(shown)}{more}" if shown else ""
    return f"{note['message']}{named}"


def _source(source: Json) -> str:
    known = [source["format"], f"opset {source['opset']}" if source.get("opset") else "", source.get("producer", "")]
    return f"{', '.join(part for part in known if part)}; {source['bytes']:,} bytes"


def _parity(parity: Json | None) -> str:
    if parity is None:
        return "weights of a network of the catalog: there is no other file to compare with"
    return (
        f"on {parity['images']} random images outputs differ from the file's by at most "
        f"{parity['in_onnx_runtime']:.1e} of their size in ONNX Runtime, {parity['in_torch']:.1e} in torch"
    )


def _shape(contract: Json) -> str:
    channels, height, width = contract["shape"]
    resize = contract.get("resize") or 0
    how = f"the shorter side resized to {resize}, " if resize else "resized until they cover it, "
    return f"{channels} x {height} x {width}; images are {how}and the middle is cut out"


def _outputs(report: Json) -> str:
    names = report["class_names"]
    return f"{report['outputs']}" + (f": {_few(names)}" if names else "; nobody said what they mean")


def _searchable(groups: Sequence[Json]) -> str:
    free = [group for group in groups if not group["frozen"]]
    staying = ", ".join(dict.fromkeys(group["frozen"] for group in groups if group["frozen"]))
    rest = f"; what stays: {staying}" if staying else ""
    return f"{len(free)} of {len(groups)} channel groups, {sum(group['size'] for group in free):,} channels{rest}"


def _labels(item: Json, report: Json) -> str:
    values = report.get("values")
    if values:
        return f"values from {values['least']:g} to {values['greatest']:g}, {values['mean']:.4g} on average"
    return f"{item['classes']:,} classes: {_few(item['class_names'])}"


def _sizes(sizes: Sequence[Json]) -> str:
    shown = [f"{one['width']} x {one['height']} ({one['images']:,})" for one in sizes[:FEW]]
    return ", ".join(shown) + (", ..." if len(sizes) > FEW else "")


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(str(item) for item in items[:FEW])
    return f"{shown}, ... {items[-1]}" if len(items) > FEW else shown
