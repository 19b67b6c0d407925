"""From an upload to a network, its weights and a report: the whole import, without a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from search_spaces.apply import structure_of
from search_spaces.catalog import build_network
from search_spaces.costs import macs, parameters
from search_spaces.importing import ImportSettings
from search_spaces.network import Network, Op, contract_to_json, infer_shapes
from workers.importing.faults import ImportFault, ImportRefusedError, refuse
from workers.importing.memory import return_freed_memory
from workers.importing.onnx_import import describe_kept, draft_network
from workers.importing.parity import check_parity, random_images, run_source
from workers.importing.reading import read_onnx
from workers.importing.upload import Upload, UploadKind, open_upload
from workers.norms import add_norms
from workers.progress import Progress, ignore_progress
from workers.weights import Weights, WeightsError, check_weights, weight_shapes

MOST_SHOWN = 20


@dataclass(frozen=True)
class ImportedNetwork:
    """A network with weights, and JSON-safe evidence of where it comes from and what can be searched of it."""

    network: Network
    weights: Weights
    report: dict[str, Any]


def import_file(
    path: Path, name: str, settings: ImportSettings, progress: Progress = ignore_progress
) -> ImportedNetwork:
    """Import the file that a user handed over. It takes about three times its size of memory, and what images take.

    Raises:
        ImportRefusedError: with every reason that was found.
    """
    with open_upload(path) as upload:
        make: Callable[[Upload, str, ImportSettings, Progress], ImportedNetwork] = {
            UploadKind.ONNX: _import_onnx,
            UploadKind.WEIGHTS: _import_weights,
        }[upload.kind]
        imported = make(upload, name, settings, progress)
    origin = {"format": str(upload.kind), "bytes": path.stat().st_size}
    facts = {**_describe(imported.network, settings), **imported.report}
    return ImportedNetwork(imported.network, imported.weights, facts | {"source": origin | imported.report["source"]})


def _import_onnx(upload: Upload, name: str, settings: ImportSettings, progress: Progress) -> ImportedNetwork:
    if settings.family is not None:
        raise refuse("an ONNX file brings its own architecture; leave `family` out", "/family")
    progress("import", 0.0, "reading the file")
    source = read_onnx(upload.path.read_bytes(), upload.external, settings.input)
    height, width, last = source.input_shape
    shape = (last, height, width) if source.is_channels_last else source.input_shape
    try:
        contract = settings.contract(shape)
    except ValueError as error:
        raise refuse(str(error), "input") from None
    progress("import", 0.2, "reading the graph")
    drafted = draft_network(source, name, contract)
    network, weights, added_norms = add_norms(drafted.network, drafted.weights)
    imported = replace(drafted, network=network, weights=weights)
    # Only now: what a file would do to memory has been looked at.
    progress("import", 0.4, "running the file on random images")
    images = random_images(contract)
    expected = run_source(source, upload.path, images)
    return_freed_memory()
    progress("import", 0.7, "comparing the network with the file")
    parity = check_parity(imported, images, expected)
    notes = [*_contract_notes(settings, shape), *imported.notes]
    if added_norms:
        notes.append(
            f"{len(added_norms)} batch norms, as were folded away in the file, are put back behind convolutions: what "
            "they say is found out from your images before a search, so that designs can be fine-tuned"
        )
    if imported.left_out:
        notes.append(f"the {imported.left_out} at the end is left out: exported files give the values before it")
    return ImportedNetwork(
        imported.network,
        imported.weights,
        {
            "source": {"producer": source.producer, "opset": source.opset},
            "parity": parity.to_json(),
            "added_norms": list(added_norms),
            "left_out": imported.left_out,
            "fixed": [{"node": node, "reason": reason} for node, reason in describe_kept(imported)],
            "notes": notes,
        },
    )


def _import_weights(upload: Upload, name: str, settings: ImportSettings, progress: Progress) -> ImportedNetwork:
    """Weights of a catalog network, by the names that Espalier gives them."""
    if settings.family is None:
        raise refuse("a safetensors file holds weights alone; say which network of the catalog they are of", "/family")
    progress("import", 0.2, "reading the weights")
    try:
        weights = {key: np.asarray(array, np.float32) for key, array in load(upload.path.read_bytes()).items()}
    except (SafetensorError, TypeError, ValueError) as error:
        raise refuse(f"this is no whole safetensors file: {error}") from None
    spec = settings.network_spec()
    try:
        contract = settings.contract(spec.input)
        classes = _count_classes(weights)
        network = build_network(spec, classes, contract.mean, contract.std)
    except ValueError as error:
        raise refuse(str(error)) from None
    _check_fit(network, weights)
    notes = list(_contract_notes(settings, spec.input))
    facts = {
        "source": {"producer": str(settings.family)},
        "parity": None,
        "added_norms": [],
        "left_out": "",
        "fixed": [],
        "notes": notes,
    }
    return ImportedNetwork(Network(name, contract, network.nodes, network.output), weights, facts)


def _count_classes(weights: Weights) -> int:
    """Rows of the last linear layer, which every catalog network calls its classifier."""
    classifier = weights.get("classifier.weight")
    if classifier is None or classifier.ndim != 2:
        raise ValueError("there is no `classifier.weight` of two axes, which every network of the catalog ends with")
    return len(classifier)


def _check_fit(network: Network, weights: Weights) -> None:
    """Name every array that is missing, too much or of another shape."""
    expected = weight_shapes(network)
    faults = [ImportFault(key, "is missing") for key in expected if key not in weights]
    faults += [ImportFault(key, "is no array of this network; leave it out") for key in weights if key not in expected]
    for key in expected.keys() & weights.keys():
        if weights[key].shape != expected[key]:
            faults.append(ImportFault(key, f"has the shape {list(weights[key].shape)}, not {list(expected[key])}"))
    if faults:
        raise ImportRefusedError(faults)
    try:
        check_weights(network, weights)
    except WeightsError as error:
        raise refuse(str(error)) from None
    if any(not np.isfinite(array).all() for array in weights.values()):
        raise refuse("some weights are not finite")


def _contract_notes(settings: ImportSettings, shape: tuple[int, int, int]) -> list[str]:
    if settings.mean is not None and settings.std is not None:
        return []
    usual = "that of ImageNet" if shape[0] == 3 else "mean 0.5 and standard deviation 0.5"
    return [f"no normalisation was given: {usual} is taken; where training used another, say so with mean and std"]


def _describe(network: Network, settings: ImportSettings) -> dict[str, Any]:
    """What can be searched, and what it amounts to."""
    coupling = structure_of(network).coupling
    outputs = infer_shapes(network)[network.output][0]
    fitting = {outputs} | ({2} if outputs == 1 else set())  # one output may tell two classes apart
    if settings.class_names and len(settings.class_names) not in fitting:
        raise refuse(f"{len(settings.class_names)} class names do not fit {outputs} outputs", "/class_names")
    return {
        "nodes": len(network.nodes),
        "layers": len(network.compute_nodes()),
        "macs": macs(network),
        "parameters": parameters(network),
        "outputs": outputs,
        "class_names": list(settings.class_names),
        "input": contract_to_json(network.input),
        "norms": sum(node.op is Op.BATCH_NORM for node in network.nodes),
        "blocks": len({node.block for node in network.compute_nodes()}),
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "producers": list(group.producers[:MOST_SHOWN]),
                "multiple_of": group.multiple_of,
                "frozen": group.frozen,
            }
            for group in coupling.groups
        ],
    }
