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
from search_spaces.design import Design, Kind
from search_spaces.methods import method_of
from search_spaces.network import Network
from search_spaces.spec import Calibration
from service.artifacts.store import open_path, put_bytes
from workers.appraise import Details, build, final_values, write_checked
from workers.candidate import Candidate, finish_candidate
from workers.host_lock import training
from workers.onnx_session import check_executed
from workers.progress import Progress
from workers.snippets import MEDIA_TYPES, write_snippets
from workers.splits import Split
from workers.weights import check_weights
from workers.weights_file import load_weights
from workers.workbench import Workbench

_BYTES_PER_CONSTANT = 4
"""Of a bias (fp32 or int32) and of a scale."""


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
    candidate = _rebuild(bench, design, weights_digest, artifacts, details)
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


def _rebuild(
    bench: Workbench, design: Design, weights_digest: str | None, artifacts: Path, details: Details
) -> Candidate:
    """The candidate from a finalist's stored weights, else from the base as in its trial."""
    if weights_digest is None:
        return build(bench, design, details)[0]
    applied = apply(bench.base.network, design)
    weights = load_weights(open_path(artifacts, weights_digest))
    check_weights(applied, weights)
    with training():
        calibration = Calibration(method_of(design, Kind.CALIBRATION, bench.spec))
        return finish_candidate(applied, weights, bench.observed, calibration, details["stage_s"], bench.threads)


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
    parameters, payload_bits = 0, 0
    for layer in network.compute_nodes():
        weight = arrays.get(f"{layer.name}.weight")
        if weight is None:
            raise FileMismatchError(f"the file has no weights of {layer.name!r}")
        bits = _stored_bits(onnx.numpy_helper.to_array(weight))
        if bits > layer.precision.weight_bits:
            raise FileMismatchError(f"{layer.name!r} is stored in {bits} bits, declared {layer.precision}")
        count = int(np.prod(weight.dims))
        parameters += count
        payload_bits += count * layer.precision.weight_bits
        constants = [arrays[name] for part in ("bias", "weight/scale") if (name := f"{layer.name}.{part}") in arrays]
        payload_bits += sum(8 * _BYTES_PER_CONSTANT * int(np.prod(array.dims)) for array in constants)
    return {"parameters": parameters, "size_bytes": payload_bits // 8}


def _stored_bits(weight: np.ndarray) -> int:
    """Bits that the values need: low bits lie in 8-bit containers, symmetric about zero."""
    if weight.dtype != np.int8:
        return 8 * weight.dtype.itemsize
    return int(np.abs(weight.astype(int)).max()).bit_length() + 1


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
