"""HAQ's tables (Wang et al., arXiv 1811.08886): `.npy`, (layers, 8, 8) whole cycles.

The index is [layer, weight bits - 1, activation bits - 1].
The file says neither which network the layers are of nor how long a cycle is nor for how many images the cycles are.
"""

from __future__ import annotations

import io
import math

import numpy as np

from search_spaces.costs import Workload, WorkloadKind, workloads
from search_spaces.network import Network, in_precision
from search_spaces.objectives import Metric
from search_spaces.precision import Precision
from search_spaces.signatures import layer_of
from search_spaces.tables.row import TableError, TableRow, merge_equal_work

BITS = 8
MOST_BYTES = 2**24


def read_haq(content: bytes, network: Network, clock_hz: float) -> list[TableRow]:
    """Latency of each layer in each pair of bits, in s. Layers that do the same work are one: the mean of theirs.

    Args:
        content: of the file.
        network: whose convs and linears, in order, the table's layers are.
        clock_hz: cycles in a second.

    Raises:
        TableError: it is no such table, or not of this network.
    """
    cycles = _load(content)
    layers = [node.name for node in network.compute_nodes()]
    if cycles.shape != (len(layers), BITS, BITS):
        shape = " x ".join(str(size) for size in cycles.shape) or "a single number"
        wanted = f"{len(layers)} x {BITS} x {BITS}: the network has {len(layers)} layers with weights"
        raise TableError([("shape", f"the table is {shape}, not {wanted}; name the network that it is of")])
    bad = np.argwhere(cycles <= 0)
    if len(bad):
        faults = [(_place(layers, *index), f"{cycles[tuple(index)]} cycles; write more than 0") for index in bad[:20]]
        raise TableError(faults)
    rows = [
        TableRow(_place(layers, layer, w, a), workload, Metric.LATENCY_S, float(cycles[layer, w, a]) / clock_hz)
        for w in range(BITS)
        for a in range(BITS)
        for layer, workload in enumerate(layers_in(network, Precision(w + 1, a + 1)))
    ]
    return merge_equal_work(rows)


def layers_in(network: Network, precision: Precision) -> list[Workload]:
    """The layers of a network, in order, each in one precision."""
    found = [layer_of(one) for one in workloads(in_precision(network, precision))]
    return [one for one in found if one is not None and one.kind is WorkloadKind.LAYER]


def _load(content: bytes) -> np.ndarray:
    """An array of whole numbers. Objects are never loaded: they would be code."""
    if len(content) > MOST_BYTES:
        raise TableError([("file", f"the table has {len(content):,} bytes; at most {MOST_BYTES:,} are read")])
    try:
        stream = io.BytesIO(content)
        # The header is read first: it may ask for more memory than the file has bytes.
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.kind not in "iu":
            raise TableError([("file", f"the values are {dtype}; whole numbers of cycles were expected")])
        if math.prod(shape) * dtype.itemsize > len(content):
            raise TableError([("file", "the file is cut off: it says that it has more values than there are")])
        found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return found
    except TableError:
        raise
    except (ValueError, EOFError, OSError, TypeError, KeyError, SyntaxError) as error:
        raise TableError([("file", f"not a NumPy file of numbers: {str(error)[:100]}")]) from None


def _place(layers: list[str], layer: int, weight: int, activation: int) -> str:
    return f"{layers[layer]}, w{weight + 1}a{activation + 1}"
