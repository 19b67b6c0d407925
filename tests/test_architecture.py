"""Who may import whom, how large things may get, and what the images carry."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("search_spaces", "service", "workers")
LEARNING = {"PIL", "onnx", "onnxruntime", "optuna", "torch"}
SERVING = {"celery", "fastapi", "sqlalchemy"}
LONGEST_FUNCTION, LONGEST_FILE = 60, 600


def test_import_contracts() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.app", LEARNING | {"search_spaces.samplers", "workers"}),
        ("service.cli", LEARNING | {"search_spaces.samplers", "workers"}),
        ("service.embedded", LEARNING | {"workers"}),
        ("search_spaces.check", LEARNING | SERVING | {"service", "workers"}),
        ("search_spaces.pareto", LEARNING | SERVING | {"service", "workers"}),
        ("search_spaces.parse", LEARNING | SERVING | {"service", "workers"}),
    ],
)
def test_importing_it_loads_no_more_than_it_should(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not unwanted & set(loaded.stdout.split())


def test_listing_searches_loads_no_learning_library() -> None:
    code = (
        "import sys\n"
        "from service.cli import app\n"
        "try: app(['list'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    environment = {"ESPALIER_PORT": "9", "PATH": ""}
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "No service answers" in loaded.stderr
    assert not LEARNING & set(loaded.stdout.split())


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_and_docstrings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "says not what it is for"
    assert text.count("\n") <= LONGEST_FILE
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_the_migrations_do_not_hide_the_installed_alembic() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


class TestImages:
    def stages(self) -> dict[str, str]:
        """The text of each build stage, by name."""
        stages: dict[str, str] = {}
        name = ""
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] == ["FROM"]:
                name = words[3]
            stages[name] = stages.get(name, "") + line + "\n"
        return stages

    def test_the_service_image_carries_no_workers_and_no_learning(self) -> None:
        stages = self.stages()
        service = stages["base"] + stages["service"]
        assert "[worker]" not in service
        assert "workers" not in service
        assert stages["service"].startswith("FROM base AS service")

    def test_the_worker_image_has_both_halves(self) -> None:
        worker = self.stages()["worker"]
        assert "COPY workers workers" in worker
        assert "'.[worker]'" in worker

    def test_everything_copied_is_sent_to_the_builder(self) -> None:
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for stage in self.stages().values():
            for words in (line.split() for line in stage.splitlines() if line.startswith("COPY")):
                assert set(words[1:-1]) <= allowed
                assert all((ROOT / name).exists() for name in words[1:-1])


class TestCompose:
    @pytest.fixture
    def services(self) -> dict[str, dict[str, object]]:
        document = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
        assert set(document["volumes"]) == {"postgres", "home"}
        services: dict[str, dict[str, object]] = document["services"]
        return services

    def test_parts(self, services: dict[str, dict[str, object]]) -> None:
        assert set(services) == {"postgres", "redis", "migrate", "service", "worker"}
        assert all("healthcheck" in services[name] for name in ("postgres", "redis"))

    def test_tables_are_made_before_they_are_used(self, services: dict[str, dict[str, object]]) -> None:
        for name in ("service", "worker"):
            assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}  # type: ignore[index]

    def test_service_and_worker_share_database_broker_and_files(self, services: dict[str, dict[str, object]]) -> None:
        assert services["service"]["environment"] == services["worker"]["environment"]
        assert services["service"]["volumes"] == services["worker"]["volumes"]

    def test_only_the_service_is_reachable_and_only_from_here(self, services: dict[str, dict[str, object]]) -> None:
        ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
        assert ports == {"service": ["127.0.0.1:8080:8080"]}
