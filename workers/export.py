"""Files to hand out: written, stored, read back, and checked against what was reported of their design.

What is told of an exported file is found out from its own stored bytes, and any difference from what was reported
ends the export. Knows no rows and no searches.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces.apply import apply
from search_spaces.costs import symbolic_values
from search_spaces.design import Design
from search_spaces.design_keys import design_key
from search_spaces.objectives import MAP_METRICS, SYMBOLIC_METRICS
from search_spaces.precision import FLOAT_BITS
from service.artifacts.store import open_path, put_bytes
from workers.anchor import measure_base
from workers.appraise import Details, build, final_values, write_checked
from workers.candidate import Candidate, finish_candidate, timed
from workers.deployed_file import DeployedNetwork, pack_deployed
from workers.host_lock import training
from workers.origin import score_base
from workers.packed_weights import pack_weights
from workers.progress import Progress
from workers.recount import FileMismatchError
from workers.report import render_report
from workers.report.facts import Exported
from workers.snippets import MEDIA_TYPES, write_snippets
from workers.splits import Split
from workers.stored_candidate import REFINED, raw_weights_of, restored
from workers.verify import StoredFiles, verify
from workers.weights import check_weights
from workers.weights_file import load_weights, read_origin
from workers.workbench import Workbench

ONNX, SAFETENSORS, HTML = "application/onnx", "application/octet-stream", "text/html; charset=utf-8"


@dataclass(frozen=True)
class StoredFile:
    """A file of an export, as it lies among the artifacts."""

    digest: str
    filename: str
    media_type: str
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export_file(
    bench: Workbench,
    design: Design,
    weights_digest: str | None,
    reported: Mapping[str, float],
    artifacts: Path,
    progress: Progress,
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """See `workers.jobs.export`."""
    details: Details = {"stage_s": {}} | ({"rungs": found["rungs"]} if found.get("rungs") else {})
    progress("build", 0.0, "building the file")
    candidate = rebuild(bench, design, weights_digest, artifacts, details)
    metadata = _metadata(bench, design, reported)
    refined = None if weights_digest is None else _refined(open_path(artifacts, weights_digest))
    stem = _stem(bench, design, None if refined is None else weights_digest)
    deployed = _deployed(bench, design, candidate)
    model = _store(artifacts, f"{stem}.onnx", ONNX, write_checked(candidate, details, metadata))
    weights = _store(artifacts, f"{stem}.safetensors", SAFETENSORS, pack_deployed(deployed))
    packed = _store_packed(deployed, stem, artifacts)
    progress("check", 0.0, "checking the stored files")
    stored = StoredFiles(
        _read_stored(artifacts, model.digest, model.filename),
        open_path(artifacts, weights.digest),
        *(_read_stored(artifacts, file.digest, file.filename) for file in packed),
    )
    split = _split_reported(bench, weights_digest)
    with training(), timed(details["stage_s"], "verify"):
        details["checks"] = verify(deployed, stored, metadata, split, bench.threads)
    progress("measure", 0.0, "measuring the stored file")
    remeasured = final_values(bench, design, candidate.network, stored.model, split, details)
    _compare_reported(reported, remeasured, bench.scores)
    files = (model, weights, *packed, *_store_snippets(bench, model.filename, artifacts))
    exported = Exported(
        bench,
        design,
        candidate.network,
        weights_digest,
        _values_of_base(bench, split),
        reported,
        remeasured,
        details,
        split,
        files,
        refined,
        found,
    )
    report = _store(artifacts, f"{stem}.html", HTML, render_report(exported).encode())
    return _told(exported, model, (report, *files[1:]))


def _stem(bench: Workbench, design: Design, refined_digest: str | None) -> str:
    """How the files are called: after the search and the design, and the weights where these were refined."""
    refined = "" if refined_digest is None else f"-refined-{refined_digest[:4]}"
    return f"{_slug(bench.spec.name)}-{design_key(bench.base.network, design)[:8]}{refined}"


def _refined(path: Path) -> Mapping[str, float] | None:
    """What stored weights say of a training after their search; the JSON is our own."""
    told = read_origin(path).get(REFINED)
    settings: Mapping[str, float] | None = None if told is None else json.loads(told)
    return settings


def _told(exported: Exported, model: StoredFile, others: Sequence[StoredFile]) -> dict[str, Any]:
    """What the job returns."""
    reported, remeasured = exported.reported, exported.remeasured
    return {
        "artifact_digest": model.digest,
        "filename": model.filename,
        "size_bytes": model.size_bytes,
        "files": [file.to_json() for file in others],
        "report": {
            "reported": dict(reported),
            "remeasured": dict(remeasured),
            "differences": {name: remeasured[name] - reported[name] for name in reported if name in remeasured},
            "details": dict(exported.details),
        },
    }


def _store_snippets(bench: Workbench, filename: str, artifacts: Path) -> Iterator[StoredFile]:
    """Programs that run the file, stored beside it."""
    snippets = write_snippets(filename, bench.base.network.input, bench.output_names, bench.dataset.task)
    for name, text in snippets.items():
        yield _store(artifacts, name, MEDIA_TYPES[Path(name).suffix], text.encode())


def _store_packed(deployed: DeployedNetwork, stem: str, artifacts: Path) -> tuple[StoredFile, ...]:
    """The weights in the bits that they are declared in; nothing where all are floats."""
    if all(layer.precision.weight_bits == FLOAT_BITS for layer in deployed.network.compute_nodes()):
        return ()
    data = pack_weights(deployed.network, deployed.weights)
    return (_store(artifacts, f"{stem}.packed.safetensors", SAFETENSORS, data),)


def _store(artifacts: Path, filename: str, media_type: str, data: bytes) -> StoredFile:
    """Put a file among the artifacts, once it is known to lie there as it should."""
    digest = put_bytes(artifacts, data)
    _read_stored(artifacts, digest, filename)
    return StoredFile(digest, filename, media_type, len(data))


def _read_stored(artifacts: Path, digest: str, what: str) -> bytes:
    """The bytes that were stored under a digest. Storing them again does not mend a file that was damaged since."""
    data = open_path(artifacts, digest).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise FileMismatchError(
            f"the stored bytes of {what} are not those that were written: artifact {digest} is damaged"
        )
    return data


def rebuild(
    bench: Workbench, design: Design, weights_digest: str | None, artifacts: Path, details: Details
) -> Candidate:
    """The candidate from a finalist's stored weights, else from the base as in its trial."""
    if weights_digest is None:
        return build(bench, design, details)[0]
    applied = apply(bench.base.network, design)
    _read_stored(artifacts, weights_digest, "the finalist's weights")
    path = open_path(artifacts, weights_digest)
    _check_origin(read_origin(path), bench, design)
    arrays = load_weights(path)
    weights = raw_weights_of(arrays)
    check_weights(applied, weights)
    with training():
        finished = finish_candidate(
            applied, weights, bench.observed, bench.quantising_of(design), details["stage_s"], bench.threads
        )
        return restored(finished, arrays)


def _check_origin(origin: Mapping[str, str], bench: Workbench, design: Design) -> None:
    """Weights of another design can have the same shapes."""
    expected = {"base": bench.base.key, "design": design_key(bench.base.network, design)}
    if {name: origin.get(name) for name in expected} != expected:
        raise FileMismatchError("the finalist's stored weights are of another design, or of another base")


def _deployed(bench: Workbench, design: Design, candidate: Candidate) -> DeployedNetwork:
    origin = {
        "search": bench.spec.name,
        "base": bench.base.key,
        "network": design_key(bench.base.network, design),
        "dataset": bench.dataset.name,
    }
    return DeployedNetwork(candidate.network, design, candidate.weights, candidate.ranges, origin)


def _split_reported(bench: Workbench, weights_digest: str | None) -> Split:
    """The images that the reported accuracy is of: finalists are scored on `confirm`, trials on `score`."""
    if weights_digest is None:
        return bench.splits.score.first(bench.spec.evaluation.most_score_images)
    return bench.splits.confirm


def _values_of_base(bench: Workbench, split: Split) -> dict[str, float]:
    """The same figures of the base itself, scored on the same images; told once of each base, device and split."""
    measured = {} if bench.device is None else measure_base(bench.base, bench.device, bench.home)
    return {
        **symbolic_values(bench.base.network),
        **{metric: one["median"] for metric, one in measured.items()},
        **score_base(bench.base, split, bench.scores, bench.home, bench.threads).values,
    }


_ROUNDING = 1e-9
_OF_MAPS = 1e-3
"""Sums in another order move a value here and there to the next level."""


def _compare_reported(reported: Mapping[str, float], found: Mapping[str, float], scores: tuple[str, ...]) -> None:
    """What follows from the design must be equal, a score within the 95% interval that the file itself has.

    What a device measures is never the same twice; both figures are shown.
    """
    for metric in sorted(SYMBOLIC_METRICS & reported.keys() & found.keys()):
        if reported[metric] != found[metric]:
            told = f"{found[metric]:,.10g}, reported were {reported[metric]:,.10g}"
            raise FileMismatchError(f"the file has {metric} {told}")
    for metric in sorted(MAP_METRICS & reported.keys() & found.keys()):
        if not math.isclose(reported[metric], found[metric], rel_tol=_OF_MAPS):
            told = f"{found[metric]:,.6g}, reported were {reported[metric]:,.6g}"
            raise FileMismatchError(f"the maps of the file have {metric} {told}")
    for name in (score for score in scores if score in reported):
        low, high = found[f"{name}_low"] - _ROUNDING, found[f"{name}_high"] + _ROUNDING
        if not (low <= reported[name] <= high or reported[name] == found[name]):
            raise FileMismatchError(
                f"the file has {name} {found[name]:.4f} ({low:.4f} to {high:.4f}), reported were {reported[name]:.4f}"
            )


def _metadata(bench: Workbench, design: Design, reported: Mapping[str, float]) -> dict[str, str]:
    return {
        "espalier.search": bench.spec.name,
        "espalier.base": bench.base.key,
        "espalier.network": design_key(bench.base.network, design),
        "espalier.design": json.dumps(design.to_json()),
        "espalier.reported": json.dumps(dict(reported)),
        "espalier.task": str(bench.dataset.task),
        "espalier.classes": json.dumps(bench.output_names),
    }


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
