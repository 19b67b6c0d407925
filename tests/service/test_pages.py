"""The web pages without a browser: what they say, what their forms do, and what they refuse."""

from __future__ import annotations

import html
import re

import httpx
import pytest
from sqlalchemy import Engine

from search_spaces.objectives import Outcome, TrialState
from service.db import reading, transaction
from service.examples import example_path
from service.finalists.actions import add_finalists, finish_finalist, start_finalist
from service.models import Export, Search
from service.searches.actions import move, note_end
from service.searches.queries import lock_search
from service.states import EndReason, JobState, SearchState
from service.trials.actions import count_work
from tests.service.builders import (
    add_running_search,
    add_search,
    add_trial_rows,
    example_spec,
    run_trial,
    stopped,
    success,
)

TRIALS = example_spec()["budget"]["trials"]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def search_id(engine: Engine) -> str:
    """A running search: two uniform designs, one that was found, one that misses a limit."""
    search_id = add_running_search(engine)
    baseline = add_trial_rows(engine, search_id, 2, baseline=True)
    found = add_trial_rows(engine, search_id, 2)
    run_trial(engine, baseline[0].id, success(0.90, 0.0012))
    run_trial(engine, baseline[1].id, success(0.85, 0.0008))
    run_trial(engine, found[0].id, success(0.91, 0.0007))
    run_trial(engine, found[1].id, Outcome(TrialState.INFEASIBLE, {"size_bytes": 3e5}, "<b>too large</b>"))
    return search_id


def confirm(engine: Engine, search_id: str) -> None:
    with transaction(engine) as session:
        search = lock_search(session, search_id)
        move(session, search, SearchState.CONFIRMING)
        finalists = add_finalists(session, search, [1, 3])
    for finalist, accuracy in zip(finalists, (0.89, 0.905), strict=True):
        values = {"accuracy": accuracy, "accuracy_low": accuracy - 0.01, "accuracy_high": accuracy + 0.01}
        values |= {"latency_s": 0.0012 if finalist.trial_id == 1 else 0.0007}
        with transaction(engine) as session:
            attempt = start_finalist(session, finalist.id, "worker", 60)
            assert attempt is not None
            finish_finalist(session, finalist.id, attempt, JobState.SUCCEEDED, values=values)


def text_of(page: httpx.Response) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.text)))


class TestListPage:
    def test_empty(self, client: httpx.Client) -> None:
        assert "No search yet" in client.get("/").text

    def test_pages_follow_each_other(self, client: httpx.Client, engine: Engine) -> None:
        ids = [add_search(engine) for _ in range(51)]
        first = client.get("/")
        (following,) = re.findall(r'href="(/\?page_token=[^"]+)"', first.text)
        second = client.get(html.unescape(following))
        assert ids[0] not in first.text
        assert ids[0] in second.text
        assert all(one in first.text for one in ids[1:])

    def test_an_odd_token_is_refused(self, client: httpx.Client) -> None:
        assert client.get("/?page_token=nonsense").status_code == 400


class TestSubmitPage:
    def test_it_offers_an_example_that_runs(self, client: httpx.Client) -> None:
        (offered,) = re.findall(r"<textarea[^>]*>\n(.*)</textarea>", client.get("/searches/new").text, re.DOTALL)
        assert html.unescape(offered) == example_path().read_text()
        answer = client.post("/searches/new", data={"spec": html.unescape(offered).replace("\n", "\r\n")})
        assert answer.status_code == 303
        shown = client.get(answer.headers["Location"])
        assert "mobilenet-fashion-cpu" in shown.text

    def test_faults_stand_beside_their_lines_and_the_text_stays(self, client: httpx.Client, engine: Engine) -> None:
        broken = example_path().read_text().replace("high: 0.7", "high: 7").replace("name: nsga2", "name: <nsga2>")
        answer = client.post("/searches/new", data={"spec": broken})
        assert answer.status_code == 422
        assert "<nsga2>" not in answer.text
        assert html.unescape(re.findall(r"<textarea[^>]*>\n(.*)</textarea>", answer.text, re.DOTALL)[0]) == broken
        assert {"/space/prune_ratio/high", "/sampler/name"} <= set(re.findall(r"<code>([^<]*)</code>", answer.text))
        lines = broken.splitlines()
        assert {
            lines[int(line) - 1].split(":")[0].strip() for line in re.findall(r'data-line="(\d+)"', answer.text)
        } == {
            "prune_ratio",
            "sampler",
        }
        with reading(engine) as session:
            assert session.query(Search).count() == 0

    @pytest.mark.parametrize("text", ["", "- 1", "{", "a: &a [*a]", "[" * 60])
    def test_what_is_no_spec(self, client: httpx.Client, text: str) -> None:
        assert client.post("/searches/new", data={"spec": text}).status_code == 422

    def test_another_site_cannot_submit(self, client: httpx.Client, engine: Engine) -> None:
        form = {"spec": example_path().read_text()}
        answer = client.post("/searches/new", data=form, headers={"Origin": "http://elsewhere.example"})
        assert answer.status_code == 403
        with reading(engine) as session:
            assert session.query(Search).count() == 0


class TestSearchPage:
    def test_it_says_why_it_ended_and_what_was_stopped(
        self, client: httpx.Client, engine: Engine, search_id: str
    ) -> None:
        assert "No more trials" not in text_of(client.get(f"/searches/{search_id}"))
        (behind,) = add_trial_rows(engine, search_id, 1)
        run_trial(engine, behind.id, stopped(0.7, 0.001))
        with transaction(engine) as session:
            count_work(session, behind.id, 75.0)
            search = lock_search(session, search_id)
            note_end(search, EndReason.WALL_TIME, "the <wall> time is spent")
            move(session, search, SearchState.SUCCEEDED)
        page = client.get(f"/searches/{search_id}")
        text = text_of(page)
        assert "1 missing a limit, 1 stopped early." in text
        assert "No more trials: the <wall> time is spent. Evaluators have worked 1 min 15 s" in text
        assert "<wall>" not in page.text
        assert "place 9 of 9 at step 2 of 3" in text
        assert "Its scores are of that step, on fewer images or after less training" in text
        assert page.text.count('class="point stopped"') == 2

    def test_it_shows_what_happens(self, client: httpx.Client, search_id: str) -> None:
        page = client.get(f"/searches/{search_id}")
        text = text_of(page)
        assert "running" in text
        assert f"4 of {2 + TRIALS} trials, 1 missing a limit" in text
        assert "Best of each so far: accuracy 91.00 %, latency 0.700 ms" in text
        assert page.text.count('class="point uniform"') == 3  # two designs and the legend
        assert "<b>too large" not in page.text
        assert "<b>too large</b>" in text

    def test_the_fragment_is_the_live_part(self, client: httpx.Client, search_id: str) -> None:
        fragment = client.get(f"/searches/{search_id}/fragment").text
        assert "<html" not in fragment
        assert 'class="plot"' in fragment

    def test_the_plot_can_be_kept_as_a_picture(self, client: httpx.Client, search_id: str) -> None:
        picture = client.get(f"/searches/{search_id}/front.svg")
        assert picture.headers["Content-Type"] == "image/svg+xml"
        assert 'class="point front"' in picture.text
        assert "<style>" in picture.text

    def test_confirmed_designs_are_compared(self, client: httpx.Client, engine: Engine, search_id: str) -> None:
        confirm(engine, search_id)
        text = text_of(client.get(f"/searches/{search_id}"))
        assert "90.50 (89.50-91.50)" in text
        assert "are better than the best uniform ones" in text
        assert "1 of 1 uniform design is dominated" in text

    def test_a_uniform_design_that_has_no_result_says_why(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        waiting, ended = add_trial_rows(engine, search_id, 2, baseline=True)
        run_trial(engine, ended.id, Outcome(TrialState.FAILED, reason="it crashed"))
        text = text_of(client.get(f"/searches/{search_id}"))
        assert f"{waiting.number} uniform queued" in text
        assert f"{ended.number} uniform failed" in text
        assert "it crashed" in text

    def test_trials_come_in_pages(self, client: httpx.Client, engine: Engine) -> None:
        search_id = add_running_search(engine)
        add_trial_rows(engine, search_id, 201)
        first, second = (client.get(f"/searches/{search_id}?page={page}").text for page in (1, 2))
        assert "page 1 of 2" in first
        assert second.count('wide">channels ') == 1

    def test_nothing_from_elsewhere_is_allowed(self, client: httpx.Client, search_id: str) -> None:
        page = client.get(f"/searches/{search_id}")
        assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)

    @pytest.mark.parametrize(
        "path", ["/static/style.css", "/static/search.js", "/static/editor.js", "/static/icon.svg"]
    )
    def test_static_files(self, client: httpx.Client, path: str) -> None:
        assert client.get(path).status_code == 200

    def test_an_unknown_search(self, client: httpx.Client) -> None:
        unknown = "/searches/00000000-0000-4000-8000-000000000000"
        seen = client.get(unknown, headers={"Accept": "text/html,*/*;q=0.8"})
        assert (seen.status_code, seen.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert "There is no such thing" in text_of(seen)
        assert client.get(unknown).headers["Content-Type"] == "application/problem+json"


class TestVerbs:
    def state(self, engine: Engine, search_id: str) -> SearchState:
        with reading(engine) as session:
            return session.get_one(Search, search_id).state

    def test_pause_resume_cancel(self, client: httpx.Client, engine: Engine, search_id: str) -> None:
        for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            answer = client.post(f"/searches/{search_id}/{verb}")
            assert (answer.status_code, answer.headers["Location"]) == (303, f"/searches/{search_id}")
            assert self.state(engine, search_id) == state

    def test_what_has_become_impossible_leads_back(self, client: httpx.Client, engine: Engine, search_id: str) -> None:
        client.post(f"/searches/{search_id}/cancel")
        assert client.post(f"/searches/{search_id}/pause").status_code == 303
        assert self.state(engine, search_id) is SearchState.CANCELLED

    def test_other_verbs(self, client: httpx.Client, search_id: str) -> None:
        assert client.post(f"/searches/{search_id}/delete").status_code == 404

    def test_another_site_cannot_cancel(self, client: httpx.Client, engine: Engine, search_id: str) -> None:
        headers = {"Origin": "http://elsewhere.example"}
        assert client.post(f"/searches/{search_id}/cancel", headers=headers).status_code == 403
        assert self.state(engine, search_id) is SearchState.RUNNING


class TestExport:
    def test_the_form_asks_for_a_file(self, client: httpx.Client, engine: Engine, search_id: str) -> None:
        assert client.post(f"/searches/{search_id}/exports", data={"trial": "2"}).status_code == 303
        with reading(engine) as session:
            assert session.query(Export).one().state == JobState.QUEUED
        assert "Trial 2:" in text_of(client.get(f"/searches/{search_id}"))

    @pytest.mark.parametrize("trial", ["-1", "99", "1e3", "9" * 40])
    def test_no_such_trial(self, client: httpx.Client, search_id: str, trial: str) -> None:
        assert client.post(f"/searches/{search_id}/exports", data={"trial": trial}).status_code in (404, 422)
