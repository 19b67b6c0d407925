"""What is public is documented: a setting, command, route, make target, metric or sampler that is not fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_group

from search_spaces.datasets import DATASETS
from search_spaces.objectives import Metric
from search_spaces.parse import parse_document, parse_spec
from search_spaces.spec import (
    BudgetSpec,
    DdpgSpec,
    DistillationSpec,
    EvaluationSpec,
    Family,
    FinalistsSpec,
    GreedySpec,
    NetworkSpec,
    Optimizer,
    PlateauSpec,
    QuantisationAwareSpec,
    RecipeSpec,
    RegulariserName,
    RegulariserSpec,
    RungsSpec,
    SamplerName,
    SamplerSpec,
    Schedule,
    SearchSpec,
    SpaceSpec,
    StepSpec,
)
from service.app import create_app
from service.cli import app
from service.config import Settings
from service.examples import example_path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    QuantisationAwareSpec,
    SearchSpec,
    NetworkSpec,
    SpaceSpec,
    SamplerSpec,
    DdpgSpec,
    GreedySpec,
    RecipeSpec,
    RegulariserSpec,
    EvaluationSpec,
    DistillationSpec,
    FinalistsSpec,
    BudgetSpec,
    PlateauSpec,
    RungsSpec,
    StepSpec,
)
WAY_OUT = re.compile(r"\]\(([^)#]+)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_settings(name: str) -> None:
    assert f"`ESPALIER_{name.upper()}`" in read("README.md")


@pytest.mark.parametrize("name", sorted([*get_group(app).commands, "try", "worker"]))
def test_commands(name: str) -> None:
    assert f"`espalier {name}" in read("docs/cli.md")


def test_routes(tmp_path: Path) -> None:
    text = read("docs/api.md")
    described = create_app(Settings(home=tmp_path)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert {route for route in routes if f"`{route}`" not in text} == set()


@pytest.mark.parametrize("word", [*Metric, *SamplerName, *Family, *DATASETS, *Optimizer, *Schedule, *RegulariserName])
def test_words_of_a_spec(word: str) -> None:
    assert f"`{word}`" in read("docs/spec.md")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_keys_of_a_spec(part: type[SearchSpec]) -> None:
    text = read("docs/spec.md")
    assert {name for name in part.model_fields if not re.search(rf"\b{name}\b", text)} == set()


def test_make_targets() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE)
    assert {"setup", "demo", "up", "test", "lint", "bench", "bench-search", "help"} <= set(targets)
    assert [target for target in targets if f"`make {target}`" not in read("README.md")] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = [link for link in WAY_OUT.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in targets if not (document.parent / link).exists()] == []


def test_examples_are_specs() -> None:
    for path in example_path().parent.glob("*.yaml"):
        assert parse_spec(parse_document(path.read_bytes(), yaml=True)).name


def test_architecture_names_what_exists() -> None:
    tree = read("ARCHITECTURE.md").split("```")[1]
    named = re.findall(r"([a-z_]+(?:\.py|/))", tree)
    folders = [
        ROOT / name for name in ("search_spaces", "service", "workers", "tests", "alembic", "benchmarks", "docs")
    ]
    paths = [*folders, *(path for folder in folders for path in folder.rglob("*"))]
    existing = {f"{path.name}/" if path.is_dir() else path.name for path in paths}
    assert [name for name in named if name not in existing] == []
