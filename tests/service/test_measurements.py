"""Measurements in the database: recorded by workers, looked up, stale once the device has changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, update

from search_spaces.catalog import build_network
from search_spaces.costs import WorkloadKind, workloads
from search_spaces.objectives import Metric, Provenance
from search_spaces.spec import Family, NetworkSpec
from service.db import reading, transaction
from service.measurements.actions import NewMeasurement, WorkloadKey, record
from service.measurements.queries import Figures, lookup
from service.models import Conditions, Measurement, Workload
from tests.service.builders import LOCAL_CPU, add_device, new_measurement

A, B = "a" * 64, "b" * 64
BEFORE = LOCAL_CPU.model_copy(update={"fingerprint": {"runtime": "1.0"}})
AFTER = LOCAL_CPU.model_copy(update={"fingerprint": {"runtime": "2.0"}})


def of(digest: str, **changes: Any) -> NewMeasurement:
    return new_measurement(
        **(
            {"workload": WorkloadKey(WorkloadKind.OPERATOR, digest, digest), "fingerprint": BEFORE.fingerprint}
            | changes
        )
    )


def store(engine: Engine, *rows: NewMeasurement) -> None:
    with transaction(engine) as session:
        record(session, rows)


def find(engine: Engine, *digests: str, metric: str = Metric.LATENCY_S, **options: Any) -> dict[str, Figures]:
    with reading(engine) as session:
        return lookup(session, LOCAL_CPU.name, digests, metric, **options)


def medians(found: dict[str, Figures]) -> dict[str, float]:
    return {digest: figures.median for digest, figures in found.items()}


class TestLookup:
    def test_the_newest_of_each_workload_and_nothing_of_others(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        store(engine, of(A, median=1e-3), of(A, metric=Metric.ENERGY_J, median=5.0), of(B, device="other"))
        store(engine, of(A, median=1.1e-3))
        assert medians(find(engine, A, B, "c" * 64)) == {A: 1.1e-3}
        assert medians(find(engine, A, metric=Metric.ENERGY_J)) == {A: 5.0}
        figures = find(engine, A)[A]
        assert (figures.lower_quartile, figures.upper_quartile, figures.count) == (9e-4, 2e-3, 3)
        assert (figures.provenance, figures.is_stale) == (Provenance.MEASURED, False)
        assert (datetime.now(UTC) - figures.created_at).total_seconds() < 60

    def test_protocols_are_never_mixed(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        store(engine, of(A, median=1e-3), of(A, median=4e-3, protocol={"batch": 8, "threads": 1}))
        assert medians(find(engine, A, protocol={"batch": 1})) == {A: 1e-3}
        assert medians(find(engine, A, protocol={"batch": 8, "threads": 1})) == {A: 4e-3}
        assert find(engine, A, protocol={"batch": 16}) == {}
        assert find(engine, A, protocol={"runtime": "x"}) == {}, "a protocol that does not say so does not fit"

    def test_provenance_can_be_asked_for(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        store(engine, of(A, median=1e-3), of(A, median=2e-3, provenance=Provenance.SIMULATED))
        assert medians(find(engine, A, provenances=[Provenance.MEASURED])) == {A: 1e-3}
        assert find(engine, A, provenances=[Provenance.IMPORTED]) == {}

    def test_a_changed_device_makes_figures_stale_not_wrong(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        store(engine, of(A, median=1e-3), of(B, median=2e-3))
        add_device(engine, AFTER)
        assert find(engine, A, B) == {}
        stale = find(engine, A, B, allow_stale=True)
        assert medians(stale) == {A: 1e-3, B: 2e-3}
        assert all(figures.is_stale for figures in stale.values())
        store(engine, of(A, median=3e-3, fingerprint=AFTER.fingerprint))
        with transaction(engine) as session:  # a fresh figure is used before a stale one, however old it is
            fresh = update(Measurement).where(Measurement.median == 3e-3)
            session.execute(fresh.values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))
        mixed = find(engine, A, B, allow_stale=True)
        assert medians(mixed) == {A: 3e-3, B: 2e-3}
        assert (mixed[A].is_stale, mixed[B].is_stale) == (False, True)
        add_device(engine, BEFORE)
        assert medians(find(engine, A, B)) == {A: 1e-3, B: 2e-3}, "back as it was"

    def test_of_a_long_history_the_database_hands_out_one_row(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        store(engine, *(of(A, median=1e-3 + number / 1e6) for number in range(50)))
        read: list[int] = []
        with reading(engine) as session:
            event.listen(session, "do_orm_execute", lambda state: read.append(len(state.invoke_statement().all())))
            lookup(session, LOCAL_CPU.name, [A], Metric.LATENCY_S)
        assert read == [1, 1], "conditions, and the newest figure"
        assert medians(find(engine, A)) == {A: 1e-3 + 49 / 1e6}

    def test_under_very_many_conditions(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        add_device(engine, BEFORE)
        monkeypatch.setattr("service.measurements.actions.in_chunks.__defaults__", (4,))
        store(
            engine,
            *(
                of(A, median=9.0 - number, lower_quartile=0.1, upper_quartile=9.0, protocol={"round": number})
                for number in range(9)
            ),
        )
        with transaction(engine) as session:  # the newest is in the first chunk
            first = update(Measurement).where(Measurement.median == 9.0)
            session.execute(first.values(created_at=datetime(2040, 1, 1, tzinfo=UTC)))
        assert medians(find(engine, A)) == {A: 9.0}

    def test_ten_thousand_workloads_at_once(self, engine: Engine) -> None:
        add_device(engine, BEFORE)
        digests = [f"{number:064x}" for number in range(10_000)]
        store(engine, *(of(digest, median=1e-6 * (number + 1)) for number, digest in enumerate(digests)))
        found = find(engine, *digests, protocol={"batch": 1})
        assert medians(found) == {digest: 1e-6 * (number + 1) for number, digest in enumerate(digests)}


class TestRecord:
    def test_a_networks_operators_are_stored_once_however_often_they_are_measured(self, engine: Engine) -> None:
        spec = NetworkSpec(family=Family.MOBILENET_V1, width=0.25, input=(3, 32, 32))
        found = workloads(build_network(spec, 10, (0.5,) * 3, (0.5,) * 3))
        rows = [of(one.digest, workload=WorkloadKey(one.kind, one.digest, one.signature)) for one in found]
        for _ in range(2):
            store(engine, *rows)
        with reading(engine) as session:
            distinct = {one.digest: one.signature for one in found}
            assert {row.digest: row.signature for row in session.scalars(select(Workload))} == distinct
            assert session.scalar(select(func.count()).select_from(Measurement)) == 2 * len(found)
            (conditions,) = session.scalars(select(Conditions))
        assert (conditions.device, conditions.protocol) == ("local-cpu", {"batch": 1, "threads": 1})

    def test_a_signature_is_filled_in_where_only_a_digest_was_known(self, engine: Engine) -> None:
        bare, told = WorkloadKey(WorkloadKind.BLOCK, A, ""), WorkloadKey(WorkloadKind.OPERATOR, A, "{}")
        for key, stored in ((bare, ("block", "")), (told, ("operator", "{}")), (bare, ("operator", "{}"))):
            store(engine, of(A, workload=key))
            with reading(engine) as session:
                (found,) = session.scalars(select(Workload))
            assert (found.kind, found.signature) == stored

    def test_a_number_that_is_not_finite_is_not_stored(self, engine: Engine) -> None:
        with pytest.raises(Exception, match="not JSON compliant"):
            store(engine, of(A), of(B, samples=(float("nan"),)))
        with reading(engine) as session:
            assert session.scalar(select(func.count()).select_from(Measurement)) == 0
