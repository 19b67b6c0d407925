"""The client: patience with a busy or restarting service, and answers that say what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service import client as client_module
from service.client import Client, RefusedError, UnreachableError, connect, service_url
from service.config import Settings

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited, without waiting them."""
    naps: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", naps.append)
    return naps


def client_of(handler: Handler) -> Client:
    return Client(httpx.Client(base_url="http://service", transport=httpx.MockTransport(handler)))


def in_turn(*answers: httpx.Response | Exception) -> Handler:
    remaining: Iterator[httpx.Response | Exception] = iter(answers)

    def handle(_: httpx.Request) -> httpx.Response:
        answer = next(remaining)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


def search(state: str, version: int) -> httpx.Response:
    headers = {"ETag": f'"{version}"', "Preference-Applied": "wait=10"}
    return httpx.Response(200, json={"id": "a", "state": state}, headers=headers)


def test_it_waits_as_long_as_it_is_asked_to(naps: list[float]) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "7"})
    assert client_of(in_turn(busy, httpx.Response(429), search("running", 1))).search("a")["state"] == "running"
    assert naps == [7.0, client_module.DEFAULT_RETRY_S]


def test_it_does_not_wait_for_ever(naps: list[float]) -> None:
    with pytest.raises(RefusedError):
        client_of(lambda _: httpx.Response(503, headers={"Retry-After": "99999"})).search("a")
    assert len(naps) == client_module.TRIES
    assert max(naps) == client_module.LONGEST_RETRY_S


def test_nobody_there() -> None:
    client = client_of(in_turn(httpx.ConnectError("refused")))
    with pytest.raises(UnreachableError):
        client.search("a")


def test_is_ready_only_when_health_says_so() -> None:
    assert client_of(in_turn(httpx.Response(200))).is_ready()
    assert not client_of(in_turn(httpx.Response(503))).is_ready()
    assert not client_of(in_turn(httpx.ConnectError("refused"))).is_ready()


def test_faults_of_a_problem_document() -> None:
    problem = {"title": "bad", "detail": "2 faults", "errors": [{"pointer": "/name", "detail": "too long"}]}
    with pytest.raises(RefusedError) as caught:
        client_of(lambda _: httpx.Response(422, json=problem)).submit(b"{}", yaml=False)
    assert caught.value.faults == [("/name", "too long")]
    assert str(caught.value) == "2 faults"


def test_a_refusal_that_explains_nothing() -> None:
    with pytest.raises(RefusedError, match="HTTP 500"):
        client_of(lambda _: httpx.Response(500, text="<html>")).search("a")


class TestChanges:
    def test_each_change_once_until_the_end(self) -> None:
        asked: list[str] = []
        answers = in_turn(search("queued", 1), httpx.Response(304), search("succeeded", 2))

        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(request.headers["If-None-Match"])
            return answers(request)

        assert [one["state"] for one in client_of(handle).changes("a")] == ["queued", "succeeded"]
        assert asked == ["", '"1"', '"1"']

    def test_a_restart_of_the_service_is_survived(self) -> None:
        gone = httpx.ConnectError("refused")
        client = client_of(in_turn(search("running", 1), gone, gone, search("failed", 2)))
        assert [one["state"] for one in client.changes("a")] == ["running", "failed"]

    def test_a_service_that_stays_away_is_given_up(self) -> None:
        with pytest.raises(UnreachableError):
            list(client_of(in_turn(*[httpx.ConnectError("refused")] * client_module.TRIES)).changes("a"))


class TestResolve:
    def answer(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": [{"id": "abc1"}, {"id": "abd2"}], "next_page_token": None})

    def test_a_unique_beginning(self) -> None:
        assert client_of(self.answer).resolve("abd") == "abd2"

    @pytest.mark.parametrize("prefix", ["ab", "x"])
    def test_several_or_none(self, prefix: str) -> None:
        with pytest.raises(RefusedError, match="begin with"):
            client_of(self.answer).resolve(prefix)


def test_all_pages_are_read() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get("page_token", "0"))
        token = str(page + 1) if page < 2 else None
        return httpx.Response(200, json={"items": [{"id": page}], "next_page_token": token})

    assert [one["id"] for one in client_of(handle).searches()] == [0, 1, 2]


class TestExports:
    def export(self, state: str) -> dict[str, object]:
        artifact = {"filename": "a.onnx", "url": "/v1/artifacts/d", "digest": "d"}
        names = ("a.html", "a.safetensors", "run_a.py")
        files = [{"filename": name, "url": "/v1/artifacts/e", "digest": "e"} for name in names]
        return {"id": "e", "state": state, "reason": "out of disk", "artifact": artifact, "files": files}

    def test_it_is_awaited(self) -> None:
        client = client_of(lambda _: httpx.Response(200, json=self.export("succeeded")))
        assert client.await_export(self.export("running"))["state"] == "succeeded"

    def test_a_failed_one_says_why(self) -> None:
        with pytest.raises(RefusedError, match="out of disk"):
            client_of(in_turn()).await_export(self.export("failed"))

    def test_one_that_takes_too_long(self) -> None:
        client = client_of(lambda _: httpx.Response(200, json=self.export("running")))
        with pytest.raises(RefusedError, match="not finished"):
            client.await_export(self.export("running"), timeout_s=-1)

    def test_the_file_lands_where_it_should(self, tmp_path: Path) -> None:
        client = client_of(lambda _: httpx.Response(200, content=b"bytes"))
        written = client.download(self.export("succeeded"), tmp_path)
        assert written == [tmp_path / name for name in ("a.onnx", "a.html", "a.safetensors", "run_a.py")]
        assert (tmp_path / "a.onnx").read_bytes() == b"bytes"
        # The program finds the file by its own name.
        written = client.download(self.export("succeeded"), tmp_path / "b.onnx")
        assert [path.name for path in written] == ["b.onnx", "b.html", "b.safetensors", "run_b.py"]
        assert {path.read_bytes() for path in written} == {b"bytes"}


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8080"), ("0.0.0.0", "http://127.0.0.1:8080"), ("::", "http://[::1]:8080")],
)
def test_where_a_service_is_called(host: str, url: str) -> None:
    assert service_url(Settings(host=host, port=8080)) == url
    with connect(url) as client:
        assert str(client.http.base_url) == url
