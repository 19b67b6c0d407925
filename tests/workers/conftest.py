from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine

from service import queue
from tests.workers.invented import Invented
from tests.workers.on_digits import DigitsHome, make_digits_home
from tests.workers.stage import Stage, make_stage


@pytest.fixture
def stage(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A workplace on each kind of database, whose messages the test delivers."""
    stage = make_stage(engine, tmp_path)
    monkeypatch.setattr(queue, "send", lambda task, row_id, queue: stage.messages.append((task, row_id)))
    return stage


@pytest.fixture
def invented(stage: Stage) -> Invented:
    """What the stage's evaluator answers from here on."""
    result = Invented()
    with stage.workplace.evaluators.borrow() as evaluator:
        evaluator.result = result
    return result


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: the same sums in the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> DigitsHome:
    """A base that is trained once, for all tests that only read it."""
    before = torch.get_num_threads()
    home = make_digits_home(tmp_path_factory.mktemp("digits"))
    torch.set_num_threads(before)
    return home
