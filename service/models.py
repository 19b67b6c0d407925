"""The tables. The database is the truth, the broker a hint: whatever must survive is a row here.

JSON columns hold only what is never searched or sorted by: spec, design, values, evidence.
Schema changes go through `alembic/versions`; nothing calls `create_all`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from search_spaces.accelerators.models import is_everywhere
from search_spaces.capabilities import DeviceCapabilities
from service.states import Obtained, SearchState

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StateText(TypeDecorator[SearchState]):
    """A search's state, stored as its word: a new one needs no change of the schema."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: SearchState | None, dialect: Any) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Any) -> SearchState | None:
        return None if value is None else SearchState(value)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Row(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        SearchState: StateText(),
    }


class Claimable:
    """Columns of a row that a worker claims under a lease. See `service.leases` for the rules.

    Attributes:
        attempt: how often it was claimed; results of an older attempt are refused.
        lease_owner, lease_expires_at: who works on it, until when; None when nobody does.
        published_at: when a message for it was last sent; the reaper sends another when that seems lost.
            None means that no message was wanted yet, as for a baseline trial that waits for a free slot.
    """

    if TYPE_CHECKING:
        id: Mapped[Any]

    state: Mapped[str] = mapped_column(String(20), default="queued", index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class SearchWork(Claimable):
    """A claimable row that belongs to a search, whose row is locked first whenever this one changes."""

    if TYPE_CHECKING:
        search_id: Mapped[str]


class Search(Row):
    """One run of a spec.

    Its row is also the lock of everything that happens in it: whoever changes several of a search's rows locks
    this one first (`service.searches.queries.lock_search`), so that events and finish numbers are counted in the order
    of the commits, and no two transactions wait for each other.

    Attributes:
        version: counts changes; makes the ETag.
        budgets: the spec's budget limits and what they come to; see `search_spaces.budgets.Budget`.
        sampler: the one that it has, and why where it was chosen; see `search_spaces.choose_sampler`.
        sources: what the spec's names stood for when it was accepted; see `search_spaces.known.Sources`.
        resume_to: the state that a paused search goes back to.
        activity: the last progress report, {stage, share, message}; None when nothing has been said yet.
        waiting_for: for people, why a search does not go on: no live worker has its device, or none is free.
        end_reason, end_message: why no more trials are asked for, see `service.states.EndReason`, and the same for
            people; None and empty while there may be more.
        evaluator_s: seconds that evaluators have worked on its trials, all together.
        event_count, finished_count: the last `Event.seq` and the last `Trial.finish_number` given out.
        planner, planner_expires_at: who plans, until when. See `service.leases.claim_planning`.
        is_plan_wanted: somebody wanted to plan while another did; that one plans once more.
        extensions: what was added to the budget once the search was over, {at, key, body_digest, trials, wall_time_s}.
        extended_at: when that was last; the wall time counts from then.
    """

    __tablename__ = "searches"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    state: Mapped[SearchState] = mapped_column(default=SearchState.QUEUED, index=True)
    resume_to: Mapped[SearchState | None]
    spec: Mapped[dict[str, Any]]
    sources: Mapped[dict[str, Any]] = mapped_column(default=dict)
    budgets: Mapped[list[Any]] = mapped_column(default=list)
    sampler: Mapped[dict[str, Any]] = mapped_column(default=dict)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    body_digest: Mapped[str] = mapped_column(String(64))
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    problem: Mapped[dict[str, Any] | None]
    activity: Mapped[dict[str, Any] | None]
    base_key: Mapped[str | None] = mapped_column(String(64))
    base_report: Mapped[dict[str, Any] | None]
    waiting_for: Mapped[str] = mapped_column(Text, default="")
    end_reason: Mapped[str | None] = mapped_column(String(20))
    end_message: Mapped[str] = mapped_column(Text, default="")
    evaluator_s: Mapped[float] = mapped_column(default=0.0)
    version: Mapped[int] = mapped_column(default=1)
    event_count: Mapped[int] = mapped_column(default=0)
    finished_count: Mapped[int] = mapped_column(default=0)
    planner: Mapped[str | None] = mapped_column(String(200))
    planner_expires_at: Mapped[datetime | None]
    is_plan_wanted: Mapped[bool] = mapped_column(default=False)
    extensions: Mapped[list[Any]] = mapped_column(default=list)
    extended_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_searches_created_at_id", "created_at", "id"),)


class Preparation(SearchWork, Row):
    """The job of getting a search's base ready: one row per search."""

    __tablename__ = "preparations"

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), unique=True)


class Trial(SearchWork, Row):
    """One design being tried in a search.

    Attributes:
        sources: where each value that a device tells comes from, by metric; see `search_spaces.objectives.Provenance`.
        certificate: what the design takes of the limits that need no work; see `search_spaces.budgets.Certificate`.
        finish_number: orders finished trials for the sampler.
        outcome_key: equal for trials that must find the same, see `search_spaces.outcome_keys`; None where that cannot
            be told, and of what older versions tried.
        obtained: see `service.states.Obtained`.
        origin: of a reused or inherited outcome the trial that was evaluated, {search, trial, name}.
        rung: the step that a stopped trial has reached, from 1; None for others.
        expected: what the objectives of a stopped trial would probably have come to; None for others.
        evaluator_s: seconds that evaluators have worked on it, in all attempts whose worker lived on.
    """

    __tablename__ = "trials"

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"))
    number: Mapped[int]
    baseline: Mapped[bool] = mapped_column(default=False)
    design: Mapped[dict[str, Any]]
    design_key: Mapped[str] = mapped_column(String(64))
    memo: Mapped[dict[str, Any]] = mapped_column(default=dict)
    certificate: Mapped[list[Any]] = mapped_column(default=list)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sources: Mapped[dict[str, Any]] = mapped_column(default=dict)
    finish_number: Mapped[int | None]
    outcome_key: Mapped[str | None] = mapped_column(String(64), index=True)
    obtained: Mapped[str] = mapped_column(String(20), default=str(Obtained.EVALUATED))
    origin: Mapped[dict[str, Any] | None]
    rung: Mapped[int | None]
    expected: Mapped[dict[str, Any] | None]
    evaluator_s: Mapped[float] = mapped_column(default=0.0)

    __table_args__ = (
        UniqueConstraint("search_id", "number"),
        UniqueConstraint("search_id", "design_key"),
        Index("ix_trials_search_id_finish_number", "search_id", "finish_number"),
        # With all that is counted at each step of a search, so that counting thousands reads no row.
        Index("ix_trials_search_id_state", "search_id", "state", "baseline", "obtained", "published_at"),
    )


class Rung(Row):
    """What a trial was worth at one step before its full evaluation: what later trials are ranked among there.

    A table of its own, so that those of thousands of trials are read without the trials.

    Attributes:
        number: of the step, from 1.
        values: of the objectives.
    """

    __tablename__ = "rungs"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), index=True)
    values: Mapped[dict[str, Any]]


class Finalist(SearchWork, Row):
    """A trial that is fine-tuned and scored again on `confirm`. `weights_digest` names its artifact."""

    __tablename__ = "finalists"

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), index=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"), unique=True)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sources: Mapped[dict[str, Any]] = mapped_column(default=dict)
    weights_digest: Mapped[str | None] = mapped_column(String(64))


class Export(SearchWork, Row):
    """A request for one trial's file.

    Attributes:
        report: reported against re-measured figures.
        files: digests of the artifacts that come with it: report, weights, and programs that run it.
    """

    __tablename__ = "exports"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), index=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    artifact_digest: Mapped[str | None] = mapped_column(ForeignKey("artifacts.digest"))
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    files: Mapped[list[Any]] = mapped_column(default=list)


class Refinement(SearchWork, Row):
    """A request to train a trial's design on for long, once the search is over.

    Attributes:
        settings: how, see `service.refinements.schemas`.
        activity: the last progress report while it is trained, {stage, share, message}.
        before, values: on `confirm`, of the weights that it began with, and of those that it ended with.
        weights_digest: names the artifact of the latter.
    """

    __tablename__ = "refinements"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), index=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"), index=True)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    activity: Mapped[dict[str, Any] | None]
    before: Mapped[dict[str, Any]] = mapped_column(default=dict)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sources: Mapped[dict[str, Any]] = mapped_column(default=dict)
    weights_digest: Mapped[str | None] = mapped_column(String(64))


class ImportedNetwork(Claimable, Row):
    """A network that a user has handed over, and what has become of it. Its name is for ever, unless it fails.

    Attributes:
        upload_digest: of the file as it was handed over, under ESPALIER_HOME/uploads.
        settings: the user's, see `search_spaces.importing`.
        activity: the last progress report while it is imported, {stage, share, message}.
        base_key: of the base that holds its weights; None until it is imported.
        network: as JSON, so that specs can be checked without files.
        report: what was found in it.
        problem: why it could not be imported.
    """

    __tablename__ = "networks"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    filename: Mapped[str] = mapped_column(String(200))
    upload_digest: Mapped[str] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    activity: Mapped[dict[str, Any] | None]
    base_key: Mapped[str | None] = mapped_column(String(64))
    network: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    problem: Mapped[dict[str, Any] | None]


class OwnDataset(Claimable, Row):
    """One version of a data set that a user has handed over. Adding images makes another version of the same name.

    Attributes:
        version: from 1; a search keeps the one that was the newest when it was submitted.
        upload_digest: of the archive that was handed over for this version.
        parent_id: the version that it adds to.
        digest: of the indexed images, labels and splits; None until it is indexed.
        info: see `search_spaces.datasets.DatasetInfo`.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    filename: Mapped[str] = mapped_column(String(200))
    upload_digest: Mapped[str] = mapped_column(String(64))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    activity: Mapped[dict[str, Any] | None]
    digest: Mapped[str | None] = mapped_column(String(64))
    info: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)
    problem: Mapped[dict[str, Any] | None]

    __table_args__ = (UniqueConstraint("name", "version"),)


class Offer(Row):
    """Something that a spec may name because workers have it installed; see `service.known`. They repeat it."""

    __tablename__ = "offers"

    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)


class Artifact(Row):
    """A file handed out, named by the SHA-256 of its bytes; the bytes lie under ESPALIER_HOME/artifacts."""

    __tablename__ = "artifacts"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    filename: Mapped[str] = mapped_column(String(200))
    media_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Device(Row):
    """A device as its worker announced it.

    Attributes:
        kind: what it is by the name that all machines give it; other than `name` where the operator has named it.
        host: the machine that has it; empty for a simulated one, which several may have.
        owner: the process that announced it last, as in leases; None once that has ended in peace.
        fingerprint_digest: of the fingerprint in its capabilities, see `service.measurements.conditions`. Figures that
            were taken under another are stale.
        seen_at: the last sign of life; see `service.devices.queries.is_live`.
    """

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(100), default="")
    host: Mapped[str] = mapped_column(String(200), default="")
    owner: Mapped[str | None] = mapped_column(String(200))
    capabilities: Mapped[dict[str, Any]]
    fingerprint_digest: Mapped[str] = mapped_column(String(64))
    announced_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def is_simulated(self) -> bool:
        return bool(self.capabilities.get("simulated", False))

    @property
    def is_everywhere(self) -> bool:
        return is_everywhere(DeviceCapabilities.model_validate(self.capabilities))


class Workload(Row):
    """What was measured: see `search_spaces.costs.Workload`. Written once; but see `signature`.

    Attributes:
        signature: empty where only the digest is known, and filled in, with the kind, once somebody tells it.
    """

    __tablename__ = "workloads"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(20))
    signature: Mapped[str] = mapped_column(Text)


class Conditions(Row):
    """What figures must share to be compared: the device, how it was set up, how it was measured. Never changed.

    Attributes:
        digest: of all three, see `service.measurements.conditions`.
        device: a name; of a table that was imported no worker need ever have announced it.
    """

    __tablename__ = "conditions"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    device: Mapped[str] = mapped_column(String(100), index=True)
    fingerprint_digest: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[dict[str, Any]]
    protocol: Mapped[dict[str, Any]]


class MeasurementImport(Row):
    """A table of figures that somebody has handed over.

    Attributes:
        digest: of the file and all that was said of it: the same again is the same import.
        report: what it brought, in counts.
    """

    __tablename__ = "measurement_imports"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    filename: Mapped[str] = mapped_column(String(200))
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Measurement(Row):
    """Statistics of one metric of one workload under some conditions. At most one of each metric for a trial.

    What it points to is written before it and never removed, so that workloads, conditions and imports need no foreign
    keys: to check those of a million rows takes PostgreSQL as long as all else of their import.

    Attributes:
        workload_id, conditions_id, import_id: of `Workload`, `Conditions` and `MeasurementImport`.
        median, lower_quartile, upper_quartile: in the metric's own unit.
        count: how many values the statistics are of.
        samples: some of them, in the order taken; none where nobody kept any.
        anchor_ratio: median of candidate / anchor; None when there was no anchor.
        provenance: see `search_spaces.objectives.Provenance`.
        origin: of an imported row, what it was where it comes from, as far as that was said.
        created_at: when it was taken; of an imported row that does not say, when it was imported.
    """

    __tablename__ = "measurements"

    id: Mapped[int] = mapped_column(primary_key=True)
    workload_id: Mapped[int]
    conditions_id: Mapped[int]
    metric: Mapped[str] = mapped_column(String(40))
    median: Mapped[float]
    lower_quartile: Mapped[float]
    upper_quartile: Mapped[float]
    count: Mapped[int]
    samples: Mapped[list[Any]]
    anchor_ratio: Mapped[float | None]
    provenance: Mapped[str] = mapped_column(String(20))
    origin: Mapped[str | None] = mapped_column(String(20))
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trials.id"))
    import_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        UniqueConstraint("trial_id", "metric"),
        # What a network's operators take, among a million rows, is found by these numbers alone.
        Index("ix_measurements_workload_id_conditions_id", "workload_id", "conditions_id"),
        Index("ix_measurements_conditions_id_id", "conditions_id", "id"),
    )


class CostModel(Row):
    """One version of a cost model: what a metric is expected to be under some conditions. Never changed.

    Attributes:
        content: see `search_spaces.cost_models.additive.model_to_bytes`.
        samples: networks that it was fitted to.
        report: its error on networks that it was not fitted to, see `service.cost_models.actions`.
    """

    __tablename__ = "cost_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    conditions_id: Mapped[int] = mapped_column(ForeignKey("conditions.id"))
    metric: Mapped[str] = mapped_column(String(40))
    version: Mapped[int]
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    samples: Mapped[int]
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (UniqueConstraint("conditions_id", "metric", "version"),)


class Residual(Row):
    """What a cost model said of a trial that was measured all the same. At most one of each metric for a trial.

    Attributes:
        predicted, low, high: value and interval, in the metric's own unit.
        measured: likewise.
        reason: why it was measured, see `workers.foresight`.
    """

    __tablename__ = "residuals"

    id: Mapped[int] = mapped_column(primary_key=True)
    cost_model_id: Mapped[int] = mapped_column(ForeignKey("cost_models.id"), index=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    metric: Mapped[str] = mapped_column(String(40))
    predicted: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    measured: Mapped[float]
    reason: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (UniqueConstraint("trial_id", "metric"),)


class Event(Row):
    """What happened, in order. Append-only; `seq` counts within a search and is what clients resume from."""

    __tablename__ = "events"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
