from pathlib import Path

import pytest
from sqlalchemy import Engine

from service import queue
from tests.workers.stage import Stage, make_stage


@pytest.fixture
def stage(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A workplace on each kind of database, whose messages the test delivers."""
    stage = make_stage(engine, tmp_path)
    monkeypatch.setattr(queue, "send", lambda task, row_id: stage.messages.append((task, row_id)))
    return stage
