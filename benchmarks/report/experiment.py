"""What every experiment of the report is, and what they share: networks, recipes, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.report.cells import Cell, Result, Scale
from benchmarks.report.material import Bench, mean_and_interval
from search_spaces.datasets import DATASETS
from search_spaces.network import Network
from search_spaces.spec import Family
from service.web.curves import Point
from workers.base import Base
from workers.recipe import Recipe, recipe_for

Pictures = Mapping[str, str]
"""SVG text by file name."""

DATASET = "fashion_mnist_cluttered"
"""On the plain one, networks and bits of all sizes are right about as often."""


@dataclass(frozen=True)
class Experiment:
    """One chapter.

    Attributes:
        cells: all that is computed.
        page: Markdown and pictures, of whatever cells are done.
    """

    title: str
    cells: Callable[[Scale, Bench], Sequence[Cell]]
    page: Callable[[Sequence[Result]], tuple[str, Pictures]]


@dataclass(frozen=True)
class Subject:
    """A network that is trained here, small enough for two cores.

    Attributes:
        epochs: of its base in the full report.
    """

    family: Family
    width: float
    epochs: float
    stem_stride: int | None = None

    def network(self, bench: Bench) -> Network:
        return bench.network(self.family, self.width, DATASET, self.stem_stride)

    def recipe(self, scale: Scale, seed: int, **changes: Any) -> Recipe:
        usual = recipe_for(DATASETS[DATASET], self.family)
        return replace(usual, epochs=self.epochs * scale.epochs, seed=seed, shift_pixels=0, **changes)

    def base(self, bench: Bench, scale: Scale, seed: int, **changes: Any) -> Base:
        return bench.base(self.network(bench), DATASET, self.recipe(scale, seed, **changes))


MOBILENET = Subject(Family.MOBILENET_V1, 0.25, 3.0, stem_stride=1)
WIDER = Subject(Family.MOBILENET_V1, 0.5, 3.0, stem_stride=2)
"""Wide enough for pairs of group sizes and numbers of groups with equal multiply-accumulates."""

VGG = Subject(Family.VGG_13, 0.25, 2.0)
RESNET = Subject(Family.RESNET_56, 0.5, 1.0)


def chosen(results: Iterable[Result], **wanted: Any) -> list[Result]:
    """Those whose parameters are as wanted."""
    return [one for one in results if all(one.parameters.get(name) == value for name, value in wanted.items())]


def values_of(results: Iterable[Result], name: str) -> list[float]:
    """One figure of each result that has it."""
    return [float(one.figures[name]) for one in results if one.figures.get(name) is not None]


def by_seed(results: Iterable[Result], name: str) -> list[float]:
    """A figure that does not depend on anything but the seed, once for each."""
    return list({one.parameters["seed"]: float(one.figures[name]) for one in results if name in one.figures}.values())


SPREAD = "median of the seeds, and the lowest to the highest of them"
"""What `percent` and `spread` tell. An interval of three seeds reaches beyond all that can be where they differ."""


def percent(values: Sequence[float]) -> str:
    """`71.9 (71.0 to 73.0)`; nothing where there are no values."""
    if not values:
        return ""
    middle, low, high = (f"{100 * value:.1f}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def spread(x: float, values: Sequence[float]) -> Point:
    """The same as a mark of a picture."""
    return Point(x, median(values), min(values), max(values))


def points_gained(differences: Sequence[float]) -> str:
    """`1.4 ± 3.4`: mean of paired differences, in points, and its 95% interval; nothing where there are none."""
    if not differences:
        return ""
    mean, low, _ = mean_and_interval(differences)
    half = "" if len(differences) < 2 else f" ± {100 * (mean - low):.1f}"
    return f"{100 * mean:+.1f}{half}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
