"""Networks as ONNX files: what importing one costs, what is found in it, and whether it may be pruned and quantised.

    python -m benchmarks.imports [--prune N] [FILE ...]

Each file is imported in a process of its own, on one thread: `import_s` is the whole import with its proof, `memory`
the most that it takes besides, in sizes of the file. `space_ms` and `design_ms` are as in `catalog.py`. N random
designs are sliced and compared with masking, and N random choices of integer blocks looked up in what ONNX Runtime
executes. Rows are added to benchmarks/results/imports.json by name; without files a ResNet-50 of the catalog is
written and imported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.progress import track

from benchmarks.catalog import build, count_prunings, groups_of, make_space, milliseconds, show, time_designs
from search_spaces.importing import ImportSettings
from search_spaces.network import Network
from search_spaces.precision import parse_precision
from search_spaces.spec import Family
from workers.fold import fold_batch_norms
from workers.importing.faults import ImportRefusedError
from workers.importing.import_file import ImportedNetwork, import_file
from workers.onnx_quantize import calibrated_tensors
from workers.onnx_session import check_executed
from workers.onnx_writer import write_onnx
from workers.testing import random_weights

RESULTS = Path(__file__).parent / "results" / "imports.json"
PUBLISHED = {
    "alexnet": (714, 61.101),
    "convnext_tiny": (4456, 28.589),
    "densenet121": (2834, 7.979),
    "efficientnet_b0": (386, 5.289),
    "googlenet": (1498, 6.625),
    "inception_v3": (5713, 27.161),
    "mnasnet0_5": (104, 2.219),
    "mobilenet_v2": (301, 3.505),
    "mobilenet_v3_small": (57, 2.543),
    "regnet_y_400mf": (402, 4.344),
    "resnet18": (1814, 11.690),
    "resnet50": (4089, 25.557),
    "resnext50_32x4d": (4230, 25.029),
    "shufflenet_v2_x1_0": (145, 2.279),
    "squeezenet1_1": (349, 1.235),
    "vgg11_bn": (7609, 132.869),
}
"""Million MACs and parameters by torchvision 0.29's own metadata of its weights (Inception-V3's parameters are with its
auxiliary classifier). A file of torchvision's network X is called `tv-X-<exporter>.onnx`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--prune", type=int, default=5, metavar="N", help="random designs of each network (default 5)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(look_at(given.one, given.prune)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(path, given.prune) for path in track(given.files or [own_file(Path(folder))], "importing")]
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    names = {row["network"] for row in rows}
    kept = [row for row in before if row["network"] not in names] + rows
    RESULTS.write_text(json.dumps({"rows": sorted(kept, key=lambda row: row["network"])}, indent=2) + "\n")
    show([row for row in rows if "refused" not in row], "Imported networks")
    for row in rows:
        if "refused" in row:
            print(f"{row['network']}: {row['refused']}")


def own_file(folder: Path) -> Path:
    network = build(Family.RESNET_50)
    path = folder / "catalog-resnet50-own.onnx"
    path.write_bytes(write_onnx(*fold_batch_norms(network, random_weights(network))))
    return path


def measure(path: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.imports", "--one", str(path), "--prune", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"network": path.stem, "refused": done.stderr.strip().splitlines()[-1][:300]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def look_at(path: Path, count: int) -> dict[str, Any]:
    """In a fresh process, so that its memory is the import's."""
    warm_up()
    before = peak_bytes()
    began = perf_counter()
    try:
        imported = import_file(path, path.stem, ImportSettings())
    except ImportRefusedError as error:
        return row_of_refusal(path, error)
    import_s = perf_counter() - began
    memory = (peak_bytes() - before) / path.stat().st_size
    network, report = imported.network, imported.report
    published_macs, published_parameters = PUBLISHED.get(path.stem.removeprefix("tv-").rpartition("-")[0], (None, None))
    return {
        "network": path.stem,
        "source": f"{report['source']['producer']}, opset {report['source']['opset']}",
        "nodes": len(network.nodes),
        "groups": sum(not group.frozen and group.size > group.multiple_of for group in groups_of(network)),
        "fixed": len(report["fixed"]),
        "parity": f"{max(report['parity'][way] for way in ('in_onnx_runtime', 'in_torch')):.0e}",
        "macs_m": round(report["macs"] / 1e6, 1),
        "published_macs_m": published_macs,
        "parameters_m": round(report["parameters"] / 1e6, 3),
        "published_parameters_m": published_parameters,
        "import_s": round(import_s, 2),
        "memory": round(memory, 2),
        "space_ms": round(milliseconds(lambda _: make_space(network)), 1),
        "design_ms": round(time_designs(network), 2),
        "pruned_right": f"{count_prunings(network, count, lambda: None, imported.weights)} of {count}",
        "integers_right": f"{count_integers(imported, count)} of {count}",
    }


def row_of_refusal(path: Path, error: ImportRefusedError) -> dict[str, Any]:
    first = error.faults[0]
    return {"network": path.stem, "refused": f"{len(error.faults)} faults; {first.part}: {first.message}"}


def warm_up() -> None:
    """What every import needs once: libraries, thread pools."""
    network = build(Family.SHUFFLENET_V2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        path.write_bytes(write_onnx(*fold_batch_norms(network, random_weights(network))))
        import_file(path, "small", ImportSettings())


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_integers(imported: ImportedNetwork, count: int) -> int:
    """How many random choices of integer blocks are executed as declared, before the first that is not."""
    generator = np.random.default_rng(0)
    blocks = sorted({node.block for node in imported.network.compute_nodes()})
    for number in range(count):
        chosen = {block for block in blocks if generator.random() < 0.5}
        try:
            network, weights = fold_batch_norms(in_integers(imported.network, chosen), imported.weights)
            check_executed(
                network, write_onnx(network, weights, dict.fromkeys(calibrated_tensors(network), (0.0, 4.0)))
            )
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return number
    return count


def in_integers(network: Network, blocks: set[str]) -> Network:
    layers = {node.name for node in network.compute_nodes() if node.block in blocks}
    integers = parse_precision("w8a8")
    nodes = (replace(node, precision=integers) if node.name in layers else node for node in network.nodes)
    return replace(network, nodes=tuple(nodes))


if __name__ == "__main__":
    main()
