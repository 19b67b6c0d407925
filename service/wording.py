"""The words and choices that pages and terminal share: how a design, an activity or a result is put.

Knows no database, no HTTP, no rich and no HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from search_spaces import pareto
from search_spaces.objectives import Direction, Metric, Provenance
from search_spaces.rank_correlation import LEAST_CORRELATION
from search_spaces.spec import BASE, ObjectiveSpec, SearchSpec
from service.units import show_with_unit, unit_of

NO_SOURCES: Mapping[str, str] = {}
ALWAYS_SHOWN = (Metric.LATENCY_S, Metric.SIZE_BYTES, Metric.MACS)
KIND_WORDS = {"groups": "number of groups"}
"""Of kinds of decisions whose name alone does not tell."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of an export's report."""

    name: str
    reported: str
    measured: str


def shown_metrics(objectives: Sequence[ObjectiveSpec]) -> tuple[str, ...]:
    """The objectives first, then what people ask for anyway."""
    return tuple(dict.fromkeys([*(objective.metric for objective in objectives), *map(str, ALWAYS_SHOWN)]))


def plot_axes(objectives: Sequence[ObjectiveSpec]) -> tuple[ObjectiveSpec, ObjectiveSpec] | None:
    """(across, upwards): the first minimised objective across, the first maximised one upwards, else the first two."""
    down = [objective for objective in objectives if objective.direction is Direction.MINIMIZE]
    up = [objective for objective in objectives if objective.direction is Direction.MAXIMIZE]
    if down and up:
        return down[0], up[0]
    return (objectives[0], objectives[1]) if len(objectives) > 1 else None


PREDICTED_MARK = "~"
"""Before a value that no device has told."""


def show_value(metric: str, values: Mapping[str, float], sources: Mapping[str, str] = NO_SOURCES) -> str:
    """The value in its shown unit, marked if it is predicted; a score with its 95% interval, where that is known."""
    unit = unit_of(metric)
    text = unit.show(values.get(metric))
    if sources.get(metric) == Provenance.PREDICTED:
        text = PREDICTED_MARK + text
    low, high = values.get(f"{metric}_low"), values.get(f"{metric}_high")
    return text if low is None or high is None else f"{text} ({unit.show(low)}-{unit.show(high)})"


def describe_values(values: Mapping[str, float], objectives: Sequence[ObjectiveSpec]) -> str:
    """Such as `accuracy 90.20 %, latency 0.412 ms`."""
    known = [objective.metric for objective in objectives if objective.metric in values]
    return ", ".join(f"{unit_of(metric).title} {show_with_unit(metric, values[metric])}" for metric in known)


def describe_budget(budget: Mapping[str, Any]) -> str:
    """Such as `MACs at most 50 % of the base: 12.3 of 24.6 M`."""
    metric = budget["metric"]
    whole = "the base" if budget["relative_to"] == BASE else f"the base in {budget['relative_to']}"
    text = f"{unit_of(metric).title} at most {100 * budget['at_most']:g} % of {whole}"
    if budget["base"] is None:
        return f"{text}, which is still to be measured"
    bound = budget["at_most"] * budget["base"]
    return f"{text}: {show_with_unit(metric, bound)} of {show_with_unit(metric, budget['base'])}"


def describe_sampler(sampler: Mapping[str, Any]) -> str:
    """Its name, why it was chosen, and how well it predicts."""
    text = f"{sampler['name']}: {sampler['why']}" if sampler["why"] else str(sampler["name"])
    ranked = sampler["rank_correlation"]
    if ranked is None:
        return text
    title = unit_of(ranked["metric"]).title
    if ranked["value"] is None:
        return f"{text}. Predicted {title}: {counted(ranked['trials'], 'trial')} to judge it by, too few"
    judged = f"rank correlation {ranked['value']:.2f} with what was found, over the last {ranked['trials']} trials"
    aside = "" if ranked["value"] >= LEAST_CORRELATION else "; it is left aside until it is better"
    return f"{text}. Predicted {title}: {judged}{aside}"


def best_values(objectives: Sequence[ObjectiveSpec], feasible: Iterable[Mapping[str, float]]) -> str:
    """The best value of each objective among feasible trials; empty when there is none yet."""
    everyone = list(feasible)
    best: dict[str, float] = {}
    for objective in objectives:
        seen = [values[objective.metric] for values in everyone if objective.metric in values]
        if seen:
            best[objective.metric] = max(seen) if objective.direction is Direction.MAXIMIZE else min(seen)
    return describe_values(best, objectives)


def describe_activity(activity: Mapping[str, Any] | None) -> str:
    """Such as `base, 40 %: epoch 1 of 2`."""
    if not activity:
        return ""
    message = f": {activity['message']}" if activity.get("message") else ""
    return f"{activity.get('stage', '')}, {100 * activity.get('share', 0):.0f} %{message}"


def describe_end(end: Mapping[str, Any] | None, problem: Mapping[str, Any] | None) -> str:
    """Such as `the hypervolume of the front has grown by ...`; empty while trials go on, or where a problem says it."""
    if not end or problem:
        return ""
    return end["message"] or plain_words(end["reason"])


def describe_extensions(extensions: Iterable[Mapping[str, Any]]) -> str:
    """Such as `2026-11-26 15:16 by 2 trials, 2026-11-27 09:00 by 40 trials`; empty where there is none."""
    return ", ".join(
        f"{str(one['at'])[:16].replace('T', ' ')} by {counted(one['trials'], 'trial')}" for one in extensions
    )


def describe_design(design: Mapping[str, Any]) -> str:
    """A design in a few words: for each kind of decision the values it takes."""
    kinds: dict[str, list[Any]] = {}
    for name, value in design.items():
        kinds.setdefault(name.partition("/")[0], []).append(value)
    parts = [f"{KIND_WORDS.get(kind, plain_words(kind))} {_spread(values)}" for kind, values in sorted(kinds.items())]
    return "; ".join(parts) or "as the base"


def describe_origin(origin: Mapping[str, Any] | None) -> str:
    """Whose trial found an outcome, such as `found by trial 3 of mobilenet-cpu (1a2b3c4d)`; empty for one's own."""
    if not origin:
        return ""
    return f"found by trial {origin['trial']} of {origin['name']} ({origin['search'][:8]})"


def describe_obtained(progress: Mapping[str, Any]) -> str:
    """Such as `12 found by other searches before, 40 taken over from others`; empty where all are a search's own."""
    words = {"reused": "found by other searches before", "inherited": "taken over from others"}
    return ", ".join(f"{progress[name]} {told}" for name, told in words.items() if progress.get(name))


def _spread(values: Sequence[Any]) -> str:
    if all(isinstance(value, int) for value in values) and len(set(values)) > 4:
        return f"{min(values)} to {max(values)}"
    counts = {value: sum(other == value for other in values) for value in sorted(set(values), key=str)}
    named = ((f"{count} x " if count > 1 else "", plain_words(str(value))) for value, count in counts.items())
    return ", ".join(f"{times}{value}" for times, value in named)


def verdict(found: Sequence[Mapping[str, float]], uniform: Sequence[Mapping[str, float]], spec: SearchSpec) -> str:
    """What the confirmed values say of the search against the uniform baseline, and no more than that."""
    if not found:
        return "The search found no design of its own that could be confirmed."
    if not uniform:
        return "No uniform design met the limits, so there is nothing to compare with."
    reference = pareto.reference_point([*found, *uniform], spec.objectives)
    ours = pareto.hypervolume(found, spec.objectives, reference)
    theirs = pareto.hypervolume(uniform, spec.objectives, reference)
    share = ours / theirs - 1 if theirs > 0 else float(ours > 0)
    how = "as good as" if abs(share) < _NO_DIFFERENCE else "better than" if share > 0 else "not better than"
    beaten = sum(any(_beats(one, rival, spec) for one in found) for rival in uniform)
    verb = "is" if 1 in (beaten, len(uniform)) else "are"
    return (
        f"The designs found are {how} the best uniform ones{_gain(share, theirs)}; "
        f"{beaten} of {counted(len(uniform), 'uniform design')} {verb} dominated."
    )


_NO_DIFFERENCE = 0.005
"""Of hypervolumes: less is not worth a word."""
_DOUBLE, _FIVEFOLD = 1.0, 4.0
"""A share of a small number is a large one, and says more of that number than of the search."""


def _gain(share: float, theirs: float) -> str:
    """How much more hypervolume there is than the uniform designs', which have `theirs`."""
    if abs(share) < _NO_DIFFERENCE:
        return ""
    if theirs <= 0 or share > _FIVEFOLD:
        return ", which reach less than a fifth of their hypervolume"
    return f" ({1 + share:.1f} times the hypervolume)" if share > _DOUBLE else f" ({100 * share:+.0f} % hypervolume)"


def _beats(one: Mapping[str, float], other: Mapping[str, float], spec: SearchSpec) -> bool:
    """Whether `one` dominates `other`: of the two alone, only `one` is on the front."""
    return pareto.front_indices([one, other], spec.objectives) == [0]


def report_figures(report: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Reported beside re-measured, for every metric that the report has on both sides."""
    reported, measured = report.get("reported", {}), report.get("remeasured", {})
    return tuple(
        Figure(unit_of(metric).heading, show_value(metric, reported), show_value(metric, measured))
        for metric in named_metrics(reported)
        if metric in measured
    )


FILE_KINDS = {
    "onnx": "the network, for ONNX Runtime, OpenVINO and what else reads ONNX",
    "safetensors": "its weights in floating point, with the network and the design as JSON",
    "packed.safetensors": "its weights in the bits that they are declared in, and so small",
    "html": "the report: what was decided, what it is worth, where it comes from",
    "py": "a Python program that runs it on pictures",
    "cpp": "the same in C++",
}
"""What a file of an export is, by how its name ends."""


def describe_file(filename: str) -> str:
    """What a file of an export is; empty where its name does not tell."""
    endings = [ending for ending in FILE_KINDS if filename.endswith(f".{ending}")]
    return FILE_KINDS[max(endings, key=len)] if endings else ""


@dataclass(frozen=True, slots=True)
class RefinedFigure:
    """One metric of a design: in the search, and on `confirm` before and after it was refined."""

    name: str
    searched: str
    before: str
    refined: str


def refined_figures(
    searched: Mapping[str, float], before: Mapping[str, float], refined: Mapping[str, float]
) -> tuple[RefinedFigure, ...]:
    """For every metric that is told of the refined design; before it only scores are told again."""
    return tuple(
        RefinedFigure(
            unit_of(metric).heading,
            show_value(metric, searched),
            show_value(metric, before) if metric in before else "",
            show_value(metric, refined),
        )
        for metric in named_metrics(refined)
    )


def describe_training(settings: Mapping[str, float]) -> str:
    """Such as `5 epochs at a learning rate of 0.01`."""
    return f"{counted(settings['epochs'], 'epoch')} at a learning rate of {settings['learning_rate']:g}"


class WeightsOrigin(StrEnum):
    """What has left the weights that an export is of."""

    SEARCHED = "searched"
    CONFIRMED = "confirmed"
    REFINED = "refined"


def describe_weights(report: Mapping[str, Any]) -> str:
    """Such as `as found` or `refined: 1.5 epochs at a learning rate of 0.01`; empty where a report does not tell."""
    weights = report.get("weights", {})
    origin = weights.get("origin")
    if origin == WeightsOrigin.REFINED:
        return f"refined: {describe_training(weights)}"
    return {WeightsOrigin.SEARCHED: "as found", WeightsOrigin.CONFIRMED: "as confirmed"}.get(origin, "")


def counted(number: float, noun: str) -> str:
    """Such as `1 epoch`, `0.5 epochs` or `1,200 trials`."""
    told = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{told} {noun}{'' if number == 1 else 's'}"


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Such as `epochs 2, schedule one cycle, flip no, distillation (temperature 4, weight 0.5)`.

    What belongs to a part, or is told by the name of a layer, stands in brackets, its names as they are.
    """
    return ", ".join(f"{plain_words(name)} {_setting(value)}" for name, value in settings.items())


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {_setting(one)}' for name, one in value.items())})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else plain_words(str(value))


def plain_words(name: str) -> str:
    """A name of code, as people read it."""
    return name.replace("_", " ")


_PARTS = ("images", "file_bytes")


def named_metrics(values: Mapping[str, float]) -> list[str]:
    """The metrics among values, those that come with Espalier first: no interval's ends, no counts."""
    known = [str(metric) for metric in Metric if metric in values]
    others = [name for name in values if name not in known and name not in _PARTS]
    return known + [name for name in others if not name.endswith(("_low", "_high"))]
