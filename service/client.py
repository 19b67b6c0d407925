"""A small client of `/v1`, used by the command line and the demo. Knows HTTP, and nothing of the database.

Every answer is the parsed JSON as the API gave it. What can go wrong is one of two errors:
`UnreachableError` (no service at that address) and `RefusedError` (the service said no, and why).
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from service.config import Settings
from service.states import JobState, SearchState
from service.wording import describe_activity

Json = dict[str, Any]
DEFAULT_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
LONG_POLL_S = 10
SHORTEST_PAUSE_S = 0.25
TRIES = 5
UPLOAD_TIMEOUT_S = 600.0
PAGE_SIZE = 500
_BUSY = frozenset({429, 502, 503, 504})
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # what a service listens on is not always what one calls


Tell = Callable[[float, str], None]
"""Called with the share of a long step that is done, from 0 to 1, and a line of text."""


class _ToldFile(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path)
        self._size = max(path.stat().st_size, 1)
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._tell(self.tell() / self._size, f"{self.tell() / 1e6:,.1f} of {self._size / 1e6:,.1f} MB")
        return data


class UnreachableError(Exception):
    """Nothing answers at the address."""


@dataclass
class RefusedError(Exception):
    """The service refused; `problem` is its RFC 9457 document."""

    problem: Json

    def __str__(self) -> str:
        return str(self.problem.get("detail") or self.problem.get("title") or "the service refused")

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(JSON pointer, what is wrong there) for each bad field; of a file that was brought, its parts."""
        pointed = [(item.get("pointer", ""), item.get("detail", "")) for item in self.problem.get("errors", [])]
        parts = [(item.get("part", ""), item.get("detail", "")) for item in self.problem.get("faults", [])]
        return [(str(where), str(what)) for where, what in (*pointed, *parts)]


def service_url(settings: Settings) -> str:
    return f"http://{_ANYWHERE.get(settings.host, settings.host)}:{settings.port}"


@contextmanager
def connect(url: str) -> Iterator[Client]:
    with httpx.Client(base_url=url, timeout=httpx.Timeout(30.0, connect=5.0)) as http:
        yield Client(http)


@dataclass(frozen=True)
class Client:
    """The verbs of the API."""

    http: httpx.Client

    def is_ready(self) -> bool:
        try:
            return self.http.get("/v1/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def submit(self, document: bytes, *, yaml: bool) -> Json:
        headers = {
            "Content-Type": "application/yaml" if yaml else "application/json",
            "Idempotency-Key": str(uuid4()),  # so that a try that is repeated makes no second search
        }
        return self._json("POST", "/v1/searches", content=document, headers=headers)

    def check(self, document: bytes, *, yaml: bool) -> Json:
        """What a spec would search; nothing is stored."""
        headers = {"Content-Type": "application/yaml" if yaml else "application/json"}
        return self._json("POST", "/v1/searches/check", content=document, headers=headers)

    def search(self, search_id: str) -> Json:
        return self._json("GET", f"/v1/searches/{search_id}")

    def searches(self) -> Iterator[Json]:
        """Newest first."""
        return self._pages("/v1/searches")

    def trials(self, search_id: str) -> Iterator[Json]:
        return self._pages(f"/v1/searches/{search_id}/trials")

    def front(self, search_id: str) -> Json:
        return self._json("GET", f"/v1/searches/{search_id}/front")

    def comparison(self, search_id: str) -> Json:
        return self._json("GET", f"/v1/searches/{search_id}/comparison")

    def picture(self, search_id: str) -> bytes:
        """The front's plot as an SVG file with its own colours."""
        return self._send("GET", f"/searches/{search_id}/front.svg").content

    def change(self, search_id: str, verb: str) -> Json:
        """`cancel`, `pause` or `resume`."""
        return self._json("POST", f"/v1/searches/{search_id}/{verb}")

    def extend(self, search_id: str, wanted: Json) -> Json:
        """Go on with a search that is over; see `ExtensionRequest`."""
        headers = {"Idempotency-Key": str(uuid4())}
        return self._json("POST", f"/v1/searches/{search_id}/extend", json=wanted, headers=headers)

    def fork(self, search_id: str, changes: Json) -> Json:
        """A search with the same spec, but for these parts of it."""
        headers = {"Idempotency-Key": str(uuid4())}
        return self._json("POST", f"/v1/searches/{search_id}/fork", json=changes, headers=headers)

    def resolve(self, prefix: str) -> str:
        """The only search id that begins with `prefix`.

        Raises:
            RefusedError: none does, or several do.
        """
        matches = [search["id"] for search in self.searches() if search["id"].startswith(prefix)]
        if len(matches) == 1:
            return str(matches[0])
        if prefix in matches:
            return prefix
        how_many = "no search" if not matches else f"{len(matches)} searches"
        raise RefusedError({"title": "Which search?", "detail": f"{how_many} begin with {prefix!r}; see espalier list"})

    def events(self, search_id: str, after: int) -> Iterator[Json]:
        """What has happened since the event with this id, in order; 0 is the beginning."""
        return self._pages(f"/v1/searches/{search_id}/events", after=after)

    def changes(self, search_id: str) -> Iterator[Json]:
        """The search now and after each change, until it is final. Survives a restart of the service.

        Raises:
            UnreachableError: the service stayed away for several tries in a row.
        """
        etag, failures = "", 0
        while True:
            headers = {"If-None-Match": etag, "Prefer": f"wait={LONG_POLL_S}"}
            try:
                response = self._send("GET", f"/v1/searches/{search_id}", headers=headers)
            except UnreachableError:
                failures += 1
                if failures >= TRIES:
                    raise
                time.sleep(DEFAULT_RETRY_S)
                continue
            failures = 0
            if response.status_code != httpx.codes.NOT_MODIFIED:
                etag = response.headers.get("ETag", "")
                search: Json = response.json()
                yield search
                if SearchState(search["state"]).is_final:
                    return
            waited = "Preference-Applied" in response.headers
            time.sleep(SHORTEST_PAUSE_S if waited else retry_after_s(response))

    def request_export(self, search_id: str, trial: int | None) -> Json:
        """Ask for one trial's file; None means the knee of the front."""
        return self._json("POST", f"/v1/searches/{search_id}/exports", json={} if trial is None else {"trial": trial})

    def await_export(self, export: Json, timeout_s: float = 600.0) -> Json:
        """The export once it is final.

        Raises:
            RefusedError: it failed, or took longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not JobState(export["state"]).is_final:
            if time.monotonic() > deadline:
                raise RefusedError({"title": "Export", "detail": f"not finished after {timeout_s:.0f} s"})
            time.sleep(DEFAULT_RETRY_S)
            export = self._json("GET", f"/v1/exports/{export['id']}")
        if export["state"] != JobState.SUCCEEDED:
            raise RefusedError({"title": "The export failed", "detail": export.get("reason") or export["state"]})
        return export

    def request_refinements(
        self, search_id: str, trials: Sequence[int], epochs: float, learning_rate: float
    ) -> list[Json]:
        """Ask for designs to be trained on; no trials at all means the front's members."""
        body: Json = {"epochs": epochs, "learning_rate": learning_rate} | ({"trials": list(trials)} if trials else {})
        items: list[Json] = self._json("POST", f"/v1/searches/{search_id}/refinements", json=body)["items"]
        return items

    def cancel_refinement(self, refinement_id: str) -> Json:
        return self._json("POST", f"/v1/refinements/{refinement_id}/cancel")

    def follow_refinements(self, refinements: Sequence[Json]) -> Iterator[Json]:
        """Each as it is now, again and again, until all have ended."""
        waiting = [one["id"] for one in refinements]
        while waiting:
            states = [self._json("GET", f"/v1/refinements/{identity}") for identity in waiting]
            yield from states
            waiting = [one["id"] for one in states if not JobState(one["state"]).is_final]
            if waiting:
                time.sleep(DEFAULT_RETRY_S)

    def download(self, export: Json, target: Path) -> list[Path]:
        """Write the export's file, and beside it all that comes with it, called by the same name.

        Returns:
            what was written, the exported file first; in the folder `target`, if it is one.
        """
        artifact = export["artifact"]
        path = target / artifact["filename"] if target.is_dir() else target
        path.write_bytes(self._send("GET", artifact["url"]).content)
        written = [path]
        for file in export["files"]:
            beside = path.with_name(_name_beside(path.stem, file["filename"]))
            beside.write_bytes(self._send("GET", file["url"]).content)
            written.append(beside)
        return written

    def devices(self) -> list[Json]:
        """All devices that are known."""
        items: list[Json] = self._json("GET", "/v1/devices")["items"]
        return items

    def device(self, name: str) -> Json:
        return self._json("GET", f"/v1/devices/{quote(name, safe='')}")

    def device_accuracy(self, name: str) -> Json:
        """How right a device's cost models were."""
        return self._json("GET", f"/v1/devices/{quote(name, safe='')}/accuracy")

    def estimate(self, request: Json) -> Json:
        """What designs cost, without a search; see `EstimateRequest`."""
        return self._json("POST", "/v1/estimates", json=request)

    def networks(self) -> list[Json]:
        """The families of the catalog and what was imported."""
        items: list[Json] = self._json("GET", "/v1/networks")["items"]
        return items

    def network(self, name: str) -> Json:
        return self._json("GET", f"/v1/networks/{quote(name, safe='')}")

    def bring_network(self, path: Path, filename: str, name: str, settings: Json, tell: Tell) -> Json:
        """Hand over a file under a name; `filename` is what it is called for people."""
        fields = {"name": name, "settings": json.dumps(settings)}
        return self._upload("/v1/networks", path, filename, fields, tell)

    def await_network(self, network: Json, tell: Tell) -> Json:
        """The network once it is imported.

        Raises:
            RefusedError: it cannot be.
        """
        return self._await(network, lambda: self.network(network["name"]), lambda one: one, tell)

    def datasets(self) -> list[Json]:
        """Those that come with Espalier and those that were added."""
        items: list[Json] = self._json("GET", "/v1/datasets")["items"]
        return items

    def dataset(self, name: str) -> Json:
        return self._json("GET", f"/v1/datasets/{quote(name, safe='')}")

    def bring_dataset(self, path: Path, filename: str, name: str, extend: bool, tell: Tell) -> Json:
        """Hand over an archive under a name."""
        fields = {"name": name, "extend": "true" if extend else "false"}
        return self._upload("/v1/datasets", path, filename, fields, tell)

    def await_dataset(self, dataset: Json, tell: Tell) -> Json:
        """The data set once the version was looked at that was handed over last.

        Raises:
            RefusedError: it cannot be used.
        """
        number = dataset["version"]

        def version(one: Json) -> Json:
            return next(each for each in one["versions"] if each["version"] == number)

        return self._await(dataset, lambda: self.dataset(dataset["name"]), version, tell)

    def bring_measurements(self, path: Path, filename: str, settings: Json, tell: Tell) -> Json:
        """Hand over a table of figures; what it has brought."""
        return self._upload("/v1/measurements/import", path, filename, {"settings": json.dumps(settings)}, tell)

    def fetch_measurements(self, target: Path, form: str, filters: Json, tell: Tell) -> int:
        """Write figures to a file, `csv` or `parquet`, which appears whole or not at all; how many bytes it has."""
        unfinished = target.with_name(f".{target.name}.part")
        try:
            with unfinished.open("wb") as file:
                for piece in self._pieces("/v1/measurements/export", {**filters, "format": form}):
                    file.write(piece)
                    tell(0.0, f"{file.tell() / 1e6:,.1f} MB")
                size = file.tell()
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        return size

    def coverage(self, wanted: Json) -> Json:
        """What is known of a network on a device, and what is not."""
        return self._json("GET", "/v1/measurements/coverage", params=wanted)

    def _pieces(self, path: str, params: Json) -> Iterator[bytes]:
        try:
            with self.http.stream("GET", path, params=params, timeout=UPLOAD_TIMEOUT_S) as response:
                if response.is_error:
                    response.read()
                    raise RefusedError(_problem(response))
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise UnreachableError(str(self.http.base_url)) from error

    def _upload(self, url: str, path: Path, filename: str, fields: dict[str, str], tell: Tell) -> Json:
        with _ToldFile(path, tell) as file:
            files = {"file": (filename, file, "application/octet-stream")}
            return self._json("POST", url, data=fields, files=files, timeout=UPLOAD_TIMEOUT_S)

    def _await(self, brought: Json, read: Callable[[], Json], part: Callable[[Json], Json], tell: Tell) -> Json:
        while not JobState(part(brought)["state"]).is_final:
            activity = part(brought)["activity"]
            if activity:
                tell(activity["share"], describe_activity(activity))
            time.sleep(DEFAULT_RETRY_S / 2)
            brought = read()
        if part(brought)["state"] != JobState.SUCCEEDED:
            raise RefusedError(part(brought)["problem"] or {"title": "This cannot be used"})
        return brought

    def _pages(self, path: str, **params: int) -> Iterator[Json]:
        query: Json = {"page_size": PAGE_SIZE, **params}
        while True:
            page = self._json("GET", path, params=query)
            yield from page["items"]
            if not page.get("next_page_token"):
                return
            query["page_token"] = page["next_page_token"]

    def _json(self, method: str, path: str, **options: Any) -> Json:
        answer: Json = self._send(method, path, **options).json()
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for _ in range(TRIES):
            try:
                response = self.http.request(method, path, **options)
            except httpx.TransportError as error:
                raise UnreachableError(str(self.http.base_url)) from error
            if response.status_code not in _BUSY:
                break
            time.sleep(retry_after_s(response))
        if response.is_error:
            raise RefusedError(_problem(response))
        return response


def _name_beside(stem: str, filename: str) -> str:
    """What a file of an export is called beside one with this stem: programs find the exported file by its name."""
    prefix = "run_" if filename.startswith("run_") else ""
    return f"{prefix}{stem}.{Path(filename).name.partition('.')[2]}"


def retry_after_s(response: httpx.Response) -> float:
    """Seconds that the service asks to wait, within reason."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_S) if text.isdigit() else DEFAULT_RETRY_S


def _problem(response: httpx.Response) -> Json:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": response.reason_phrase, "detail": f"HTTP {response.status_code} without an explanation"}
    return {"status": response.status_code, **problem}
