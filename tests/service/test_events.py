"""A search's history: as pages, as a stream that goes on, ends, and is resumed."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import Engine

from service.app import create_app
from service.config import Settings
from service.db import transaction
from service.events import stream
from service.events.actions import append_event
from service.searches.actions import cancel, report_progress
from service.searches.queries import lock_search
from service.states import EventKind
from tests.servers import free_port
from tests.service.builders import add_running_search

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def search_id(engine: Engine) -> str:
    return add_running_search(engine)


def note(engine: Engine, search_id: str, message: str) -> None:
    with transaction(engine) as session:
        append_event(session, search_id, EventKind.NOTE, {"message": message})


def end(engine: Engine, search_id: str) -> None:
    with transaction(engine) as session:
        cancel(session, lock_search(session, search_id))


def parse(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


def test_pages_go_on_after_an_event(client: httpx.Client, engine: Engine, search_id: str) -> None:
    path = f"/v1/searches/{search_id}/events"
    first = client.get(path, params={"page_size": 2}).json()
    assert [item["id"] for item in first["items"]] == [1, 2]
    rest = client.get(path, params={"page_token": first["next_page_token"]}).json()
    assert [(item["id"], item["kind"], item["data"]["state"]) for item in rest["items"]] == [(3, "state", "running")]
    assert rest["next_page_token"] is None
    note(engine, search_id, "new")
    assert [item["data"] for item in client.get(path, params={"after": 3}).json()["items"]] == [{"message": "new"}]


@pytest.mark.parametrize("path", ["events", "events/stream"])
def test_stream_tells_what_happened_what_happens_and_ends(
    client: httpx.Client, engine: Engine, search_id: str, path: str
) -> None:
    def go_on() -> None:
        time.sleep(0.3)
        note(engine, search_id, "new")
        end(engine, search_id)

    thread = threading.Thread(target=go_on)
    thread.start()
    response = client.get(f"/v1/searches/{search_id}/{path}", headers=STREAM)
    thread.join()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-store"
    events = parse(response.text)
    assert [number for number, _, _ in events] == [1, 2, 3, 4, 5, 6]
    assert events[3] == (4, "note", {"message": "new"})
    assert events[-1] == (6, "state", {"state": "cancelled", "reason": "", "end_reason": "cancelled"})


def test_stream_resumes_after_the_last_event_that_came(client: httpx.Client, engine: Engine, search_id: str) -> None:
    end(engine, search_id)
    path = f"/v1/searches/{search_id}/events"
    for headers, expected in (({"Last-Event-ID": "3"}, [4, 5]), ({"Last-Event-ID": "x"}, [1, 2, 3, 4, 5])):
        response = client.get(path, headers={**STREAM, **headers})
        assert [number for number, _, _ in parse(response.text)] == expected
    assert parse(client.get(path, headers=STREAM, params={"after": 5}).text) == []


def test_stream_of_no_search_is_a_problem(client: httpx.Client) -> None:
    response = client.get("/v1/searches/00000000-0000-0000-0000-000000000000/events", headers=STREAM)
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_silent_stream_is_kept_alive_and_holds_no_session(
    client: httpx.Client, engine: Engine, search_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_EVERY_S", 0.1)
    monkeypatch.setattr(stream, "LOOK_EVERY_S", 0.05)
    with client.stream("GET", f"/v1/searches/{search_id}/events", headers=STREAM) as response:
        lines = response.iter_lines()
        comments = 0
        while comments < 2:
            comments += next(lines).startswith(": ")
        # More streams than the pool has connections would wait for each other here, if they held them.
        with ThreadPoolExecutor(20) as pool:
            answers = pool.map(lambda _: client.get(f"/v1/searches/{search_id}").status_code, range(40))
            assert set(answers) == {200}
        end(engine, search_id)
        assert sum(line.startswith("event: state") for line in lines) == 2


def test_events_of_many_writers_are_counted_without_gap_or_double(engine: Engine, search_id: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: note(engine, search_id, str(index)), range(40)))
    with transaction(engine) as session:
        assert append_event(session, search_id, EventKind.NOTE, {}).seq == 3 + 40 + 1


def test_progress_is_told_and_shown(client: httpx.Client, engine: Engine, search_id: str) -> None:
    with transaction(engine) as session:
        report_progress(session, search_id, "training", 0.25, "epoch 1 of 4")
    told = client.get(f"/v1/searches/{search_id}/events", params={"after": 3}).json()["items"][0]
    shown = client.get(f"/v1/searches/{search_id}").json()["activity"]
    assert told["data"] == shown == {"stage": "training", "share": 0.25, "message": "epoch 1 of 4"}


def test_told_to_stop_the_server_ends_open_streams_and_long_polls(settings: Settings, engine: Engine) -> None:
    search_id = add_running_search(engine)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.config.port}/v1/searches/{search_id}"
    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(2) as pool:
        following = pool.submit(client.get, f"{url}/events", headers=STREAM)
        waiting = pool.submit(client.get, url, headers={"Prefer": "wait=60", "If-None-Match": "*"})
        time.sleep(0.5)
        began = time.monotonic()
        app.state.stopping.set()
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()
        assert time.monotonic() - began < 5
        assert following.result().status_code == 200
        assert waiting.result().status_code == 304
