"""How fast activation maps are coded and decoded on one core, and what they take: maps drawn at random, and real ones.

Megabytes are of the values that go in or come out, uint8 up to 8 bits and uint16 above. Times are of the process on its
core, the least of several runs, after compiling; `cold` is what the first stream of a process takes, compiling
included. Random maps have a stated share of non-zero values, exponentially distributed. Real ones are of a MobileNet-V1
of width 0.25, which is trained first, in codes that are fitted to calibration images. `bits` is of one value, `gain`
over 32-bit floats. Prints tables and writes benchmarks/results/activation_codecs.json.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.catalog import show
from search_spaces.activation_codes import CodecName, entropy_bits, fit_code
from search_spaces.known import Sources
from search_spaces.parse import parse_spec
from service.config import get_settings
from workers.activation_maps import count_maps, map_symbols
from workers.codecs import CODECS, open_codec
from workers.codecs.testing import histogram, sparse_values
from workers.fold import fold_batch_norms
from workers.jobs import prepare
from workers.onnx_writer import write_onnx
from workers.splits import normalise
from workers.workbench import set_up

RESULTS = Path(__file__).parent / "results" / "activation_codecs.json"
VALUES, RUNS = 1_000_000, 7
SHARES = (0.1, 0.3, 0.6)
SPEC = {
    "name": "maps",
    "network": {"family": "mobilenet_v1", "width": 0.25, "input": [1, 28, 28]},
    "dataset": {"name": "fashion_mnist"},
    "space": {"activation_codec": {"choices": ["none", "seg"]}},
    "objectives": [{"metric": "accuracy", "direction": "maximize"}],
}
FIT_IMAGES, IMAGES = 256, 64
COLD = """
import time
began = time.perf_counter()
import numpy as np
from search_spaces.activation_codes import fit_code
from workers.codecs import open_codec
values = np.arange({size}, dtype=np.{kind})
codec = open_codec(fit_code("{name}", np.bincount(values, minlength={size})))
ready = time.perf_counter()
stream = codec.encode(values)
encoded = time.perf_counter()
codec.decode(stream, len(values))
print(ready - began, encoded - ready, time.perf_counter() - encoded)
"""


def main() -> None:
    drawn = [row_of_random(bits, share, name) for bits in (8, 16) for share in SHARES for name in CODECS]
    show(drawn, "Random maps, one core")
    cold = [cold_start(name, bits) for name in CODECS for bits in (8, 16)]
    show(cold, "The first stream of a process, in seconds")
    real = [row for bits in (8, 12, 16) for row in rows_of_real(bits)]
    show(real, "Maps of a trained MobileNet-V1 on Fashion-MNIST")
    machine = {"processor": platform.machine(), "python": platform.python_version(), "cores": os.cpu_count()}
    found = {"machine": machine, "random": drawn, "cold": cold, "real": real}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


def row_of_random(bits: int, share: float, name: CodecName) -> dict[str, Any]:
    values = sparse_values(bits, VALUES, share)
    codec = open_codec(fit_code(name, histogram(values, bits)))
    stream, encode_s = least_s(partial(codec.encode, values))
    decoded, decode_s = least_s(partial(codec.decode, stream, len(values)))
    assert np.array_equal(decoded, values)
    return {
        "codec": str(name),
        "q": bits,
        "nonzero": share,
        "k": codec.code.k,
        "bits": round(codec.length_bits(values) / len(values), 2),
        "entropy": round(entropy_bits(histogram(values, bits)), 2),
        "encode_mb_per_s": round(values.nbytes / encode_s / 1e6),
        "decode_mb_per_s": round(values.nbytes / decode_s / 1e6),
    }


def least_s(work: Callable[[], Any]) -> tuple[Any, float]:
    least, found = float("inf"), work()
    for _ in range(RUNS):
        began = process_time()
        found = work()
        least = min(least, process_time() - began)
    return found, least


def cold_start(name: CodecName, bits: int) -> dict[str, Any]:
    code = COLD.format(name=name, size=2**bits, kind="uint8" if bits <= 8 else "uint16")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ready, encode_s, decode_s = (round(float(part), 2) for part in done.stdout.split())
    return {"codec": str(name), "q": bits, "import_and_fit": ready, "first_encode": encode_s, "first_decode": decode_s}


def rows_of_real(bits: int) -> list[dict[str, Any]]:
    """All maps of some images, each in its own code."""
    maps, fitted = real_maps(bits)
    size = sum(symbols.nbytes for symbols in maps.values())
    values = sum(symbols.size for symbols in maps.values())
    rows = []
    for name in CODECS:
        codecs = {tensor: open_codec(fit_code(name, counts)) for tensor, counts in fitted.items()}
        taken = sum(codec.length_bits(maps[tensor]) for tensor, codec in codecs.items())
        encode_s = decode_s = 0.0
        for tensor, codec in codecs.items():
            stream, seconds = least_s(partial(codec.encode, maps[tensor]))
            encode_s += seconds
            decoded, seconds = least_s(partial(codec.decode, stream, maps[tensor].size))
            decode_s += seconds
            assert np.array_equal(decoded, maps[tensor].reshape(-1))
        rows.append(
            {
                "codec": str(name),
                "q": bits,
                "nonzero": round(sum(int(np.count_nonzero(one)) for one in maps.values()) / values, 3),
                "bits": round(taken / values, 2),
                "gain": round(32 * values / taken, 2),
                "side_bytes": sum(codec.code.side_bits for codec in codecs.values()) // 8,
                "encode_mb_per_s": round(size / encode_s / 1e6),
                "decode_mb_per_s": round(size / decode_s / 1e6),
            }
        )
    return rows


def real_maps(bits: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps of images of `score`, and histograms of those of calibration images."""
    spec = parse_spec(SPEC)
    home = get_settings().home.expanduser()
    bench = set_up(spec, Sources(), prepare(spec, Sources(), home)["base_key"], home)
    network, weights = fold_batch_norms(bench.base.network, bench.base.weights)
    model = write_onnx(network, weights)
    fit_images = bench.observed.images[:FIT_IMAGES]
    images = normalise(bench.splits.score.first(IMAGES).images, network.input)
    counted = count_maps(network, model, fit_images, images, bits)
    return map_symbols(network, model, fit_images, images, bits), {one.map.tensor: one.fitted for one in counted}


if __name__ == "__main__":
    main()
