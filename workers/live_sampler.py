"""Keeps the samplers of running searches warm between plans. A kept sampler is only a shortcut.

Rows are the truth: a sampler that is not here is made anew and told the whole history, or what its last snapshot has
not heard of it. Knows nothing of when to plan.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from search_spaces.check import check_spec
from search_spaces.design import Design, designs_from_json
from search_spaces.network import network_digest
from search_spaces.objectives import DEVICE_METRICS, SYMBOLIC_METRICS, TrialState
from search_spaces.pareto import violations
from search_spaces.samplers import Sampler, ToldTrial, make_sampler
from search_spaces.space import Space
from search_spaces.spec import SearchSpec
from service.known import known_for_search
from service.models import Search, Trial
from service.searches.specs import spec_of
from workers.sampler_snapshots import History, Snapshot, read_snapshot, write_snapshot

_log = logging.getLogger(__name__)

KEPT = 8
SAVED_EVERY_TRIALS, SAVED_EVERY_S = 25, 30.0
"""A snapshot is written once so many trials were told since the last one, or any, so long ago."""
PIECE = 100
"""Trials of a long history that are told before a snapshot may be written: an agent takes half a minute for so many."""
_TOLD_STATES = (TrialState.SUCCEEDED, TrialState.INFEASIBLE, TrialState.STOPPED, TrialState.FAILED)


@dataclass
class LiveSampler:
    """A search's sampler, with what it works on and what it was told.

    Attributes:
        extended_at: of the search when the sampler was made: an extension changes the budget, and what has finished.
        told: the finish number of the last trial it was told: how many they were.
        trials: digest of which they were.
        saved, saved_at: `told` when the last snapshot was taken, and when that was.
    """

    spec: SearchSpec
    space: Space
    sampler: Sampler
    extended_at: datetime | None = None
    told: int = 0
    trials: str = ""
    saved: int = 0
    saved_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Unheard:
    """What a sampler was not told yet.

    Attributes:
        trials: in the order in which they finished.
        marks: of each what tells its outcome from another one, see `_MARKS`.
    """

    trials: Sequence[ToldTrial]
    marks: Sequence[Sequence[Any]]


class LiveSamplers:
    """The samplers of the searches planned last, by search. A planner takes one out and puts it back when done.

    Those that have a state are also saved in `folder`, if there is one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._kept: OrderedDict[str, LiveSampler] = OrderedDict()
        self._lock = threading.Lock()
        self._folder = folder

    def take(self, session: Session, search: Search) -> LiveSampler:
        """Raises `SpecError` when the spec no longer suits the devices that are known."""
        with self._lock:
            kept = self._kept.pop(search.id, None)
        if kept is not None and kept.extended_at == search.extended_at:
            return kept
        snapshot = None if self._folder is None else read_snapshot(self._path(search.id))
        restored = None if snapshot is None else _restored(session, search, snapshot)
        return restored if restored is not None else make_live_sampler(session, search)

    def tell(self, search_id: str, live: LiveSampler, unheard: Unheard) -> None:
        """Tell a taken sampler in pieces, so that whoever has to tell a long history again loses little by a kill."""
        for start in range(0, len(unheard.trials), PIECE):
            piece = slice(start, start + PIECE)
            if start and self._folder is not None:
                self._save(search_id, live)
            live.sampler.tell(unheard.trials[piece])
            live.trials = _chained(live.trials, unheard.marks[piece])
            live.told = unheard.marks[piece][-1][0]

    def put_back(self, search_id: str, live: LiveSampler) -> None:
        if self._folder is not None:
            self._save(search_id, live)
        with self._lock:
            self._kept[search_id] = live
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def forget(self, search_id: str) -> None:
        """Of a search that asks for no more designs."""
        with self._lock:
            self._kept.pop(search_id, None)
        if self._folder is not None:
            self._path(search_id).unlink(missing_ok=True)

    def _path(self, search_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{search_id}.npz"

    def _save(self, search_id: str, live: LiveSampler) -> None:
        since, waited_s = live.told - live.saved, time.monotonic() - live.saved_at
        if since == 0 or (since < SAVED_EVERY_TRIALS and waited_s < SAVED_EVERY_S):
            return
        state = live.sampler.state()
        live.saved, live.saved_at = live.told, time.monotonic()
        if state is None:
            return
        try:
            write_snapshot(self._path(search_id), Snapshot(_history(live), state))
        except OSError:
            _log.warning("cannot save the sampler of search %s", search_id, exc_info=True)


def _history(live: LiveSampler) -> History:
    space = (network_digest(live.space.network), live.space.decisions)
    spec = hashlib.sha256(f"{live.spec.model_dump_json()} {space}".encode()).hexdigest()
    return History(spec, live.told, live.trials)


def _restored(session: Session, search: Search, snapshot: Snapshot) -> LiveSampler | None:
    """The sampler as it was; None where the snapshot is not of this spec and this history."""
    live = make_live_sampler(session, search)
    query = _finished(search.id, 0).where(Trial.finish_number <= snapshot.history.told)
    rows = session.execute(query.with_only_columns(*_MARKS).order_by(Trial.finish_number)).all()
    # Numbers have gaps where an extension has run trials once more.
    live.told, live.trials = snapshot.history.told, _chained("", rows)
    if _history(live) != snapshot.history:
        return None
    try:
        live.sampler.restore(snapshot.state)
    except ValueError:
        _log.warning("the state of search %s does not fit its sampler", search.id, exc_info=True)
        return None
    live.saved = live.told
    return live


def make_live_sampler(session: Session, search: Search) -> LiveSampler:
    checked = check_spec(spec_of(search), known_for_search(session, search))
    sampler = make_sampler(checked.spec, checked.space)
    return LiveSampler(checked.spec, checked.space, sampler, search.extended_at)


def unheard_trials(session: Session, search_id: str, live: LiveSampler) -> Unheard:
    """The trials that finished since the sampler was told last."""
    query = _finished(search_id, live.told).with_only_columns(*_MARKS, *_TOLD).order_by(Trial.finish_number)
    rows = session.execute(query).all()
    designs = designs_from_json(row.design for row in rows)
    told = [_told(row, design, live.spec) for row, design in zip(rows, designs, strict=True)]
    return Unheard(told, [row[: len(_MARKS)] for row in rows])


_MARKS = (Trial.finish_number, Trial.number, Trial.attempt, Trial.state)
"""Tell a trial's outcome from another one of the same trial: outcomes are written once, and not changed."""
_TOLD = (Trial.design, Trial.values, Trial.memo, Trial.baseline, Trial.rung, Trial.expected)
"""What a sampler is told besides; of thousands of trials reading all takes seconds."""


def _finished(search_id: str, after: int) -> Select[Trial]:
    return select(Trial).where(Trial.search_id == search_id, Trial.finish_number > after, Trial.state.in_(_TOLD_STATES))


def _chained(digest: str, rows: Iterable[Sequence[Any]]) -> str:
    """The digest of a history that goes on, whatever the pieces it is told in."""
    for row in rows:
        digest = hashlib.sha256(f"{digest} {[str(mark) for mark in row]}".encode()).hexdigest()
    return digest


def _told(row: Row[Any], design: Design, spec: SearchSpec) -> ToldTrial:
    values = row.values if row.expected is None else _at_the_end(row.values, row.expected)
    return ToldTrial(
        number=row.number,
        design=design,
        state=TrialState(row.state),
        values=values,
        violations=violations(values, spec.limits),
        memo=row.memo,
        baseline=row.baseline,
        fidelity=1.0 if row.rung is None else row.rung / len(spec.evaluation.steps),
    )


def _at_the_end(values: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Of a stopped trial what it would come to; other scores of its cheap step say nothing of that."""
    lasting = {metric: value for metric, value in values.items() if metric in SYMBOLIC_METRICS | DEVICE_METRICS}
    return lasting | dict(expected)
