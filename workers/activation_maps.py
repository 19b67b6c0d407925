"""What the activation maps of a file are made of: how often each value occurs, and what maps take in each code.

The file that is scored is run with its maps as further outputs. Each batch is counted and forgotten; no map is kept,
and none is coded, since a histogram tells exactly how long its code is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnxruntime import InferenceSession

from search_spaces.activation_codes import ActivationCode, CodecName, entropy_bits, fit_code
from search_spaces.activation_maps import FLOAT_MAP_BITS, ActivationMap, travelling_maps
from search_spaces.network import Network
from search_spaces.objectives import Metric
from search_spaces.quantisation import is_quantised_layer, plan_quantisation
from workers.calibrate import calibrate
from workers.fold import fold_batch_norms
from workers.onnx_quantize import ActivationGrid, TensorRange, activation_grid
from workers.onnx_session import open_session
from workers.onnx_writer import INPUT_NAME, with_batch, write_onnx

MOST_IMAGES = 256
"""A trial fits codes to so many images and counts so many others, which tells the mean to about a percent."""
BATCH = 32


@dataclass(frozen=True, eq=False)
class CountedMap:
    """How often each value of a map occurs, zero being 0.

    Attributes:
        fitted: over the images that codes are fitted to, (2^q,).
        counted: over others.
    """

    map: ActivationMap
    fitted: np.ndarray
    counted: np.ndarray

    @property
    def nonzero(self) -> int:
        return int(self.counted[1:].sum())

    @property
    def images(self) -> int:
        return int(self.counted.sum()) // self.map.elements


@dataclass(frozen=True)
class CodedMap:
    """What a map takes in a code.

    Attributes:
        tensor: its name.
        bits: q of its values.
        nonzero_share: of its values.
        raw_bytes, coded_bytes: of one image in the mean; raw is q bits for each value.
        coded_bits: of one value in the mean.
        k: of the Golomb codes.
        side_bytes: what a decoder is told once, such as a table.
    """

    tensor: str
    bits: int
    nonzero_share: float
    raw_bytes: float
    coded_bytes: float
    coded_bits: float
    k: int | None = None
    side_bytes: float = 0.0


def count_maps(
    network: Network,
    model: bytes,
    fit_images: np.ndarray,
    images: np.ndarray,
    float_bits: int = FLOAT_MAP_BITS,
    threads: int = 1,
) -> tuple[CountedMap, ...]:
    """Count the values of all maps of a file.

    Maps in integers have the file's own values. Maps of floats are rounded to `float_bits` bits over the range that
    they have in `fit_images`: from zero behind a relu, else from the smallest value to the largest, with zero exact.

    Args:
        network: with batch norms folded, as the file was written from it.
        model: the file, of any batch size.
        fit_images: float32 (n, C, H, W), normalised: what ranges and codes are fitted to.
        images: the same, of others: what is counted.
        float_bits: q of floats, up to 16.
        threads: that ONNX Runtime computes with.

    Raises:
        FloatingPointError: a map has values that are not finite.
    """
    opened = _open(network, model, fit_images, float_bits, threads)
    fitted, counted = _count(opened, fit_images), _count(opened, images)
    maps = (source.map for source in opened.sources)
    return tuple(CountedMap(one, fitted[one.tensor], counted[one.tensor]) for one in maps)


def map_symbols(
    network: Network,
    model: bytes,
    fit_images: np.ndarray,
    images: np.ndarray,
    float_bits: int = FLOAT_MAP_BITS,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """The values of all maps as a codec takes them, uint8 or uint16 (n, elements), by tensor; for few images.

    See `count_maps`, which counts these.
    """
    opened = _open(network, model, fit_images, float_bits, threads)
    batches: dict[str, list[np.ndarray]] = {source.map.tensor: [] for source in opened.sources}
    for source, integers in _read(opened, images):
        symbols = symbols_of(opened.grids[source.map.tensor])[integers]
        kind = np.uint8 if source.map.bits <= 8 else np.uint16
        batches[source.map.tensor].append(symbols.astype(kind).reshape(-1, source.map.elements))
    return {tensor: np.concatenate(parts) for tensor, parts in batches.items()}


def code_maps(counted: Sequence[CountedMap], codec: CodecName) -> tuple[CodedMap, ...]:
    """What each map takes in a code that is fitted to it."""
    return tuple(_coded(one, None if codec is CodecName.NONE else fit_code(codec, one.fitted)) for one in counted)


def total_values(counted: Sequence[CountedMap], coded: Sequence[CodedMap]) -> dict[str, float]:
    """The metrics that are told of a network's maps together."""
    values = sum(int(one.counted.sum()) for one in counted)
    return {
        Metric.ACTIVATION_BYTES: sum(one.coded_bytes for one in coded),
        Metric.ACTIVATION_NONZERO_SHARE: sum(one.nonzero for one in counted) / values,
    }


def compress_report(
    network: Network,
    weights: Mapping[str, np.ndarray],
    fit_images: np.ndarray,
    images: np.ndarray,
    q: int = FLOAT_MAP_BITS,
    threads: int = 1,
) -> list[dict[str, float | str | None]]:
    """A row for each map: its non-zero share, and mean bytes of an image as computed, raw, by entropy and in each code.

    Args:
        network, weights: trained; batch norms are folded where they are not yet.
        fit_images, images: as of `count_maps`.
        q: bits that floats are rounded to.
        threads: for ONNX Runtime.
    """
    folded, folded_weights = fold_batch_norms(network, weights)
    ranges = calibrate(folded, folded_weights, fit_images, threads=threads)
    model = write_onnx(folded, folded_weights, ranges)
    return [_row(one) for one in count_maps(folded, model, fit_images, images, q, threads)]


def symbols_of(grid: ActivationGrid) -> np.ndarray:
    """What each integer of a grid is coded as, uint16 (top + 1,): zero as 0, small values as small numbers.

    -1, 1, -2, 2 ... are 1, 2, 3, 4 ... as far as both sides reach; what only one of them has follows in order. So q
    bits stay q bits, and behind a relu nothing changes.
    """
    signed = np.arange(grid.top + 1) - grid.zero_point
    both = min(grid.zero_point, grid.top - grid.zero_point)
    size = np.abs(signed)
    return np.where(size <= both, 2 * size - (signed < 0), size + both).astype(np.uint16)


def rounded_model(
    network: Network, weights: Mapping[str, np.ndarray], fit_images: np.ndarray, q: int, threads: int = 1
) -> bytes:
    """The file of a network in floats, with every map rounded to q bits before it is read.

    It tells what rounding does to scores.

    Raises:
        ValueError: a layer computes in integers; its file rounds maps already.
    """
    if any(is_quantised_layer(layer) for layer in network.compute_nodes()):
        raise ValueError("maps of layers that compute in integers are rounded in their own file")
    folded, folded_weights = fold_batch_norms(network, weights)
    model = write_onnx(folded, folded_weights)
    sources = _sources(folded, model, travelling_maps(folded, q))
    session = open_session(_with_outputs(model, sources), threads)
    proto = onnx.ModelProto.FromString(model)
    for tensor, tensor_range in _ranges(session, sources, fit_images).items():
        _round_in_graph(proto.graph, tensor, activation_grid(tensor_range, q))
    return bytes(proto.SerializeToString())


@dataclass(frozen=True)
class _Source:
    """Where a file has a map: the output that carries it, whether as integers, and the grid where the file has one."""

    map: ActivationMap
    output: str
    is_integer: bool
    grid: ActivationGrid | None


def _sources(network: Network, model: bytes, maps: Sequence[ActivationMap]) -> list[_Source]:
    graph = onnx.ModelProto.FromString(model).graph
    made = {name for node in graph.node for name in node.output}
    constants = {array.name: array for array in graph.initializer}
    root = plan_quantisation(network).root
    sources = []
    for one in maps:
        names = [name for name in (f"{one.tensor}/clipped", f"{one.tensor}/quantised") if name in made]
        is_integer = one.is_quantised and bool(names)
        grid = _grid_in_file(constants, root[one.tensor], one.bits) if one.is_quantised else None
        sources.append(_Source(one, names[0] if is_integer else one.tensor, is_integer, grid))
    return sources


def _grid_in_file(constants: Mapping[str, onnx.TensorProto], root: str, bits: int) -> ActivationGrid:
    scale, zero_point = (onnx.numpy_helper.to_array(constants[f"{root}/{part}"]) for part in ("scale", "zero_point"))
    return ActivationGrid(np.float32(scale), int(zero_point), 2**bits - 1)


def _with_outputs(model: bytes, sources: Sequence[_Source]) -> bytes:
    """The file, of any batch size, with the maps as its outputs."""
    proto = onnx.ModelProto.FromString(with_batch(model, "N"))
    for source in sources:
        kind = onnx.TensorProto.UINT8 if source.is_integer else onnx.TensorProto.FLOAT
        proto.graph.output.add(name=source.output).type.tensor_type.elem_type = kind
    return bytes(proto.SerializeToString())


def _run(session: InferenceSession, sources: Sequence[_Source], images: np.ndarray) -> Iterator[list[np.ndarray]]:
    names = [source.output for source in sources]
    for start in range(0, len(images), BATCH):
        yield session.run(names, {INPUT_NAME: images[start : start + BATCH]}) if names else []


def _ranges(session: InferenceSession, sources: Sequence[_Source], images: np.ndarray) -> dict[str, TensorRange]:
    """Smallest and largest value of each map."""
    ends = np.array([[(array.min(), array.max()) for array in arrays] for arrays in _run(session, sources, images)])
    if not np.isfinite(ends).all():
        raise FloatingPointError("the network's activation maps have values that are not finite")
    names = [source.map.tensor for source in sources]
    return {
        name: (float(ends[:, number, 0].min()), float(ends[:, number, 1].max())) for number, name in enumerate(names)
    }


@dataclass(frozen=True)
class _Opened:
    """A file that is ready to give its maps, and the grid of each."""

    session: InferenceSession
    sources: Sequence[_Source]
    grids: Mapping[str, ActivationGrid]


def _open(network: Network, model: bytes, fit_images: np.ndarray, float_bits: int, threads: int) -> _Opened:
    sources = _sources(network, model, travelling_maps(network, float_bits))
    session = open_session(_with_outputs(model, sources), threads)
    grids = {source.map.tensor: source.grid for source in sources if source.grid is not None}
    without = [source for source in sources if source.grid is None]
    for tensor, tensor_range in _ranges(session, without, fit_images).items():
        grids[tensor] = activation_grid(tensor_range, float_bits)
    return _Opened(session, sources, grids)


def _read(opened: _Opened, images: np.ndarray) -> Iterator[tuple[_Source, np.ndarray]]:
    """Map after map, batch after batch, in integers."""
    for arrays in _run(opened.session, opened.sources, images):
        for source, array in zip(opened.sources, arrays, strict=True):
            yield source, array if source.is_integer else _integers(array, opened.grids[source.map.tensor])


def _count(opened: _Opened, images: np.ndarray) -> dict[str, np.ndarray]:
    """How often each symbol occurs, by map."""
    by_integer = {source.map.tensor: np.zeros(2**source.map.bits, np.int64) for source in opened.sources}
    for source, integers in _read(opened, images):
        by_integer[source.map.tensor] += np.bincount(integers.reshape(-1), minlength=2**source.map.bits)
    counts = {tensor: np.zeros_like(found) for tensor, found in by_integer.items()}
    for tensor, found in by_integer.items():
        counts[tensor][symbols_of(opened.grids[tensor])] = found
    return counts


def _integers(values: np.ndarray, grid: ActivationGrid) -> np.ndarray:
    """round(x / scale) + zero_point, within the grid."""
    if not np.isfinite(values).all():
        raise FloatingPointError("the network's activation maps have values that are not finite")
    scaled = values / grid.scale
    np.rint(scaled, out=scaled)
    scaled += np.float32(grid.zero_point)
    np.clip(scaled, 0, grid.top, out=scaled)
    return scaled.astype(np.int64)


def _coded(one: CountedMap, code: ActivationCode | None) -> CodedMap:
    raw = one.map.elements * one.map.bits / 8
    coded = one.map.bytes_as_computed if code is None else code.count_bits(one.counted) / 8 / one.images
    return CodedMap(
        one.map.tensor,
        one.map.bits,
        one.nonzero / int(one.counted.sum()),
        raw,
        coded,
        8 * coded / one.map.elements,
        None if code is None else code.k,
        0.0 if code is None else code.side_bits / 8,
    )


def _row(one: CountedMap) -> dict[str, float | str | None]:
    codes = {name: code_maps([one], name)[0] for name in CodecName}
    row: dict[str, float | str | None] = {
        "tensor": one.map.tensor,
        "elements": one.map.elements,
        "bits": one.map.bits,
        "nonzero_share": codes[CodecName.RAW].nonzero_share,
        "entropy_bytes": entropy_bits(one.counted) * one.map.elements / 8,
        **{f"{name}_bytes": coded.coded_bytes for name, coded in codes.items()},
        **{f"{name}_k": codes[name].k for name in (CodecName.EG, CodecName.SEG)},
        "huffman_side_bytes": codes[CodecName.HUFFMAN].side_bytes,
    }
    return row


def _round_in_graph(graph: onnx.GraphProto, tensor: str, grid: ActivationGrid) -> None:
    """Put scaling, rounding, clipping and scaling back between a tensor and all its readers."""
    place, producer = next((place, node) for place, node in enumerate(graph.node) if tensor in node.output)
    names = [f"{tensor}/{step}" for step in ("unrounded", "scaled", "rounded", "kept")] + [tensor]
    producer.output[list(producer.output).index(tensor)] = names[0]
    constants = {"step": grid.scale, "least": -grid.zero_point, "most": grid.top - grid.zero_point}
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), f"{tensor}/{name}"))
    steps = [("Div", ["step"]), ("Round", []), ("Clip", ["least", "most"]), ("Mul", ["step"])]
    for number, (op_type, extra) in enumerate(steps):
        inputs = [names[number], *(f"{tensor}/{part}" for part in extra)]
        node = onnx.helper.make_node(op_type, inputs, [names[number + 1]], name=names[number + 1] + "/by")
        graph.node.insert(place + 1 + number, node)
