"""What else a spec may name, as the API shows it: samplers, importances, metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from search_spaces.datasets import Task
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, SYMBOLIC_METRICS, Direction, Metric
from search_spaces.scores import BUILT_IN_SCORES, ScoreInfo
from search_spaces.spec import ImportanceName, SamplerName
from service.models import Offer

SAMPLERS = {
    SamplerName.AUTO: "chooses one of the others by space and budget, and says why",
    SamplerName.UNIFORM: "the uniform baseline alone: the same ratio and precision everywhere",
    SamplerName.GRID: "every design of the space in order",
    SamplerName.RANDOM: "designs at random, none twice",
    SamplerName.TPE: "tree-structured Parzen estimators, multivariate",
    SamplerName.NSGA2: "a genetic algorithm for several objectives",
    SamplerName.GP: "Gaussian processes, by Optuna",
    SamplerName.GREEDY: "each decision is measured alone, then whole designs are solved for",
    SamplerName.DDPG: "an agent that walks the layers, as AMC and HAQ do, at one cost after another",
    SamplerName.EVOLUTION: "breeds from the best, and tries what is expected to improve the front most",
}
IMPORTANCES = {
    ImportanceName.L1: "the sum of absolute weights that read a channel",
    ImportanceName.L2: "the root of the sum of squared weights that read a channel",
}
COSTS = {
    Metric.LATENCY_S: "seconds of one inference at batch 1, told by the device",
    Metric.ENERGY_J: "joules of one inference, told by the device",
    Metric.MEMORY_BYTES: "most bytes held at once for one inference, told by the device",
    Metric.SIZE_BYTES: "payload of the weights at their declared bits",
    Metric.MACS: "multiply-accumulates of one inference",
    Metric.PARAMETERS: "weights of convolutions and linear layers",
    Metric.ACTIVATION_TRAFFIC_BYTES: "bytes of activations that are written and read",
    Metric.PEAK_ACTIVATION_BYTES: "most bytes of activations that are alive at a time",
    Metric.ACTIVATION_BYTES: "bytes of the activation maps of one image, in the activation codec",
    Metric.ACTIVATION_NONZERO_SHARE: "share of the values of activation maps that are not zero",
}
INSTALLED = "installed by this service's operator"


class NamedBody(BaseModel):
    name: str
    description: str


class NamedPage(BaseModel):
    items: list[NamedBody]


class MetricBody(NamedBody):
    """A metric. `task`, and how many classes a data set must have, are told of scores only."""

    direction: Direction
    is_score: bool
    needs_device: bool
    task: Task | None = None
    least_classes: int = 0
    most_classes: int | None = None


class MetricPage(BaseModel):
    items: list[MetricBody]


def sampler_page(offers: Sequence[Offer]) -> NamedPage:
    return _page(SAMPLERS.items(), offers)


def importance_page(offers: Sequence[Offer]) -> NamedPage:
    return _page(IMPORTANCES.items(), offers)


def metric_page(offers: Sequence[Offer]) -> MetricPage:
    scores = [score.info for score in BUILT_IN_SCORES.values()]
    scores += [ScoreInfo.model_validate(row.details) for row in offers]
    return MetricPage(items=[*map(_score, scores), *(_cost(metric, text) for metric, text in COSTS.items())])


def _page(built_in: Iterable[tuple[str, str]], offers: Sequence[Offer]) -> NamedPage:
    named = [*built_in, *((row.name, INSTALLED) for row in offers)]
    return NamedPage(items=[NamedBody(name=name, description=text) for name, text in named])


def _score(info: ScoreInfo) -> MetricBody:
    return MetricBody(
        name=info.name,
        description=info.description,
        direction=info.direction,
        is_score=True,
        needs_device=False,
        task=info.task,
        least_classes=info.least_classes,
        most_classes=info.most_classes,
    )


def _cost(metric: Metric, description: str) -> MetricBody:
    return MetricBody(
        name=metric,
        description=description,
        direction=Direction.MINIMIZE,
        is_score=False,
        needs_device=metric in DEVICE_METRICS,
    )


assert COSTS.keys() == DEVICE_METRICS | SYMBOLIC_METRICS | MAP_METRICS
