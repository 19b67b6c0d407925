"""Figures go out and come back as they were, in every format; what a table lacks of a network is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete
from typer.testing import CliRunner

from search_spaces.costs import WorkloadKind, network_workload, workloads
from search_spaces.network import network_to_json
from search_spaces.objectives import Metric, Provenance
from search_spaces.spec import Family
from search_spaces.tables.blocks import blocks_of
from search_spaces.tables.haq import layers_in
from search_spaces.tables.networks import catalog_network
from service.cli import app
from service.config import get_settings
from service.db import make_engine, reading, transaction, upgrade
from service.measurements.actions import NewMeasurement, WorkloadKey, record
from service.measurements.flat_export import export_table
from service.measurements.imports import import_table
from service.measurements.queries import Filters, list_measurements
from service.measurements.table_settings import TableFormat, TableSettings
from service.models import ImportedNetwork, Measurement, MeasurementImport
from tests.service.builders import LOCAL_CPU, add_device, new_measurement
from tests.service.test_measurement_tables import as_csv, faults_of, hand_over, nothing_stored, refused, row

MOBILE = catalog_network(Family.MOBILENET_V2, 1.0, (3, 32, 32), None, 10)
ALL = tuple({one.digest: one for one in (*workloads(MOBILE), network_workload(MOBILE))}.values())
FORMS = (TableFormat.CSV, TableFormat.PARQUET)

# Over all that a double can be, small ones included, whatever a device would say; memory is not compared with work.
values = st.floats(min_value=5e-324, max_value=1e300, allow_nan=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
documents = st.dictionaries(texts, st.one_of(texts, st.integers(-(2**53), 2**53), st.booleans()), max_size=3)


@st.composite
def measurements(draw: st.DrawFn) -> NewMeasurement:
    lower, median, upper = sorted(draw(st.lists(values, min_size=3, max_size=3)))
    one = draw(st.sampled_from(ALL))
    return new_measurement(
        workload=WorkloadKey(one.kind, one.digest, draw(st.sampled_from([one.signature]))),
        device=draw(st.sampled_from(["local-cpu", "my phone. The old-one"])),
        fingerprint=draw(documents),
        protocol=draw(documents) | {"batch": draw(st.integers(1, 64)), "threads": draw(st.integers(1, 64))},
        metric=Metric.MEMORY_BYTES,
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        count=draw(st.integers(1, 2**31 - 1)),
        samples=tuple(draw(st.lists(values, max_size=4))),
        anchor_ratio=draw(st.none() | st.floats(min_value=1e-300, max_value=1e300)),
        provenance=draw(st.sampled_from(Provenance)),
    )


def all_of(engine: Engine) -> list[Any]:
    """Everything that is said of each measurement; of an imported one, what it was."""
    with reading(engine) as session:
        found = list_measurements(session, Filters(), limit=1000, after=0, with_samples=True)
        told = [
            (
                (one.workload.kind, one.workload.digest, one.workload.signature),
                (one.conditions.digest, one.conditions.device, one.conditions.fingerprint, one.conditions.protocol),
                (one.measurement.metric, one.measurement.median, one.measurement.count, one.measurement.samples),
                (one.measurement.lower_quartile, one.measurement.upper_quartile, one.measurement.anchor_ratio),
                one.measurement.origin or one.measurement.provenance,
                one.measurement.created_at,
            )
            for one in found
        ]
    return sorted(told, key=repr)


def empty(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(delete(Measurement))
        session.execute(delete(MeasurementImport))


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_out_comes_back_as_it_was(form: TableFormat, engine: Engine, tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'other.db'}")
    other = make_engine(f"sqlite:///{tmp_path / 'other.db'}")

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(measurements(), min_size=1, max_size=6))
    def check(rows: list[NewMeasurement]) -> None:
        for one in (engine, other):
            empty(one)
        with transaction(engine) as session:
            record(session, rows)
        before = all_of(engine)
        content = b"".join(export_table(engine, Filters(), form))
        said = TableSettings(new_device=True, format=form)
        import_table(other, io.BytesIO(content), "table", said)
        assert all_of(other) == before
        # And once more, from there: what was imported says what it was before.
        content = b"".join(export_table(other, Filters(), form))
        empty(engine)
        import_table(engine, io.BytesIO(content), "table", said)
        assert all_of(engine) == before

    check()
    other.dispose()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_is_filtered_and_streamed(client: httpx.Client, engine: Engine, form: str) -> None:
    with transaction(engine) as session:
        record(session, [new_measurement(protocol={"batch": index}) for index in range(12_000)])
        record(session, [new_measurement(device="other")])
    params = {"format": form, "device": "local-cpu", "stale": False}
    with client.stream("GET", "/v1/measurements/export", params=params, timeout=60) as response:
        pieces = list(response.iter_bytes())
    assert response.status_code == 200
    assert f'filename="measurements.{form}"' in response.headers["content-disposition"]
    assert "content-length" not in response.headers
    content = b"".join(pieces)
    if form == "csv":
        assert len(content.splitlines()) == 12_001
    refusal = client.get("/v1/measurements/export", params={"format": "xls"})
    assert (refusal.status_code, refusal.json()["type"]) == (422, "urn:espalier:problem:invalid-request")


def test_an_empty_export_has_its_columns(client: httpx.Client) -> None:
    assert client.get("/v1/measurements/export").text.startswith('"device","kind","workload"')
    assert client.get("/v1/measurements/export?format=parquet").content[:4] == b"PAR1"


def haq_table(layers: int = 53) -> bytes:
    cycles = np.random.default_rng(0).integers(1000, 5000, (layers, 8, 8))
    content = io.BytesIO()
    np.save(content, cycles)
    return content.getvalue()


HAQ = {"format": "haq", "family": "mobilenet_v2", "input": [3, 32, 32], "classes": 10, "clock_hz": 1e8}
COVER = {"device": "local-cpu", "family": "mobilenet_v2", "input": "3,32,32", "classes": 10}


def coverage(client: httpx.Client, **params: Any) -> dict[str, Any]:
    response = client.get("/v1/measurements/coverage", params=COVER | params)
    found: dict[str, Any] = response.json()
    assert response.status_code == 200, found
    return found


class TestPublished:
    def test_a_table_of_layers_covers_every_precision(self, client: httpx.Client) -> None:
        response = hand_over(client, haq_table(), **HAQ, provenance="simulated")
        assert response.status_code == 201, response.json()
        distinct = {one.digest for one in layers_in(MOBILE, next(iter(MOBILE.compute_nodes())).precision)}
        assert response.json()["measurements"] == 64 * len(distinct)
        for precision in ("w4a8", "w8a8", "w1a2"):
            found = coverage(client, precision=precision)
            others = [one for one in found["missing"] if "pool" not in one["nodes"] and "add" not in str(one["nodes"])]
            assert others == []
            assert found["found"] == {"layer": found["workloads"] - len(found["missing"])}
        assert coverage(client, precision="fp32")["found"] == {}

    def test_what_the_file_does_not_say_is_asked_for(self, client: httpx.Client, engine: Engine) -> None:
        problem = refused(hand_over(client, haq_table(), format="haq"))
        assert set(faults_of(problem)) == {f"/settings/{key}" for key in ("family", "input", "classes", "clock_hz")}
        assert "53 x 8 x 8" in faults_of(refused(hand_over(client, haq_table(28), **HAQ)))["/shape"]
        content = b"Conv-input:32x32x3-output:16x16x32: {mean: 1.0}\n"
        assert set(faults_of(refused(hand_over(client, content, format="proxyless")))) == {"/settings/precision"}
        assert nothing_stored(engine)

    def test_blocks_cover_their_operators_and_what_is_missing_is_named(self, client: httpx.Client) -> None:
        keys = [
            key_of(json.loads(block.signature))
            for block, _ in blocks_of(MOBILE)
            if block.name not in ("block3", "head")
        ]
        content = "".join(f"{key}: {{count: 5, mean: 1.0, var: 0.01}}\n" for key in dict.fromkeys(keys)).encode()
        response = hand_over(client, content, format="proxyless", precision="fp32", count=None)
        assert response.status_code == 201, response.json()
        found = coverage(client)
        assert {node for one in found["missing"] for node in one["nodes"]} >= {"block3.expand", "head"}
        assert all(node.partition(".")[0] in ("block3", "head") for one in found["missing"] for node in one["nodes"])
        assert set(found["found"]) == {"block"}

    def test_energy_and_latency_of_convs(self, client: httpx.Client) -> None:
        content = json.dumps({"(32,32,16,3,1,1,32)-W8A8": {"energy": 0.01, "latency": 0.02}}).encode()
        assert hand_over(client, content, format="apq", provenance="simulated").json()["measurements"] == 2
        for metric in ("latency_s", "energy_j"):
            found = coverage(client, precision="w8a8", metric=metric)
            assert found["found"] == {"layer": 1}
        assert coverage(client, precision="w4a8")["found"] == {}


def key_of(parts: dict[str, Any]) -> str:
    names = {"expanded_conv": "expanded_conv", "conv": "Conv", "conv_1": "Conv_1", "logits": "Logits"}
    shapes = [f"{name}:{'x'.join(map(str, parts[name]))}" for name in ("input", "output")]
    numbers = [f"{name}:{value}" for name, value in parts["numbers"].items()]
    return "-".join([names[parts["block"]], *shapes, *numbers])


class TestCoverage:
    def test_every_missing_workload_is_named_once_with_its_nodes(self, client: httpx.Client, engine: Engine) -> None:
        known = [one for one in ALL if one.name not in ("stem", "block2.expand")]
        with transaction(engine) as session:
            record(
                session,
                [new_measurement(workload=WorkloadKey(one.kind, one.digest, one.signature)) for one in known],
            )
        found = coverage(client, batch=1, threads=1)
        assert [one["nodes"] for one in found["missing"]] == [["stem"], ["block2.expand"]]
        assert found["whole_network"] is True
        assert found["found"] == {"operator": found["workloads"] - 2}
        assert len(coverage(client, batch=2)["missing"]) == found["workloads"], "of another batch nothing is known"
        add_device(engine, LOCAL_CPU.model_copy(update={"fingerprint": {"runtime": "2"}}))
        stale = coverage(client)
        assert (stale["found"], stale["stale"], stale["whole_network"]) == ({}, found["workloads"] - 2, False)
        assert coverage(client, allow_stale=True)["found"] == found["found"]

    def test_an_imported_network(self, client: httpx.Client, engine: Engine) -> None:
        with transaction(engine) as session:
            session.add(
                ImportedNetwork(
                    id="1", name="mine", filename="x", upload_digest="d" * 64, network=network_to_json(MOBILE)
                )
            )
        params = {"device": "local-cpu", "network": "mine"}
        response = client.get("/v1/measurements/coverage", params=params)
        assert len(response.json()["missing"]) == len(ALL) - 1

    @pytest.mark.parametrize(
        ("params", "status"),
        [
            ({"device": "local-cpu"}, 422),
            ({"device": "local-cpu", "network": "nothing"}, 404),
            ({"device": "local-cpu", "network": "a", "family": "resnet_18"}, 422),
            ({"device": "local-cpu", "family": "resnet_18"}, 422),
            ({"device": "local-cpu", "family": "resnet_18", "input": "3,0,9"}, 422),
            ({"device": "local-cpu", "family": "resnet_18", "input": "3,32,32", "precision": "w99a1"}, 422),
            ({"device": "no-such", "family": "resnet_18", "input": "3,32,32"}, 404),
            ({"device": "local-cpu", "network": "mine", "width": "0.5"}, 422),
        ],
    )
    def test_questions_that_make_no_sense(self, client: httpx.Client, params: dict[str, str], status: int) -> None:
        response = client.get("/v1/measurements/coverage", params=params)
        assert response.status_code == status, response.text


class TestCommands:
    @pytest.fixture
    def run(self, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("ESPALIER_PORT", str(client.base_url.port))
        get_settings.cache_clear()
        return lambda *words: CliRunner().invoke(app, ["measurements", *words])

    def test_in_out_and_what_is_missing(self, run: Any, client: httpx.Client, tmp_path: Path) -> None:
        table, back = tmp_path / "table.csv", tmp_path / "back.parquet"
        table.write_bytes(as_csv([row(one, latency=0.05) for one in ALL if one.kind is WorkloadKind.OPERATOR]))
        said = ["--device", "local-cpu", "--batch", "1", "--threads", "1", "--count", "1", "--provenance", "measured"]
        asked = run("import", str(table), *said)
        assert asked.exit_code == 1
        assert "--unit" in asked.output or "unit" in asked.output
        done = run("import", str(table), *said, "--unit", "ms")
        assert done.exit_code == 0, done.output
        assert f"{len(ALL) - 1} figures of {len(ALL) - 1} workloads" in done.output
        written = run("export", str(back), "--device", "local-cpu")
        assert written.exit_code == 0, written.output
        assert back.read_bytes()[:4] == b"PAR1"
        assert [path.name for path in tmp_path.glob(".*.part")] == []
        wanted = ["--family", "mobilenet_v2", "--input", "3,32,32", "--device", "local-cpu"]
        assert run("coverage", *wanted, "--classes", "10").exit_code == 0
        lacking = run("coverage", *wanted, "--classes", "12")
        assert lacking.exit_code == 1
        assert "classifier" in lacking.output

    def test_a_bad_row_is_shown(self, run: Any, client: httpx.Client, tmp_path: Path) -> None:
        table = tmp_path / "table.csv"
        table.write_bytes(as_csv([row(latency_ms=-1.0)]))
        said = ["--device", "local-cpu", "--batch", "1", "--threads", "1", "--count", "1", "--provenance", "measured"]
        refusal = run("import", str(table), *said)
        assert refusal.exit_code == 1
        assert "/rows/1/latency_ms" in refusal.output
        assert "Traceback" not in refusal.output
