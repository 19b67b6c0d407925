"""Networks and data sets over HTTP: handed over, listed, read, refused. The work itself is done elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from search_spaces.catalog import build_network
from search_spaces.datasets import DATASETS, DatasetInfo, Task, dataset_to_json
from search_spaces.network import network_to_json
from search_spaces.spec import Family, NetworkSpec
from service.config import Settings
from service.datasets.actions import IndexFailedError, fail_index, finish_index
from service.db import reading, transaction
from service.known import known_for_search
from service.leases import claim, tell_activity
from service.models import ImportedNetwork, OwnDataset, Search
from service.networks.actions import ImportFailedError, fail_import, finish_import
from service.networks.queries import find_network
from service.offers import OfferKind, offer
from tests.service.builders import example_spec, waiting_messages

REPORT: dict[str, Any] = {
    "images": 1000,
    "splits": {"train": 600, "calibrate": 100, "score": 150, "confirm": 150},
    "sizes": [{"width": 40, "height": 30, "images": 1000}],
    "half_widths": {"score": 0.05},
}
FILE = {"file": ("../../weights/Mein Netz.onnx", b"bytes of a file", "application/octet-stream")}


def hand_over(
    client: httpx.Client, kind: str, name: str = "mine", content: bytes = b"x", **fields: Any
) -> httpx.Response:
    return client.post(f"/v1/{kind}", data={"name": name, **fields}, files={"file": ("some.zip", content)})


def imported(
    engine: Engine, name: str = "mine", *, outputs: int = 10, class_names: tuple[str, ...] = (), left_out: str = ""
) -> None:
    """What a worker writes down when it has imported a network."""
    spec = NetworkSpec(family=Family.RESNET_18, width=0.25, input=(3, 32, 32))
    network = build_network(spec, outputs, (0.5,) * 3, (0.5,) * 3)
    report = {"class_names": list(class_names), "left_out": left_out}
    with transaction(engine) as session:
        row = find_network(session, name)
        assert row is not None
        attempt = claim(session, ImportedNetwork, row.id, "worker", 60)
        assert attempt is not None
        result = {"base_key": "b" * 64, "network": network_to_json(network), "report": report}
        assert finish_import(session, row.id, attempt, result)


def indexed(engine: Engine, digest: str = "d" * 64, **changes: Any) -> None:
    """What a worker writes down when it has indexed the queued version."""
    facts: dict[str, Any] = {
        "name": "photos",
        "description": "1,000 colour images of 2 classes",
        "classes": 2,
        "shape": (3, 40, 30),
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "images": 1000,
        "test_images": 0,
        "class_names": ("cat", "dog"),
        "digest": digest,
        "held_out": {"calibrate": 100, "score": 150, "confirm": 150},
        "is_resized": True,
    }
    info = DatasetInfo(**(facts | changes))
    with transaction(engine) as session:
        row = session.query(OwnDataset).filter(OwnDataset.state == "queued").one()
        attempt = claim(session, OwnDataset, row.id, "worker", 60)
        assert attempt is not None
        previews = [{"name": "cat", "digest": "e" * 64, "size_bytes": 9}]
        result = {"digest": digest, "info": dataset_to_json(info), "report": REPORT, "previews": previews}
        assert finish_index(session, row.id, attempt, result)


class TestNetworks:
    def test_handed_over_then_waits_for_a_worker(
        self, client: httpx.Client, settings: Settings, engine: Engine
    ) -> None:
        given = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
        response = client.post("/v1/networks", data={"name": "mine", "settings": json.dumps(given)}, files=FILE)
        body = response.json()
        assert response.status_code == 202, body
        assert response.headers["Location"] == "/v1/networks/mine"
        assert int(response.headers["Retry-After"]) > 0
        assert (body["state"], body["filename"], body["settings"]) == ("queued", "Mein Netz.onnx", given)
        digest = hashlib.sha256(b"bytes of a file").hexdigest()
        assert (settings.uploads_folder / digest[:2] / digest).read_bytes() == b"bytes of a file"
        assert [path.name for path in settings.uploads_folder.rglob("*") if path.is_file()] == [digest]
        with reading(engine) as session:
            row = find_network(session, "mine")
            assert row is not None
            assert waiting_messages(settings) == [("espalier.import", row.id)]

    def test_the_same_again_is_the_same_and_another_is_refused(self, client: httpx.Client, settings: Settings) -> None:
        first, second = (hand_over(client, "networks") for _ in range(2))
        assert first.json() == second.json()
        assert len(waiting_messages(settings)) == 1
        other = hand_over(client, "networks", content=b"other")
        assert (other.status_code, other.json()["type"]) == (409, "urn:espalier:problem:name-taken")
        otherwise = hand_over(client, "networks", settings='{"resize": 256}')
        assert otherwise.status_code == 409
        assert hand_over(client, "networks", "resnet_18").status_code == 409, "a family is called so"

    def test_progress_and_what_was_found_are_shown(self, client: httpx.Client, engine: Engine) -> None:
        hand_over(client, "networks")
        with transaction(engine) as session:
            row = find_network(session, "mine")
            assert row is not None
            attempt = claim(session, ImportedNetwork, row.id, "worker", 60)
            assert attempt is not None
            tell_activity(
                session, ImportedNetwork, row.id, attempt, {"stage": "import", "share": 0.5, "message": "half"}
            )
            row_id = row.id
        body = client.get("/v1/networks/mine").json()
        assert (body["state"], body["activity"]["message"]) == ("running", "half")
        with transaction(engine) as session:
            problem = ImportFailedError("no", extra={"faults": [{"part": "node a", "detail": "odd"}]}).document()
            assert fail_import(session, row_id, attempt, problem)
            assert not fail_import(session, row_id, attempt, problem), "it is over"
        body = client.get("/v1/networks/mine").json()
        assert (body["state"], body["problem"]["faults"]) == ("failed", [{"part": "node a", "detail": "odd"}])
        # A name whose import has failed is free again.
        assert hand_over(client, "networks", content=b"better").json()["state"] == "queued"
        imported(engine)
        body = client.get("/v1/networks/mine").json()
        assert (body["state"], body["problem"], body["activity"]) == ("succeeded", None, None)
        items = {item["name"]: item for item in client.get("/v1/networks").json()["items"]}
        assert items["mine"]["kind"] == "imported"
        assert items["resnet_50"]["kind"] == "family"
        assert "network" not in items["mine"], "graphs are long"

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"settings": "{"}, "/settings"),
            ({"settings": "[" * 100_000}, "/settings"),
            ({"settings": '{"mean": "x"}'}, "/settings/mean"),
            ({"settings": '{"path": "/etc/passwd"}'}, "/settings/path"),
            ({"settings": '{"std": [0, 1, 1]}'}, "/settings"),
            ({"settings": '{"input": [3, 0, 0]}'}, "/settings/input/1"),
            ({"settings": '{"width": 0.5}'}, "/settings"),
            ({"name": "../escape"}, "/name"),
            ({"name": ""}, "/name"),
            ({"name": "x" * 101}, "/name"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(
        self, client: httpx.Client, settings: Settings, fields: dict[str, str], pointer: str
    ) -> None:
        response = client.post("/v1/networks", data={"name": "mine"} | fields, files=FILE)
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert any(one["pointer"].startswith(pointer) for one in response.json()["errors"]), response.json()
        assert client.get("/v1/networks/mine").status_code == 404
        assert waiting_messages(settings) == []

    @pytest.mark.parametrize(
        "settings_text", ["1" * 5000, '{"class_names": ["a", "\\ud800"]}', '{"class_names": ["a", "\\u001b[31mred"]}']
    )
    def test_what_no_page_can_show_is_refused(self, client: httpx.Client, settings_text: str) -> None:
        response = hand_over(client, "networks", settings=settings_text)
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/settings")
        assert client.get("/v1/networks/mine").status_code == 404

    def test_what_is_usual_may_be_said_or_left_out(self, client: httpx.Client) -> None:
        assert hand_over(client, "networks", "my net").headers["Location"] == "/v1/networks/my%20net"
        assert hand_over(client, "networks", "my net", settings='{"interpolation": "bilinear"}').status_code == 202

    @pytest.mark.parametrize("path", ["/v1/networks", "/v1/datasets", "/networks/new", "/datasets/new"])
    def test_another_site_cannot_hand_anything_over(self, client: httpx.Client, settings: Settings, path: str) -> None:
        def form() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nmine\r\n--x\r\n'
            yield b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n--x--\r\n'

        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = client.post(path, content=form(), headers=kind | {"Origin": "http://evil.example"})
        assert answer.status_code == 403, answer.text
        assert not settings.uploads_folder.exists()
        own = f"http://{client.base_url.netloc.decode()}"
        assert client.post(path, content=form(), headers=kind | {"Origin": own}).status_code in (202, 303)

    def test_no_file_and_an_empty_one(self, client: httpx.Client) -> None:
        assert client.post("/v1/networks", data={"name": "mine"}).status_code == 422
        empty = hand_over(client, "networks", content=b"")
        assert (empty.status_code, empty.json()["errors"][0]["pointer"]) == (422, "/file")

    def test_many_at_once_make_one(self, client: httpx.Client, settings: Settings) -> None:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: hand_over(client, "networks").status_code, range(6)))
        assert answers == [202] * 6
        assert len(waiting_messages(settings)) == 1


class TestUploadLimit:
    @pytest.fixture
    def settings(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
        return settings.model_copy(update={"upload_limit_bytes": 3_000_000})

    def test_too_large_a_file_is_refused_and_nothing_is_kept(self, client: httpx.Client, settings: Settings) -> None:
        assert hand_over(client, "networks", content=bytes(2_900_000)).status_code == 202
        kept = sorted(settings.uploads_folder.rglob("*"))
        response = hand_over(client, "networks", "other", content=bytes(3_100_000))
        assert (response.status_code, response.json()["type"]) == (413, "urn:espalier:problem:body-too-large")
        assert client.get("/v1/networks/other").status_code == 404
        assert sorted(settings.uploads_folder.rglob("*")) == kept

    def test_far_too_large_a_body_is_not_read(self, client: httpx.Client) -> None:
        def endless() -> Any:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            while True:
                yield bytes(1 << 20)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        try:
            answer = client.post("/v1/networks", content=endless(), headers=headers).status_code
        except httpx.TransportError:
            answer = 413  # the service has hung up while we were still sending
        assert answer == 413

    def test_other_requests_keep_their_own_limit(self, client: httpx.Client) -> None:
        assert client.post("/v1/searches", content=bytes(1_500_000)).status_code == 413


class TestDatasets:
    def test_handed_over_indexed_and_shown(self, client: httpx.Client, engine: Engine, settings: Settings) -> None:
        body = hand_over(client, "datasets", "photos").json()
        assert (body["state"], body["version"], body["is_own"]) == ("queued", 1, True)
        assert waiting_messages(settings)[0][0] == "espalier.index"
        indexed(engine)
        body = client.get("/v1/datasets/photos").json()
        assert (body["state"], body["classes"], body["class_names"]) == ("succeeded", 2, ["cat", "dog"])
        assert body["versions"][0]["report"] == REPORT
        assert body["versions"][0]["previews"] == [{"name": "cat", "url": f"/v1/artifacts/{'e' * 64}"}]
        names = [item["name"] for item in client.get("/v1/datasets").json()["items"]]
        assert names == [*DATASETS, "photos"]

    def test_a_name_has_one_archive_unless_it_is_extended(self, client: httpx.Client, engine: Engine) -> None:
        assert hand_over(client, "datasets", "photos", extend=True).status_code == 409, "nothing to add to"
        hand_over(client, "datasets", "photos")
        more = {"content": b"more", "extend": True}
        assert hand_over(client, "datasets", "photos", **more).status_code == 409, "it is not indexed yet"
        indexed(engine)
        assert hand_over(client, "datasets", "photos", content=b"more").status_code == 409
        assert hand_over(client, "datasets", "photos").json()["version"] == 1, "the same again"
        body = hand_over(client, "datasets", "photos", **more).json()
        assert (body["version"], body["state"], body["classes"]) == (2, "queued", 2)
        read = client.get("/v1/datasets/photos")
        assert (read.json()["version"], read.json()["state"]) == (1, "succeeded"), "what the name stands for"
        assert "Retry-After" in read.headers, "there is more to come"
        with transaction(engine) as session:
            row = session.query(OwnDataset).filter(OwnDataset.version == 2).one()
            attempt = claim(session, OwnDataset, row.id, "worker", 60)
            assert attempt is not None
            assert fail_index(session, row.id, attempt, IndexFailedError("corrupt").document())
        body = client.get("/v1/datasets/photos").json()
        assert (body["state"], body["classes"]) == ("succeeded", 2), "what was there is there still"
        assert body["versions"][0]["state"] == "failed"
        (listed,) = (one for one in client.get("/v1/datasets").json()["items"] if one["name"] == "photos")
        assert (listed["state"], listed["classes"], listed["images"]) == ("succeeded", 2, 1000)
        page = client.get("/datasets/photos").text
        assert "corrupt" in page
        assert "Search on it" in page
        again = hand_over(client, "datasets", "photos").json()
        assert (again["version"], again["state"]) == (1, "succeeded"), "it is this archive that was asked about"
        assert hand_over(client, "datasets", "photos", content=b"mended", extend=True).json()["version"] == 3
        indexed(engine, "f" * 64)
        assert [one["state"] for one in client.get("/v1/datasets/photos").json()["versions"]] == [
            "succeeded",
            "failed",
            "succeeded",
        ]

    def test_built_in_names_are_taken(self, client: httpx.Client) -> None:
        assert hand_over(client, "datasets", "digits").status_code == 409
        assert client.get("/v1/datasets/digits").status_code == 404, "only those that were added have versions"


def own_spec(**changes: Any) -> dict[str, Any]:
    spec = example_spec(network={"name": "mine"}, dataset={"name": "photos"}, limits=[])
    spec["space"] = {"prune_ratio": {"high": 0.5, "step": 0.25}}
    spec["evaluation"] = {"finalists": {"top": 0}}
    return spec | changes


def errors_of(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {one["pointer"]: one["detail"] for one in response.json()["errors"]}


class TestInSpecs:
    @pytest.fixture
    def brought(self, client: httpx.Client, engine: Engine) -> httpx.Client:
        hand_over(client, "networks")
        imported(engine, outputs=2)
        hand_over(client, "datasets", "photos")
        indexed(engine)
        return client

    def test_they_are_searched_by_their_names(self, brought: httpx.Client, engine: Engine) -> None:
        body = brought.post("/v1/searches", json=own_spec()).json()
        assert body["state"] == "queued", body
        assert any("trained elsewhere" in warning for warning in body["warnings"])
        assert any("in their order" in warning for warning in body["warnings"]), "nobody named the outputs"
        with reading(engine) as session:
            search = session.get_one(Search, body["id"])
            assert search.sources == {"network": "b" * 64, "dataset": "d" * 64}

    def test_a_search_keeps_the_version_that_it_was_submitted_for(self, brought: httpx.Client, engine: Engine) -> None:
        search_id = brought.post("/v1/searches", json=own_spec()).json()["id"]
        hand_over(brought, "datasets", "photos", content=b"more", extend=True)
        indexed(engine, "f" * 64, images=2000)
        with reading(engine) as session:
            search = session.get_one(Search, search_id)
            assert known_for_search(session, search).datasets["photos"].digest == "d" * 64
        assert brought.post("/v1/searches/check", json=own_spec()).status_code == 200
        newer = brought.post("/v1/searches", json=own_spec(name="newer")).json()["id"]
        with reading(engine) as session:
            assert session.get_one(Search, newer).sources["dataset"] == "f" * 64

    def test_unknown_names_list_the_known_ones(self, brought: httpx.Client) -> None:
        spec = own_spec(network={"name": "mime"}, dataset={"name": "photo"})
        errors = errors_of(brought.post("/v1/searches", json=spec))
        assert "did you mean mine?" in errors["/network/name"]
        assert "did you mean photos?" in errors["/dataset/name"]

    def test_what_is_not_ready_says_so(self, brought: httpx.Client, engine: Engine) -> None:
        hand_over(brought, "networks", "later", content=b"later")
        hand_over(brought, "datasets", "soon", content=b"soon")
        spec = own_spec(network={"name": "later"}, dataset={"name": "soon"})
        errors = errors_of(brought.post("/v1/searches", json=spec))
        assert "still being looked at" in errors["/network/name"]
        assert "still being looked at" in errors["/dataset/name"]

    def test_what_does_not_fit_is_refused(self, brought: httpx.Client, engine: Engine) -> None:
        hand_over(brought, "networks", "ten", content=b"ten")
        imported(engine, "ten")
        assert (
            "2 classes"
            in errors_of(brought.post("/v1/searches", json=own_spec(network={"name": "ten"})))["/dataset/name"]
        )
        hand_over(brought, "networks", "birds", content=b"birds")
        imported(engine, "birds", outputs=2, class_names=("cat", "bird"))
        errors = errors_of(brought.post("/v1/searches", json=own_spec(network={"name": "birds"})))
        assert "knows no class 'dog'" in errors["/dataset/name"]
        grey = own_spec(dataset={"name": "digits"})
        assert "/network/name" in errors_of(brought.post("/v1/searches", json=grey))
        regression = [{"metric": "r2", "direction": "maximize"}]
        errors = errors_of(brought.post("/v1/searches", json=own_spec(objectives=regression)))
        assert "is told of regression" in errors["/objectives/0/metric"]
        wrong_way = [{"metric": "f1", "direction": "minimize"}]
        assert "/objectives/0/direction" in errors_of(brought.post("/v1/searches", json=own_spec(objectives=wrong_way)))
        hand_over(brought, "networks", "zoo", content=b"zoo")
        imported(engine, "zoo", outputs=10, class_names=("cat", "dog", *"abcdefgh"))
        of_two = own_spec(network={"name": "zoo"}, objectives=[{"metric": "roc_auc", "direction": "maximize"}])
        errors = errors_of(brought.post("/v1/searches", json=of_two))
        assert "tells 10 apart" in errors["/objectives/0/metric"]
        assert brought.post("/v1/searches/check", json=of_two | {"network": {"name": "mine"}}).status_code == 200
        few = [{"metric": "top5_accuracy", "direction": "maximize"}]
        assert (
            "at least 6"
            in errors_of(brought.post("/v1/searches", json=own_spec(objectives=few)))["/objectives/0/metric"]
        )

    def test_values_are_told_by_one_output(self, brought: httpx.Client, engine: Engine) -> None:
        hand_over(brought, "datasets", "weights", content=b"weights")
        values = {"name": "weights", "classes": 0, "class_names": (), "task": Task.REGRESSION}
        indexed(engine, "1" * 64, **values)
        hand_over(brought, "networks", "scales", content=b"scales")
        imported(engine, "scales", outputs=1)
        least = [{"metric": "mean_absolute_error", "direction": "minimize"}]
        spec = own_spec(dataset={"name": "weights"}, objectives=least)
        assert "one number" in errors_of(brought.post("/v1/searches/check", json=spec))["/dataset/name"]
        checked = brought.post("/v1/searches/check", json=spec | {"network": {"name": "scales"}})
        assert checked.status_code == 200, checked.text
        hand_over(brought, "networks", "squashed", content=b"squashed")
        imported(engine, "squashed", outputs=1, left_out="Sigmoid")
        errors = errors_of(brought.post("/v1/searches/check", json=spec | {"network": {"name": "squashed"}}))
        assert "ends with Sigmoid" in errors["/network/name"]
        text = brought.get("/searches/new", params={"dataset": "weights"}).text
        assert "mean_absolute_error, direction: minimize" in text
        assert "weights on cpu" in text

    def test_catalog_networks_learn_ones_own_pictures_at_any_size(self, brought: httpx.Client) -> None:
        network = {"family": "mobilenet_v2", "width": 0.5, "input": [3, 96, 96]}
        assert brought.post("/v1/searches/check", json=own_spec(network=network)).status_code == 200
        odd = own_spec(network=network | {"input": [2, 96, 96]})
        assert "one channel or three" in errors_of(brought.post("/v1/searches/check", json=odd))["/network/input"]


class TestOffers:
    def test_what_workers_have_installed_can_be_named(self, client: httpx.Client, engine: Engine) -> None:
        score = {
            "name": "cost_usd",
            "description": "what mistakes cost",
            "task": "classification",
            "direction": "minimize",
            "scale": "number",
        }
        objectives = [{"metric": "cost_usd", "direction": "minimize"}]
        spec = example_spec(objectives=objectives, limits=[], sampler={"name": "mine"})
        spec["evaluation"]["importance"] = "taylor"
        errors = errors_of(client.post("/v1/searches/check", json=spec))
        assert errors.keys() >= {"/objectives/0/metric", "/sampler/name", "/evaluation/importance"}
        for _ in range(2):
            with transaction(engine) as session:
                offer(session, OfferKind.SCORE, "cost_usd", score)
                offer(session, OfferKind.SAMPLER, "mine", {})
                offer(session, OfferKind.IMPORTANCE, "taylor", {})
        assert client.post("/v1/searches/check", json=spec).status_code == 200
        assert "mine" in [item["name"] for item in client.get("/v1/samplers").json()["items"]]
        assert "taylor" in [item["name"] for item in client.get("/v1/importances").json()["items"]]
        metrics = {item["name"]: item for item in client.get("/v1/metrics").json()["items"]}
        assert metrics["cost_usd"]["is_score"]
        assert metrics["latency_s"]["needs_device"]
        assert metrics["accuracy"]["task"] == "classification"

    def test_a_data_set_that_is_installed_can_be_named(self, client: httpx.Client, engine: Engine) -> None:
        info = DatasetInfo("letters", "letters", 26, (1, 28, 28), (0.5,), (0.3,), 20_000, 1000)
        with transaction(engine) as session:
            offer(session, OfferKind.DATASET, "letters", dataset_to_json(info))
        spec = example_spec(dataset={"name": "letters"}, limits=[])
        spec["evaluation"].update(score_images=900)
        assert client.post("/v1/searches/check", json=spec).status_code == 200
