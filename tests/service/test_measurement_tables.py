"""Tables of figures over HTTP: handed over, handed out, refused with what is wrong, on both databases."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, func, select

from search_spaces.catalog import build_network
from search_spaces.costs import Workload, network_workload, workloads
from search_spaces.spec import Family, NetworkSpec
from service.db import reading, transaction
from service.measurements.actions import WorkloadKey, record
from service.models import Conditions, Measurement, MeasurementImport
from service.models import Workload as WorkloadRow
from tests.service.builders import LOCAL_CPU, add_device, new_measurement

SPEC = NetworkSpec(family=Family.MOBILENET_V1, width=0.25, input=(3, 32, 32))
NETWORK = build_network(SPEC, 10, (0.5,) * 3, (0.5,) * 3)
CONV = next(one for one in workloads(NETWORK) if one.name == "block3.pointwise")
OTHER = next(one for one in workloads(NETWORK) if one.name == "block5.pointwise")
SAID = {"device": "local-cpu", "batch": 1, "threads": 1, "count": 1, "provenance": "measured"}


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for one in rows for name in one)
    return pa.table({name: [one.get(name) for one in rows] for name in names})


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.BytesIO()
    pa_csv.write_csv(as_table(rows), text)
    return text.getvalue()


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    content = io.BytesIO()
    pq.write_table(as_table(rows), content)
    return content.getvalue()


def hand_over(client: httpx.Client, content: bytes, **said: Any) -> httpx.Response:
    settings = {key: value for key, value in (SAID | said).items() if value is not None}
    return client.post(
        "/v1/measurements/import",
        files={"file": ("../table.csv", content)},
        data={"settings": json.dumps(settings)},
    )


def items(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    response = client.get("/v1/measurements", params=params)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def refused(response: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["type"]) == (422, "urn:espalier:problem:invalid-table"), problem
    assert problem["fault_count"] >= 1
    return problem


def faults_of(problem: Mapping[str, Any]) -> dict[str, str]:
    return {fault["pointer"]: fault["detail"] for fault in problem.get("errors", [])}


def nothing_stored(engine: Engine) -> bool:
    with reading(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(table))
            for table in (Measurement, WorkloadRow, Conditions, MeasurementImport)
        ]
    return counts == [0, 0, 0, 0]


def row(workload: Workload = CONV, **values: Any) -> dict[str, Any]:
    return {"workload": workload.signature} | (values or {"latency_ms": 0.05})


class TestImport:
    @pytest.mark.parametrize("write", [as_csv, as_parquet])
    def test_a_table_becomes_figures(self, client: httpx.Client, write: Any) -> None:
        content = write([row(latency_ms=0.05), row(OTHER, latency_ms=0.25)])
        response = hand_over(client, content, runtime="tflite 2.16")
        body = response.json()
        assert response.status_code == 201, body
        assert (body["rows"], body["measurements"], body["workloads"], body["conditions"]) == (2, 2, 2, 1)
        assert (body["unchecked"], body["filename"]) == (0, "table.csv")
        fast, slow = sorted(items(client, device="local-cpu"), key=lambda item: item["median"])
        assert (fast["median"], slow["median"]) == (0.05 / 1000, 0.25 / 1000)
        assert fast["workload"] == {"kind": "operator", "digest": CONV.digest, "signature": CONV.signature}
        assert fast["conditions"]["protocol"] == {"batch": 1, "threads": 1, "runtime": "tflite 2.16"}
        assert (fast["provenance"], fast["origin"], fast["stale"]) == ("imported", "measured", False)
        assert (fast["lower_quartile"], fast["upper_quartile"], fast["count"]) == (5e-5, 5e-5, 1)
        assert (fast["import_id"], fast["samples"]) == (body["id"], None)

    def test_the_same_again_is_the_same_import(self, client: httpx.Client) -> None:
        content = as_csv([row()])
        first, second = hand_over(client, content), hand_over(client, content)
        assert first.json() == second.json()
        assert len(items(client)) == 1
        assert hand_over(client, content, threads=2).json()["id"] != first.json()["id"]
        assert len(items(client, import_id=first.json()["id"])) == 1

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"latency_s": 5e-5}, {}),
            ({"latency_us": 50.0}, {}),
            ({"latency": 50_000.0}, {"unit": "ns"}),
            ({"metric": "latency_s", "median_ms": 0.05}, {}),
            ({"metric": "latency_s", "median": 0.05, "unit": "ms"}, {}),
            ({"metric": "latency_s", "median": 0.05}, {"unit": "ms"}),
        ],
    )
    def test_units_are_said_in_one_of_three_places(
        self, client: httpx.Client, columns: dict[str, Any], said: dict[str, Any]
    ) -> None:
        assert hand_over(client, as_csv([row(**columns)]), **said).status_code == 201
        (item,) = items(client)
        assert item["median"] == pytest.approx(5e-5, rel=1e-12)

    def test_several_metrics_in_a_row(self, client: httpx.Client) -> None:
        content = as_csv([row(latency_ms=0.05, energy_mj=0.2, memory_kb=64.0), row(OTHER, latency_ms=0.1)])
        assert hand_over(client, content).json()["measurements"] == 4
        figures = {(item["workload"]["digest"], item["metric"]): item["median"] for item in items(client)}
        assert figures[(CONV.digest, "energy_j")] == pytest.approx(2e-4)
        assert figures[(CONV.digest, "memory_bytes")] == pytest.approx(64_000)
        assert (OTHER.digest, "energy_j") not in figures

    def test_quartiles_samples_time_and_conditions_of_the_file(self, client: httpx.Client) -> None:
        content = as_csv(
            [
                row(metric="latency_s", median_ms=0.05, lower_quartile_ms=0.04, upper_quartile_ms=0.07)
                | {"samples": "[0.04, 0.05, 0.07]", "count": 3, "measured_at": "2026-01-02T03:04:05.000006+01:00"}
                | {"batch": 8, "threads": 2, "fingerprint": '{"board":"x"}', "anchor_ratio": 0.5}
            ]
        )
        assert hand_over(client, content).status_code == 201
        (item,) = items(client, samples=True)
        assert (item["lower_quartile"], item["upper_quartile"]) == (0.04 / 1000, 0.07 / 1000)
        assert (item["samples"], item["count"]) == ([0.04 / 1000, 0.05 / 1000, 0.07 / 1000], 3)
        assert item["measured_at"] == "2026-01-02T02:04:05.000006Z"
        assert item["conditions"] == {
            "device": "local-cpu",
            "fingerprint": {"board": "x"},
            "protocol": {"batch": 8, "threads": 2},
        }
        assert (item["stale"], item["anchor_ratio"]) == (True, 0.5), "the device is not that board now"

    def test_a_protocol_without_batch_or_threads_takes_those_of_the_file(self, client: httpx.Client) -> None:
        content = as_csv([row() | {"protocol": '{"batch": 4}'}])
        found = faults_of(refused(hand_over(client, content, threads=None)))
        assert "say `threads`" in found["/rows/1/threads"]
        assert hand_over(client, content, threads=2).status_code == 201
        assert items(client)[0]["conditions"]["protocol"] == {"batch": 4, "threads": 2}
        words = as_csv([row() | {"protocol": '{"batch": "4"}'}])
        assert "batch is 4; write a whole number" in faults_of(refused(hand_over(client, words)))["/rows/1/protocol"]

    def test_a_device_without_a_worker_has_to_be_meant(self, client: httpx.Client, engine: Engine) -> None:
        content = as_csv([row()])
        problem = refused(hand_over(client, content, device="my-phone"))
        (told,) = faults_of(problem).items()  # once, however many rows
        assert told[0] == "/settings/device"
        assert "my-phone" in told[1]
        assert "local-cpu" in told[1]
        named = as_csv([row() | {"device": "my-phone"}])
        assert "my-phone" in faults_of(refused(hand_over(client, named, device=None)))["/rows/1/device"]
        assert nothing_stored(engine)
        assert hand_over(client, content, device="my-phone", new_device=True).status_code == 201
        assert hand_over(client, named, device=None).status_code == 201, "it is known by its figures"
        assert items(client, device="my-phone")[0]["stale"] is False
        add_device(engine, LOCAL_CPU.model_copy(update={"name": "my-phone", "fingerprint": {"chip": "y"}}))
        assert items(client, device="my-phone")[0]["stale"] is True, "nobody said that it was this one"

    def test_a_device_that_no_row_is_of_is_not_passed_over(self, client: httpx.Client, engine: Engine) -> None:
        rows = [row() | {"device": name} for name in ("board", "phone")]
        problem = refused(hand_over(client, as_csv(rows), new_device=True))
        assert "every row names its own device" in faults_of(problem)["/settings/device"]
        assert nothing_stored(engine)
        mixed = as_csv([rows[0], row() | {"device": ""}])
        assert hand_over(client, mixed, new_device=True).status_code == 201
        assert {one["conditions"]["device"] for one in items(client)} == {"board", "local-cpu"}

    def test_others_are_answered_while_a_large_table_is_taken(self, client: httpx.Client) -> None:
        rows = [row(latency_ms=0.05 + index / 1e6) | {"runtime": f"r{index}"} for index in range(10_000)]
        content = as_csv(rows)
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(hand_over(client, content)))
        thread.start()
        slowest_s, asked = 0.0, 0
        with httpx.Client(base_url=client.base_url) as other:
            while thread.is_alive():
                began = time.perf_counter()
                assert other.get("/v1/measurements?page_size=1").status_code == 200
                slowest_s, asked = max(slowest_s, time.perf_counter() - began), asked + 1
        thread.join()
        assert answers[0].json()["measurements"] == 10_000
        assert asked >= 3
        assert slowest_s < 2.0


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "column", "message"),
        [
            ({"latency_ms": -1.0}, "latency_ms", "-1.0 is not above 0"),
            ({"latency_ms": 0.0}, "latency_ms", "0.0 is not above 0"),
            ({"latency_ms": "nan"}, "latency_ms", "not a finite number"),
            ({"latency_ms": "-inf"}, "latency_ms", "not a finite number"),
            ({"latency_ms": "1,5"}, "latency_ms", "'1,5'|1,5 is no number"),
            ({"latency_ms": None, "threads": 1}, "latency_ms", "there is no value"),
            ({"latency_ms": 0.05, "count": 0}, "count", "whole number of 1 or more"),
            ({"latency_ms": 0.05, "batch": 1.5}, "batch", "whole number of 1 or more"),
            ({"latency_ms": 0.05, "samples": "[1, NaN]"}, "samples", "JSON list"),
            ({"latency_ms": 0.05, "samples": '{"a": 1}'}, "samples", "JSON list"),
            ({"latency_ms": 0.05, "provenance": "guessed"}, "provenance", "write one of"),
            ({"latency_ms": 0.05, "fingerprint": "[]"}, "fingerprint", "JSON object"),
            ({"latency_ms": 0.05, "protocol": '{"batch": 2}', "batch": 4}, "batch", "is 4, and 2 in the protocol"),
            ({"latency_ms": 0.05, "measured_at": "yesterday"}, "measured_at", "write a time"),
            ({"latency_ms": 0.05, "workload_digest": "0" * 64}, "workload_digest", "not the digest of the signature"),
            ({"metric": "loudness", "median_ms": 1.0}, "metric", "loudness is no metric of a device"),
            ({"metric": "energy_j", "median": 1.0, "unit": "ms"}, "unit", "write the unit that the metric has"),
            ({"metric": "latency_s", "median": 1.0, "unit": "MS"}, "unit", "write the unit that the metric has"),
        ],
    )
    def test_one_bad_row_keeps_all_out_and_is_named(
        self, client: httpx.Client, engine: Engine, values: dict[str, Any], column: str, message: str
    ) -> None:
        metric = {"metric": "latency_s", "unit": "ms"} if "unit" in values else {"metric": "latency_s"}
        good = dict.fromkeys(values) | {"latency_ms": 0.05}
        if "metric" in values:
            good = dict.fromkeys(values) | metric | {key: 0.05 for key in values if key.startswith("median")}
        good |= {"count": 1} if "count" in values else {}
        text = {key: None if value is None else str(value) for key, value in values.items()}
        rows = [{key: None if value is None else str(value) for key, value in row(OTHER, **good).items()}, row(**text)]
        found = faults_of(refused(hand_over(client, as_csv(rows))))
        assert list(found) == [f"/rows/2/{column}"]
        assert any(part in found[f"/rows/2/{column}"] for part in message.split("|"))
        assert nothing_stored(engine)

    def test_the_first_twenty_are_named_and_all_counted(self, client: httpx.Client, engine: Engine) -> None:
        rows = [row(latency_ms=-1.0 if index % 2 else 0.05) | {"runtime": str(index)} for index in range(1000)]
        problem = refused(hand_over(client, as_csv(rows)))
        assert problem["fault_count"] == 500
        assert "500 faults in 1,000 rows" in problem["detail"]
        assert list(faults_of(problem)) == [f"/rows/{number}/latency_ms" for number in range(2, 42, 2)]
        assert nothing_stored(engine)

    def test_what_the_file_does_not_say_is_asked_for_at_once(self, client: httpx.Client) -> None:
        content = as_csv([row()])
        said = dict.fromkeys(SAID)
        assert set(faults_of(refused(hand_over(client, content, **said)))) == {f"/settings/{key}" for key in SAID}
        problem = refused(hand_over(client, as_csv([row(metric="latency_s", median=1.0)])))
        assert list(faults_of(problem)) == ["/settings/unit"]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"latency_ms": 1.0, "latency_s": 0.001}, "in several units"),
            ({"median_ms": 1.0, "unit": "ms", "metric": "latency_s"}, "both `median_ms` and the column `unit`"),
            ({"median_ms": 1.0}, "nothing says what `median_ms` is of"),
            ({"latency_mj": 1.0}, "cannot be in mJ"),
            ({"latency_ms": 1.0, "colour": "red"}, "columns of no meaning"),
            ({"device": "local-cpu"}, "no column of figures"),
            ({"metric": "latency_s", "median_ms": 1.0, "lower_quartile_ms": 0.5}, "or neither"),
        ],
    )
    def test_columns_that_make_no_sense(self, client: httpx.Client, columns: dict[str, Any], message: str) -> None:
        assert message in refused(hand_over(client, as_csv([row(**columns)])))["detail"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"workload;latency_ms\n{};1\n", "separated by commas"),
            (b"\xff\xfe\x00\x01", "UTF-8"),
            (b"workload,latency_ms\n", "no rows"),
            (b"workload,workload,latency_ms\n1,2,3\n", "columns of one name"),
            (b"PAR1" + b"\0" * 100, "not a whole Parquet file"),
        ],
    )
    def test_files_that_are_no_tables(self, client: httpx.Client, content: bytes, message: str) -> None:
        assert message in refused(hand_over(client, content))["detail"]

    def test_rows_of_another_length_are_named(self, client: httpx.Client, engine: Engine) -> None:
        lines = [b"device,workload_digest,latency_ms", b"local-cpu," + b"0" * 64 + b",1", b"local-cpu,1,2,3"]
        found = faults_of(refused(hand_over(client, b"\n".join(lines) + b"\n")))
        assert "4 fields where the first line has 3 names" in found["/rows/2/"]
        assert nothing_stored(engine)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
    def test_a_parquet_file_that_was_cut_off(self, client: httpx.Client, engine: Engine, share: float) -> None:
        content = as_parquet([row(latency_ms=0.05 + i / 1e6) | {"runtime": str(i)} for i in range(2000)])
        problem = refused(hand_over(client, content[: int(len(content) * share)]))
        assert "not a whole Parquet file" in problem["detail"]
        assert nothing_stored(engine)

    def test_a_parquet_file_with_damaged_pages(self, client: httpx.Client, engine: Engine) -> None:
        content = bytearray(as_parquet([row(latency_ms=0.05 + i / 1e6) | {"runtime": str(i)} for i in range(2000)]))
        content[200:2000] = bytes(reversed(content[200:2000]))
        refused(hand_over(client, bytes(content)))
        assert nothing_stored(engine)

    def test_a_small_parquet_file_that_means_gigabytes(self, client: httpx.Client, engine: Engine) -> None:
        table = pa.table(
            {
                "workload": pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), ["x" * 2**20]),
                "latency_ms": pa.array(np.full(1_000_000, 0.05)),
            }
        )
        content = io.BytesIO()
        pq.write_table(table, content)
        assert len(content.getvalue()) < 2**22
        problem = refused(hand_over(client, content.getvalue()))
        assert "a signature may have" in faults_of(problem)["/rows/1/workload"]
        assert nothing_stored(engine)

    def test_the_same_twice(self, client: httpx.Client, engine: Engine) -> None:
        problem = refused(hand_over(client, as_csv([row(), row(OTHER), row(latency_ms=0.06)])))
        message = "the same workload, conditions and metric as in row 1; keep one"
        assert faults_of(problem) == {"/rows/3/workload": message}
        assert nothing_stored(engine)

    def test_a_digest_that_nobody_knows(self, client: httpx.Client, engine: Engine) -> None:
        content = as_csv([{"workload_digest": CONV.digest, "latency_ms": 0.05}])
        assert "give its signature" in faults_of(refused(hand_over(client, content)))["/rows/1/workload_digest"]
        assert nothing_stored(engine)
        assert hand_over(client, as_csv([row()])).status_code == 201
        assert hand_over(client, content).status_code == 201, "now it is known"

    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "{",
            "[]",
            "{}",
            '{"ops": ["conv"]}',
            CONV.signature.replace('"groups":1', '"groups":0'),
            CONV.signature.replace('"groups":1', '"groups":1.0'),
            CONV.signature.replace('"groups":1', '"groups":"1"'),
            CONV.signature.replace("fp32", "w99a99"),
            "[" * 100_000,
            "x" * 300_000,
        ],
    )
    def test_signatures_that_are_none(self, client: httpx.Client, engine: Engine, signature: str) -> None:
        found = faults_of(refused(hand_over(client, as_parquet([row(OTHER), row() | {"workload": signature}]))))
        assert "/rows/2/workload" in found
        assert nothing_stored(engine)

    def test_a_form_of_another_site_is_refused(self, client: httpx.Client) -> None:
        response = client.post(
            "/v1/measurements/import", files={"file": ("a.csv", b"x")}, headers={"Origin": "https://elsewhere.example"}
        )
        assert response.status_code == 403

    @pytest.mark.parametrize("text", ["[", "[]", '{"unit": "hours"}', '{"device": ""}', '{"colour": 1}'])
    def test_bad_settings_are_pointed_at(self, client: httpx.Client, text: str) -> None:
        response = client.post("/v1/measurements/import", files={"file": ("a.csv", b"x")}, data={"settings": text})
        assert (response.status_code, response.json()["type"]) == (422, "urn:espalier:problem:invalid-request")
        assert response.json()["errors"][0]["pointer"].startswith("/settings")


class TestPlausibility:
    def test_milliseconds_given_as_seconds_are_seen_in_most_rows(self, client: httpx.Client, engine: Engine) -> None:
        real_ms = {one.digest: 1e3 * 1e-9 * 20_000 for one in workloads(NETWORK)}
        rows = [
            row(one, latency_s=1e3 * real_ms[one.digest]) for one in {w.digest: w for w in workloads(NETWORK)}.values()
        ]
        problem = refused(hand_over(client, as_csv(rows)))
        assert "likely to be in ms" in problem["detail"]
        assert list(faults_of(problem)) == ["/settings/unit"]
        assert nothing_stored(engine)

    def test_a_single_one_is_named(self, client: httpx.Client, engine: Engine) -> None:
        rows = [
            row(latency_ms=0.05),
            row(OTHER, latency_ms=0.05) | {"runtime": "a"},
            row(latency_ms=1e-12) | {"runtime": "b"},
        ]
        found = faults_of(refused(hand_over(client, as_csv(rows))))
        assert "is less than latency_s of such work can be" in found["/rows/3/latency_s"]
        assert nothing_stored(engine)

    def test_a_file_far_from_what_is_known_of_the_device_is_refused(self, client: httpx.Client, engine: Engine) -> None:
        distinct = list({one.digest: one for one in workloads(NETWORK)}.values())
        with transaction(engine) as session:
            record(
                session,
                [
                    new_measurement(workload=WorkloadKey(one.kind, one.digest, one.signature), median=2e-5)
                    for one in distinct
                ],
            )
        problem = refused(hand_over(client, as_csv([row(one, latency_s=2e-8) for one in distinct])))
        assert "1 / 1,000 of what this service has of it" in problem["detail"]
        assert hand_over(client, as_csv([row(one, latency_s=2.5e-5) for one in distinct])).status_code == 201

    def test_a_network_is_judged_by_its_operators(self, client: httpx.Client, engine: Engine) -> None:
        whole = network_workload(NETWORK)
        assert hand_over(client, as_csv([row(whole, latency_ms=1.0)])).json()["unchecked"] == 1
        rows = [row(one, latency_ms=0.05) for one in {w.digest: w for w in workloads(NETWORK)}.values()]
        assert hand_over(client, as_csv([*rows, row(whole, latency_ms=1.0)])).json()["unchecked"] == 0
        problem = refused(hand_over(client, as_csv([row(whole, latency_s=100.0)])))
        assert "1 of 1 values are too large" in problem["detail"]

    def test_a_batch_is_more_work(self, client: httpx.Client) -> None:
        slow = as_csv([row(latency_s=1.0)])
        assert hand_over(client, slow).status_code == 422
        assert hand_over(client, slow, batch=1000).status_code == 201


class TestList:
    @pytest.fixture
    def stored(self, client: httpx.Client, engine: Engine) -> None:
        with transaction(engine) as session:
            record(
                session, [new_measurement(median=1e-3 + index / 1e6, protocol={"batch": index}) for index in range(7)]
            )
        rows = [row(), row(OTHER, latency_ms=0.2)]
        assert hand_over(client, as_csv(rows)).status_code == 201

    @pytest.mark.usefixtures("stored")
    def test_pages_go_back_in_time_and_miss_nothing(self, client: httpx.Client) -> None:
        seen: list[int] = []
        params: dict[str, Any] = {"page_size": 2}
        while True:
            page = client.get("/v1/measurements", params=params).json()
            seen += [item["id"] for item in page["items"]]
            if page["next_page_token"] is None:
                break
            params["page_token"] = page["next_page_token"]
        assert len(seen) == 9
        assert seen == sorted(seen, reverse=True)
        other = client.get("/v1/measurements", params={**params, "metric": "energy_j"})
        assert other.json()["type"] == "urn:espalier:problem:invalid-page-token"

    @pytest.mark.usefixtures("stored")
    @pytest.mark.parametrize(
        ("params", "count"),
        [
            ({"device": "local-cpu"}, 9),
            ({"device": "elsewhere"}, 0),
            ({"metric": "latency_s"}, 9),
            ({"metric": "energy_j"}, 0),
            ({"kind": "operator"}, 2),
            ({"kind": "network"}, 7),
            ({"provenance": "imported"}, 2),
            ({"provenance": "measured", "kind": "operator"}, 0),
            ({"workload": CONV.digest}, 1),
            ({"workload": [CONV.digest, OTHER.digest]}, 2),
            ({"stale": False}, 9),
            ({"stale": True}, 0),
        ],
    )
    def test_filters(self, client: httpx.Client, params: dict[str, Any], count: int) -> None:
        assert len(items(client, **params)) == count

    @pytest.mark.usefixtures("stored")
    def test_stale_ones_stay_visible(self, client: httpx.Client, engine: Engine) -> None:
        add_device(engine, LOCAL_CPU.model_copy(update={"fingerprint": {"runtime": "2.0"}}))
        assert [item["stale"] for item in items(client)] == [True] * 9
        assert len(items(client, stale=True)) == 9
        assert items(client, stale=False) == []

    @pytest.mark.parametrize("count", [201, 800])
    def test_too_many_workloads_at_once(self, client: httpx.Client, count: int) -> None:
        wanted = "&".join(f"workload={number:064x}" for number in range(count))
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
        with closing(connection):
            connection.request("GET", f"/v1/measurements?{wanted}")
            response = connection.getresponse()
            problem = json.loads(response.read())
        assert (response.status, problem["type"]) == (422, "urn:espalier:problem:invalid-request")
        assert "at most 200 values" in problem["errors"][0]["detail"]


class TestLookup:
    def test_what_is_known_and_what_is_not(self, client: httpx.Client) -> None:
        assert hand_over(client, as_csv([row(latency_ms=0.05)])).status_code == 201
        request = {"device": "local-cpu", "workloads": [CONV.digest, OTHER.digest, OTHER.digest]}
        body = client.post("/v1/measurements/lookup", json=request).json()
        assert body["missing"] == [OTHER.digest]
        assert body["found"][CONV.digest]["median"] == pytest.approx(5e-5)
        assert body["found"][CONV.digest]["provenance"] == "imported"
        told = {key: body["found"][CONV.digest][key] for key in ("batch", "threads", "runtime")}
        assert told == {"batch": 1, "threads": 1, "runtime": None}
        other_batch = client.post("/v1/measurements/lookup", json={**request, "batch": 8}).json()
        assert other_batch["found"] == {}

    def test_protocols_are_not_mixed_when_none_is_asked_for(self, client: httpx.Client, engine: Engine) -> None:
        for batch, threads, said in ((1, 2, "a"), (8, 2, "b"), (1, 1, "c")):
            content = as_csv([row(latency_ms=0.05 * batch / threads)])
            assert hand_over(client, content, batch=batch, threads=threads, runtime=said).status_code == 201
        add_device(engine, LOCAL_CPU.model_copy(update={"batch": 8, "threads": 2}))
        request = {"device": "local-cpu", "workloads": [CONV.digest]}
        for asked, told in (({}, (8, 2, "b")), ({"batch": 1}, (1, 2, "a")), ({"batch": 1, "threads": 1}, (1, 1, "c"))):
            found = client.post("/v1/measurements/lookup", json=request | asked).json()["found"][CONV.digest]
            assert (found["batch"], found["threads"], found["runtime"]) == told
        query = {"device": "local-cpu", "family": "mobilenet_v1", "width": 0.25, "input": "3,32,32", "classes": 10}
        for params, told, found in (({}, (8, 2), 1), ({"threads": 1}, (8, 1), 0)):
            body = client.get("/v1/measurements/coverage", params=query | params).json()
            assert (body["batch"], body["threads"], body["found"].get("operator", 0)) == (*told, found)

    def test_ten_thousand_at_once_are_too_many_and_five_thousand_are_not(self, client: httpx.Client) -> None:
        digests = [f"{number:064x}" for number in range(10_000)]
        refused_body = client.post("/v1/measurements/lookup", json={"device": "local-cpu", "workloads": digests})
        assert refused_body.status_code == 422
        assert refused_body.json()["errors"][0]["pointer"] == "/workloads"
        assert "5000" in refused_body.json()["errors"][0]["detail"]
        taken = client.post("/v1/measurements/lookup", json={"device": "local-cpu", "workloads": digests[:5_000]})
        assert len(taken.json()["missing"]) == 5_000
