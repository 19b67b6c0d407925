"""Files to hand out: written, stored, read back, and checked against what was reported of their design.

What is told of an exported file is found out from its own stored bytes. Knows no rows and no searches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from search_spaces.apply import apply, design_key
from search_spaces.costs import WORD_BYTES, weight_words
from search_spaces.design import Design
from search_spaces.network import Network
from search_spaces.precision import Precision
from service.artifacts.store import open_path, put_bytes
from workers.appraise import Details, build, final_values, write_checked
from workers.candidate import Candidate, finish_candidate
from workers.host_lock import training
from workers.onnx_session import check_executed
from workers.progress import Progress
from workers.snippets import MEDIA_TYPES, write_snippets
from workers.splits import Split
from workers.stored_candidate import raw_weights_of, restored
from workers.weight_grids import fits_bits, is_on_grid
from workers.weights import check_weights
from workers.weights_file import load_weights
from workers.workbench import Workbench


class FileMismatchError(RuntimeError):
    """A stored file does not hold the network that it was written from."""


def export_file(
    bench: Workbench,
    design: Design,
    weights_digest: str | None,
    reported: Mapping[str, float],
    artifacts: Path,
    progress: Progress,
) -> dict[str, Any]:
    """See `workers.jobs.export`."""
    details: Details = {"stage_s": {}}
    progress("build", 0.0, "building the file")
    candidate = rebuild(bench, design, weights_digest, artifacts, details)
    model = write_checked(candidate, details, _metadata(bench, design, reported))
    digest = put_bytes(artifacts, model)
    filename = f"{_slug(bench.spec.name)}-{design_key(bench.base.network, design)[:8]}.onnx"
    progress("check", 0.0, "measuring the stored file")
    stored = open_path(artifacts, digest).read_bytes()
    check_executed(candidate.network, stored)
    remeasured = final_values(bench, design, candidate.network, stored, _split_reported(bench, weights_digest), details)
    remeasured |= recount(candidate.network, stored)
    return {
        "artifact_digest": digest,
        "filename": filename,
        "size_bytes": len(stored),
        "files": list(_put_snippets(bench, filename, artifacts)),
        "report": {
            "reported": dict(reported),
            "remeasured": remeasured,
            "differences": {name: remeasured[name] - reported[name] for name in reported if name in remeasured},
            "details": details,
        },
    }


def _put_snippets(bench: Workbench, filename: str, artifacts: Path) -> Iterator[dict[str, Any]]:
    """Programs that run the file, stored beside it."""
    snippets = write_snippets(filename, bench.base.network.input, bench.output_names, bench.dataset.task)
    for name, text in snippets.items():
        data = text.encode()
        media_type = MEDIA_TYPES[Path(name).suffix]
        yield {
            "digest": put_bytes(artifacts, data),
            "filename": name,
            "media_type": media_type,
            "size_bytes": len(data),
        }


def rebuild(
    bench: Workbench, design: Design, weights_digest: str | None, artifacts: Path, details: Details
) -> Candidate:
    """The candidate from a finalist's stored weights, else from the base as in its trial."""
    if weights_digest is None:
        return build(bench, design, details)[0]
    applied = apply(bench.base.network, design)
    arrays = load_weights(open_path(artifacts, weights_digest))
    weights = raw_weights_of(arrays)
    check_weights(applied, weights)
    with training():
        finished = finish_candidate(
            applied, weights, bench.observed, bench.quantising_of(design), details["stage_s"], bench.threads
        )
        return restored(finished, arrays)


def _split_reported(bench: Workbench, weights_digest: str | None) -> Split:
    """The images that the reported accuracy is of: finalists are scored on `confirm`, trials on `score`."""
    if weights_digest is None:
        return bench.splits.score.first(bench.spec.evaluation.most_score_images)
    return bench.splits.confirm


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


def recount(network: Network, model: bytes) -> dict[str, float]:
    """Parameters and payload of a file, from its own arrays.

    Raises:
        FileMismatchError: a layer is missing, or stored in other bits than `network` declares.
    """
    arrays = {array.name: array for array in onnx.ModelProto.FromString(model).graph.initializer}
    parameters, payload_bytes = 0, 0
    for layer in network.compute_nodes():
        weight = arrays.get(f"{layer.name}.weight")
        if weight is None:
            raise FileMismatchError(f"the file has no weights of {layer.name!r}")
        values = onnx.numpy_helper.to_array(weight)
        if not _is_in_bits(values, layer.precision):
            raise FileMismatchError(f"{layer.name!r} is stored as {_stored(values)}, declared {layer.precision}")
        parameters += values.size
        payload_bytes += -(-values.size * layer.precision.weight_bits // 8)
        bias = arrays.get(f"{layer.name}.bias")
        words = weight_words(layer.precision, len(values)) + (0 if bias is None else int(np.prod(bias.dims)))
        payload_bytes += words * WORD_BYTES
    return {"parameters": parameters, "size_bytes": payload_bytes}


def _is_in_bits(weight: np.ndarray, precision: Precision) -> bool:
    """Whether the stored values are of the declared grid: integers symmetric about zero, or floats."""
    if weight.dtype != np.int8:
        return weight.dtype == np.float32 and not precision.is_integer and is_on_grid(weight, precision)
    return precision.is_integer and fits_bits(weight, precision.weight_bits)


def _stored(weight: np.ndarray) -> str:
    return f"{weight.dtype} of {len(np.unique(weight)):,} values"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
