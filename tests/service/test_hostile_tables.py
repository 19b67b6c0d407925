"""Tables that are made to exhaust, to poison or to confuse: each is refused as a whole, with what is wrong."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from search_spaces.costs import WorkloadKind, workloads
from search_spaces.precision import FP32
from search_spaces.signatures import workload_of
from search_spaces.tables.blocks import parse_block
from search_spaces.tables.proxyless import read_proxyless
from search_spaces.tables.row import TableError
from service.db import transaction
from service.measurements.actions import WorkloadKey, record
from tests.service.builders import LOCAL_CPU, add_device, new_measurement
from tests.service.test_measurement_tables import (
    CONV,
    NETWORK,
    OTHER,
    as_csv,
    as_parquet,
    faults_of,
    hand_over,
    items,
    nothing_stored,
    refused,
    row,
)

DISTINCT = tuple({one.digest: one for one in workloads(NETWORK)}.values())


def parquet_of(**columns: pa.Array) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"workload": [CONV.signature], "latency_ms": [0.05]} | columns), content)
    return content.getvalue()


class TestMemory:
    @pytest.mark.parametrize(
        "values",
        [
            pa.array([b"x"]),
            pa.array([[1.0]]),
            pa.array([{"a": 1}]),
            pa.array([1], pa.decimal128(5)),
            pa.array([1], pa.time64("us")),
            pa.array([b"x"]).dictionary_encode(),
        ],
    )
    def test_columns_of_other_types_are_not_read(self, client: httpx.Client, engine: Engine, values: pa.Array) -> None:
        found = faults_of(refused(hand_over(client, parquet_of(runtime=values))))
        assert list(found) == ["/columns/runtime"]
        assert "write texts, numbers or times" in found["/columns/runtime"]
        assert nothing_stored(engine)

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
    def test_texts_of_every_kind_are(self, client: httpx.Client, kind: pa.DataType) -> None:
        assert hand_over(client, parquet_of(runtime=pa.array(["x"], kind))).status_code == 201
        assert items(client)[0]["conditions"]["protocol"]["runtime"] == "x"

    def test_columns_of_one_name(self, client: httpx.Client) -> None:
        content = io.BytesIO()
        names = ["workload", "latency_ms", "latency_ms"]
        pq.write_table(pa.Table.from_arrays([pa.array([CONV.signature]), *2 * [pa.array([0.05])]], names), content)
        assert "columns of one name: latency_ms" in refused(hand_over(client, content.getvalue()))["detail"]

    @pytest.mark.parametrize(
        ("limit", "most", "message"),
        [
            ("flat_reading.MOST_BATCH_BYTES", 50, "3 of its rows have more than 50 bytes"),
            ("collected.MOST_CHARACTERS", 500, "more than 500 characters"),
            ("collected.MOST_SAMPLES_IN_ALL", 5, "more than 5 samples in all"),
            ("collected.MOST_CONDITIONS", 2, "more than 2 different conditions"),
            ("collected.MOST_DEVICES", 2, "more than 2 devices"),
        ],
    )
    def test_what_would_take_too_much_is_refused(
        self, client: httpx.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, message: str
    ) -> None:
        shared = {"samples": "[0.05, 0.06]"}
        rows = [row(one) | shared | {"device": f"d{number}"} for number, one in enumerate(DISTINCT[:3])]
        content = as_parquet(rows)
        with monkeypatch.context() as patched:
            patched.setattr(f"service.measurements.{limit}", most)
            assert message in refused(hand_over(client, content, device=None, new_device=True))["detail"]
        assert nothing_stored(engine)
        assert hand_over(client, content, device=None, new_device=True).status_code == 201

    def test_samples_that_rows_share_are_read_once(self, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        loads = json.loads
        monkeypatch.setattr("service.measurements.collecting.json.loads", lambda text: read.append(text) or loads(text))
        rows = [row() | {"samples": "[ 0.05]", "runtime": str(number)} for number in range(100)]
        assert hand_over(client, as_csv(rows)).status_code == 201
        assert read.count("[ 0.05]") == 1
        assert {tuple(item["samples"]) for item in items(client, samples=True)} == {(0.05 / 1000,)}

    def test_sqlite_takes_fewer_rows(
        self, client: httpx.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("service.measurements.imports.MOST_ROWS_ON_SQLITE", 1)
        for write in (as_csv, as_parquet):
            response = hand_over(client, write([row(), row(OTHER)]))
            if engine.dialect.name == "sqlite":
                assert "at most" in refused(response)["detail"]
            else:
                assert response.status_code == 201

    @pytest.mark.parametrize("text", ["1" + ":1" * 1000, "x" * 301])
    def test_numbers_to_base_60_take_no_time(self, text: str) -> None:
        for content in (f"a: {{mean: {text}}}\n", f"{text}: {{mean: 1}}\n"):
            with pytest.raises(TableError, match="more than 300 characters"):
                read_proxyless(content.encode(), FP32)


class TestPoison:
    @pytest.mark.parametrize(
        ("values", "column"),
        [
            ({"latency_ns": "1e-320"}, "latency_ns"),
            ({"memory_kb": "1e306"}, "memory_kb"),
            ({"metric": "latency_s", "median_ns": "0.5", "lower_quartile_ns": "1e-320", "upper_quartile_ns": "1"},
             "median_ns"),
            ({"metric": "memory_bytes", "median_kb": "5", "lower_quartile_kb": "5", "upper_quartile_kb": "1e306"},
             "median_kb"),
            ({"latency_ns": "50000", "samples": "[1e-320]"}, "samples"),
            ({"memory_kb": "5", "samples": "[1e306]"}, "samples"),
            ({"memory_kb": "5", "samples": "[0]"}, "samples"),
            ({"memory_kb": "5", "samples": "[-1]"}, "samples"),
            ({"memory_kb": "5", "measured_at": "1969-12-31T23:59:59Z"}, "measured_at"),
            ({"memory_kb": "5", "measured_at": "9999-01-01"}, "measured_at"),
            ({"memory_kb": "5", "device": "a\nb"}, "device"),
            ({"memory_kb": "5", "device": "../a"}, "device"),
            ({"memory_kb": "5", "device": "a" * 101}, "device"),
        ],
    )  # fmt: skip
    def test_a_value_that_nobody_could_read_again_is_not_stored(
        self, client: httpx.Client, engine: Engine, values: dict[str, str], column: str
    ) -> None:
        content = as_csv([row(**values)])
        assert list(faults_of(refused(hand_over(client, content, new_device=True)))) == [f"/rows/1/{column}"]
        assert nothing_stored(engine)

    def test_clocks_may_differ_by_a_day(self, client: httpx.Client) -> None:
        now = datetime.now(UTC)
        for ahead, status in ((timedelta(hours=23), 201), (timedelta(hours=25), 422)):
            content = as_parquet([row() | {"measured_at": now + ahead}])
            assert hand_over(client, content).status_code == status


class TestPlausibility:
    def test_weights_are_moved_once_however_many_images(self, client: httpx.Client) -> None:
        # 1e12 MACs and 8 GB take at least 1 ms; with 4 MB of weights for each image it would be 40 ms.
        described = {"layer": "linear", "input": [1000], "output": [1000], "kernel": [1, 1], "stride": [1, 1]}
        described |= {"dilation": [1, 1], "padding": [0, 0, 0, 0], "groups": 1, "precision": "fp32"}
        linear = workload_of(WorkloadKind.LAYER, described)
        for latency_s, status in ((0.9e-3, 422), (1.1e-3, 201)):
            assert hand_over(client, as_csv([row(linear, latency_s=latency_s)]), batch=10**6).status_code == status

    def test_work_that_is_not_all_told_is_not_judged(self, client: httpx.Client) -> None:
        opaque = workload_of(WorkloadKind.OPERATOR, json.loads(CONV.signature) | {"ops": ["opaque"], "body": "x"})
        block = parse_block("Conv-input:224x224x3-output:112x112x32", FP32)
        told = parse_block("expanded_conv-input:4x4x8-output:4x4x8-expand:6-kernel:3-stride:1-idskip:1", FP32)
        for one, unchecked in ((opaque, 1), (block, 1), (told, 0)):
            assert hand_over(client, as_csv([row(one)])).json()["unchecked"] == unchecked
        assert hand_over(client, as_csv([row(opaque, latency_s=1000.0)])).status_code == 201

    def test_each_device_is_compared_with_itself(self, client: httpx.Client, engine: Engine) -> None:
        keys = [WorkloadKey(one.kind, one.digest, one.signature) for one in DISTINCT]
        with transaction(engine) as session:
            for device, median in (("slow", 2e-3), ("fast", 2e-6)):
                record(session, [new_measurement(workload=key, device=device, median=median) for key in keys])
        rows = [
            row(one, latency_s=latency_s) | {"device": device}
            for one in DISTINCT
            for device, latency_s in (("fast", 3e-6), ("slow", 3e-3))
        ]
        assert hand_over(client, as_csv(rows), device=None).status_code == 201
        swapped = [one | {"device": {"fast": "slow", "slow": "fast"}[one["device"]]} for one in rows]
        problem = refused(hand_over(client, as_csv(swapped), device=None))
        assert "latency_s of fast is 1,296 times what this service has of it" in problem["detail"]


def test_the_same_file_of_a_device_that_has_changed_is_not_the_same(client: httpx.Client, engine: Engine) -> None:
    content = as_csv([row()])
    first = hand_over(client, content).json()
    add_device(engine, LOCAL_CPU.model_copy(update={"name": "another"}))
    assert hand_over(client, content).json() == first, "others do not matter"
    add_device(engine, LOCAL_CPU.model_copy(update={"fingerprint": {"runtime": "2"}}))
    second = hand_over(client, content).json()
    assert second["id"] != first["id"]
    assert sorted((item["import_id"], item["stale"]) for item in items(client)) == sorted(
        [(first["id"], True), (second["id"], False)]
    )
    assert hand_over(client, content).json() == second


def test_a_digest_alone_gets_its_signature_from_a_later_table(client: httpx.Client) -> None:
    bare = [{"workload_digest": CONV.digest, "kind": "block", "latency_ms": 0.05}]
    assert hand_over(client, as_csv(bare)).json()["unchecked"] == 1
    known: dict[str, Any] = items(client)[0]["workload"]
    assert known == {"kind": "block", "digest": CONV.digest, "signature": ""}
    assert hand_over(client, as_csv([row()])).status_code == 201
    assert [item["workload"] for item in items(client)] == 2 * [
        {"kind": "operator", "digest": CONV.digest, "signature": CONV.signature}
    ]
