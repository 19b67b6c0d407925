"""`espalier up` on a fresh home: one real search through HTTP, and what it survives.

The tests share one service and one home, so that the base is trained once. Every fault is a real one: kill -9, a
removed folder.
"""

import hashlib
import shutil
import sqlite3
import subprocess
import time

import httpx
import psutil
import pytest

from tests.end_to_end.running import ESPALIER, FINAL, assert_complete, digits_spec, wait_for


def test_a_search_ends_with_a_front_and_confirmed_finalists(embedded, first_search):
    assert_complete(embedded, first_search, budget=3)
    trials = {trial["number"]: trial for trial in embedded.trials(first_search)}
    baseline = [trial for trial in trials.values() if trial["baseline"]]
    assert len(baseline) == 4
    assert all(trial["state"] == "succeeded" for trial in trials.values()), trials
    front = embedded.get(f"searches/{first_search}/front")
    assert 1 <= len(front["items"]) <= len(trials)
    assert front["hypervolume"] > 0
    best = max(trial["values"]["accuracy"] for trial in trials.values())
    assert best > 0.8  # a digits network that learnt anything is above nine in ten
    assert max(item["values"]["accuracy"] for item in front["items"]) == best


def test_an_exported_file_is_the_one_reported(embedded, first_search):
    number = embedded.get(f"searches/{first_search}/front")["items"][0]["number"]
    answer = httpx.post(f"{embedded.url}/v1/searches/{first_search}/exports", json={"trial": number}, timeout=30)
    assert answer.status_code in (200, 202), answer.text
    export_id = answer.json()["id"]

    def ended():
        export = embedded.get(f"exports/{export_id}")
        return export if export["state"] in FINAL else None

    export = wait_for(ended, 120, lambda: str(embedded.get(f"exports/{export_id}")))
    assert export["state"] == "succeeded", export
    digest = export["artifact"]["digest"] if "artifact" in export else export["artifact_digest"]
    file = httpx.get(f"{embedded.url}/v1/artifacts/{digest}", timeout=30)
    assert hashlib.sha256(file.content).hexdigest() == digest
    assert b"espalier" in file.content or file.content[:1] == b"\x08"  # an ONNX ModelProto
    assert_all_files_come(embedded, export)


def assert_all_files_come(embedded, export):
    """Each by its link, as it was stored, and called by the name of the design."""
    stem = export["artifact"]["filename"].removesuffix(".onnx")
    names = [f"{stem}.html", f"{stem}.safetensors", f"run_{stem}.py", f"run_{stem}.cpp"]
    packed = [f"{stem}.packed.safetensors"]  # where anything is in integers
    assert [file["filename"] for file in export["files"] if file["filename"] not in packed] == names
    for file in export["files"]:
        answer = httpx.get(f"{embedded.url}{file['url']}", timeout=30)
        assert hashlib.sha256(answer.content).hexdigest() == file["digest"]
        assert len(answer.content) == file["size_bytes"]
        assert file["description"]
    page = httpx.get(f"{embedded.url}{export['files'][0]['url']}", timeout=30).text
    assert all(name in page for name in (f"{stem}.onnx", *names[1:]))
    assert [one["runtime"].split()[0] for one in export["report"]["details"]["checks"]["runtimes"]][-1] == "OpenVINO"


def test_the_history_tells_every_trial_once_in_order(embedded, first_search):
    events, after = [], 0
    while True:
        page = embedded.get(f"searches/{first_search}/events?after={after}")["items"]
        if not page:
            break
        events += page
        after = page[-1]["id"]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    states = [event["data"]["state"] for event in events if event["kind"] == "state"]
    assert states == ["queued", "preparing", "running", "confirming", "succeeded"]
    ended = [event["data"]["number"] for event in events if event["kind"] == "trial" and event["data"]["values"]]
    assert sorted(ended) == list(range(7))


def test_a_second_supervisor_is_refused(embedded):
    environment = {"ESPALIER_HOME": str(embedded.home), "ESPALIER_PORT": "0", "PATH": "/usr/bin:/bin"}
    second = subprocess.run([ESPALIER, "up"], env=environment, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "already runs" in second.stdout


def test_answers_do_not_wait_for_delayed_acknowledgements(embedded):
    with httpx.Client(base_url=embedded.url) as client:  # one connection for all
        seconds = [client.get("/v1/health").elapsed.total_seconds() for _ in range(20)]
    assert min(seconds[5:]) < 0.03, seconds  # where they do, each waits for 40 ms


def test_the_same_search_again_evaluates_nothing_and_an_extension_goes_on(embedded, first_search):
    document = digits_spec(name="again")
    document["evaluation"]["measure"] = "where_it_matters"
    search_id = embedded.submit(document)
    assert embedded.await_end(search_id)["state"] == "succeeded"
    first, again = embedded.trials(first_search), embedded.trials(search_id)
    assert [trial["values"] for trial in again] == [trial["values"] for trial in first]
    assert {trial["obtained"] for trial in again} == {"reused"}
    assert [trial["origin"]["trial"] for trial in again] == [trial["number"] for trial in first]
    answer = httpx.post(f"{embedded.url}/v1/searches/{search_id}/extend", json={"trials": 2}, timeout=30)
    assert answer.status_code == 202, answer.text
    search = embedded.await_end(search_id)
    assert search["state"] == "succeeded", search
    assert_complete(embedded, search_id, budget=5)
    assert [trial["obtained"] for trial in embedded.trials(search_id)[len(first) :]] == ["evaluated"] * 2


PARTS = ["workers.evaluator", "--queues trials", "--queues control", "uvicorn", "supervisor"]


@pytest.mark.parametrize("lost_messages", [False, True], ids=["", "and the broker's folder removed"])
def test_a_search_survives_kill_9_of_every_process(embedded, first_search, lost_messages):
    """Of each process in turn, in the middle of a trial of one search."""
    search_id = embedded.submit(
        digits_spec(sampler={"name": "random", "seed": 2 + lost_messages}, budget={"trials": 8})
    )
    for part in PARTS:
        embedded.await_running_trial(search_id)
        if lost_messages:
            shutil.rmtree(embedded.home / "broker", ignore_errors=True)
        embedded.kill(part)
        if part == "supervisor":
            embedded.start()
    search = embedded.await_end(search_id)
    assert search["state"] == "succeeded", search
    assert_complete(embedded, search_id, budget=8)
    assert all(trial["state"] == "succeeded" for trial in embedded.trials(search_id)), embedded.trials(search_id)
    assert_one_measurement_per_trial(embedded, search_id)


def assert_one_measurement_per_trial(embedded, search_id):
    with sqlite3.connect(f"file:{embedded.home / 'espalier.db'}?mode=ro", uri=True) as database:
        counts = database.execute(
            "SELECT t.number, count(m.id) FROM trials t LEFT JOIN measurements m ON m.trial_id = t.id"
            " WHERE t.search_id = ? GROUP BY t.id",
            (search_id,),
        ).fetchall()
    database.close()
    assert {count for _, count in counts} == {1}


def test_cancelled_is_shown_only_once_the_evaluator_is_gone(embedded, first_search):
    search_id = embedded.submit(digits_spec(sampler={"name": "random", "seed": 4}, budget={"trials": 50}))
    embedded.await_running_trial(search_id)
    evaluator = psutil.Process(embedded.find("workers.evaluator"))
    asked = time.monotonic()
    embedded.change(search_id, "cancel")
    wait_for(lambda: embedded.search(search_id)["state"] == "cancelled", 10, lambda: "not cancelled")
    assert not evaluator.is_running()
    assert time.monotonic() - asked < 5
    assert not any(trial["state"] in ("queued", "running") for trial in embedded.trials(search_id))
