"""The evaluator: a warm process that does one job after the other, so that a fault costs one job and no worker.

`python -m workers.evaluator` reads one JSON object a line from its standard input and answers with lines on its
standard output: any number of progress lines, then one result or one error for each request.

It must not know of the database or of Celery. What a job does is in `workers.jobs`; who starts this process and kills
it is in `workers.evaluator_process`.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from search_spaces.design import design_from_json
from search_spaces.foresight import foresight_from_json
from search_spaces.importing import ImportSettings
from search_spaces.known import Sources
from search_spaces.objectives import Outcome
from search_spaces.rungs import standing_from_json
from search_spaces.spec import SearchSpec
from service.lifeline import die_with_parent
from workers.progress import Progress

_log = logging.getLogger(__name__)

Job = Callable[[dict[str, Any], Path, Progress], Mapping[str, Any]]
"""(arguments, home, progress) -> a JSON-safe result."""


class JobName(StrEnum):
    PREPARE = "prepare"
    EVALUATE = "evaluate"
    CONFIRM = "confirm"
    EXPORT = "export"
    REFINE = "refine"
    IMPORT = "import"
    INDEX = "index"


class FaultKind(StrEnum):
    """Why a job has no result."""

    OUT_OF_MEMORY = "out_of_memory"
    NOT_FINITE = "not_finite"  # NaN or infinity where a number was due
    PRECISION_MISMATCH = "precision_mismatch"  # the runtime does not execute the declared precisions
    CRASHED = "crashed"  # the job raised
    DIED = "died"  # the process ended without an answer
    TIMED_OUT = "timed_out"


def main() -> None:
    die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s evaluator %(levelname)s %(message)s")
    requests, answers = take_standard_streams()
    serve(requests, answers, load_jobs())


def take_standard_streams() -> tuple[TextIO, TextIO]:
    """The streams of the protocol, moved out of the way: what a library prints goes to standard error."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def load_jobs() -> dict[JobName, Job]:
    """The real jobs. Imported late: torch and ONNX Runtime take seconds, and only this process wants them."""
    import workers.bringing as bringing
    import workers.jobs as jobs

    def prepare(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        return jobs.prepare(*_search(arguments), home, progress)

    def evaluate(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        design = design_from_json(arguments["design"])
        told = arguments.get("foresight")
        foresight = None if told is None else foresight_from_json(told)
        standing = standing_from_json(arguments.get("standing"))
        searched = (*_search(arguments), design, arguments["base_key"])
        return _told(jobs.evaluate(*searched, home, progress, foresight, standing))

    def confirm(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        design = design_from_json(arguments["design"])
        return jobs.confirm(*_search(arguments), design, arguments["base_key"], home, progress)

    def export(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        design = design_from_json(arguments["design"])
        return jobs.export(
            *_search(arguments),
            design,
            arguments["base_key"],
            arguments["weights_digest"],
            arguments["reported"],
            home,
            progress,
            arguments["found"],
        )

    def refine(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        design, settings = design_from_json(arguments["design"]), arguments["settings"]
        weights_digest = arguments["weights_digest"]
        searched = (*_search(arguments), design, arguments["base_key"], weights_digest)
        return jobs.refine(*searched, settings["epochs"], settings["learning_rate"], home, progress)

    def import_network(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        settings = ImportSettings.model_validate(arguments["settings"])
        return bringing.import_network(arguments["upload_digest"], arguments["name"], settings, home, progress)

    def index_dataset(arguments: dict[str, Any], home: Path, progress: Progress) -> Mapping[str, Any]:
        parent = arguments["parent_digest"]
        return bringing.index_dataset(arguments["archives"], arguments["name"], parent, home, progress)

    return {
        JobName.PREPARE: prepare,
        JobName.EVALUATE: evaluate,
        JobName.CONFIRM: confirm,
        JobName.EXPORT: export,
        JobName.REFINE: refine,
        JobName.IMPORT: import_network,
        JobName.INDEX: index_dataset,
    }


def serve(requests: Iterable[str], answers: TextIO, jobs: Mapping[JobName, Job]) -> None:
    """Answer requests in order until there are no more."""
    for line in requests:
        request = json.loads(line)

        def answer(content: dict[str, Any], identity: int = request["id"]) -> None:
            text = json.dumps({"id": identity} | content, allow_nan=False, default=_as_plain_number)
            answers.write(text + "\n")
            answers.flush()

        try:
            answer({"result": _do(request, jobs, answer)})
        except Exception as error:
            _log.warning("job %s failed", request["job"], exc_info=True)
            answer({"error": {"kind": classify(error), "reason": _one_line(error)}})


def _do(request: dict[str, Any], jobs: Mapping[JobName, Job], answer: Callable[[dict[str, Any]], None]) -> Any:
    def progress(stage: str, done: float, message: str) -> None:
        answer({"progress": [stage, done, message]})

    result = jobs[JobName(request["job"])](request["arguments"], Path(request["home"]), progress)
    odd = _first_not_finite(result)
    if odd:
        raise FloatingPointError(f"the result has a number that is not finite: {odd}")
    return result


def classify(error: Exception) -> FaultKind:
    """What kind of fault an exception is. Names are compared where importing the class would cost seconds."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    if names & {"MemoryError", "OutOfMemoryError"} or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "bad_alloc" in text)
    ):
        return FaultKind.OUT_OF_MEMORY
    if isinstance(error, FloatingPointError):
        return FaultKind.NOT_FINITE
    if "PrecisionMismatch" in names:
        return FaultKind.PRECISION_MISMATCH
    return FaultKind.CRASHED


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:500]


def _first_not_finite(value: Any, path: str = "") -> str:
    """Where the first NaN or infinity is, as a dotted path with its value; empty when all is well."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}"
    if isinstance(value, Mapping):
        inner = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        return ""
    return next((found for where, item in inner if (found := _first_not_finite(item, where))), "")


def _as_plain_number(value: Any) -> Any:
    """Let numbers of numpy through; anything else is a mistake in a job."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _told(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    return {
        "state": str(outcome.state),
        "values": dict(outcome.values),
        "reason": outcome.reason,
        "details": dict(outcome.details),
        "sources": dict(outcome.sources),
        "rungs": [dict(values) for values in outcome.rungs],
        "expected": dict(outcome.expected),
    }


def _search(arguments: dict[str, Any]) -> tuple[SearchSpec, Sources]:
    """A search's spec, and what its names stand for."""
    return SearchSpec.model_validate(arguments["spec"]), Sources.model_validate(arguments["sources"])


if __name__ == "__main__":
    main()
