"""A network's weights in a file that takes the bits that they are declared in: safetensors with packed integers.

Arrays of the file, by the names of `workers.weights`:

- `<layer>.weight`: float32 as it is; 16 bits as int16; fewer as uint8 (bytes,), codes of `bits` bits each behind one
  another in the order of the weight's elements, lowest bit first, the last byte filled up with zeros.
- `<layer>.weight.scale` float32 (O,): a weight is (code - top) * scale, top = 2^(bits-1) - 1; in one bit, code 0 is
  -scale and code 1 is +scale, and the scale of a channel of zeros is 0.
- `<layer>.weight.codebook` float32 (2^bits,): a weight is codebook[code].
- everything else, such as `<layer>.bias`: float32.

The metadata is as `workers.weights_file` has it, one JSON object. Of it `espalier.packed` is the version of this form,
and `espalier.weights` the JSON of each packed weight's bits, shape and form. The same weights give the same bytes, and
what is unpacked are exactly the float32 weights that were packed (in 16 bits, to single precision).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load

from search_spaces.network import Network
from search_spaces.precision import CODEBOOK_BITS, FLOAT_BITS, WEIGHT_BITS, Precision
from workers.weight_grids import (
    find_in_codebook,
    from_grid,
    is_on_grid,
    make_codebook,
    round_to_grid,
    top_of,
    weight_scales,
)
from workers.weights import Weights, WeightsError, check_weights
from workers.weights_file import METADATA_KEY, weights_as_bytes

VERSION = "1"
_VERSION_KEY, _WEIGHTS_KEY = "espalier.packed", "espalier.weights"
_PACKED_BITS = 8
_MOST_VALUES = 2**32
_MOST_HEADER_BYTES = 100 * 2**20


class _Form(StrEnum):
    GRID = "grid"
    CODEBOOK = "codebook"


class _Packed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: int
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=_MOST_VALUES)], ...], Field(min_length=2, max_length=4)]
    form: _Form

    @model_validator(mode="after")
    def _listed(self) -> _Packed:
        known = CODEBOOK_BITS if self.form is _Form.CODEBOOK else WEIGHT_BITS[:-1]
        if self.bits not in known:
            raise ValueError(f"bits of a {self.form} are one of {', '.join(map(str, known))}, not {self.bits}")
        return self


_TABLE = TypeAdapter(dict[str, _Packed])


def pack_weights(
    network: Network, weights: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A safetensors file of a folded network's weights, each layer's in the bits of its precision.

    Args:
        network: with batch norms folded.
        weights: float32, on the grids of the layers' precisions, as a candidate's are.
        metadata: stored in the file beside its own.

    Raises:
        WeightsError: weights are not the network's, or not on the grid of a layer's precision.
    """
    check_weights(network, weights)
    arrays, table = dict(weights), {}
    for layer in network.compute_nodes():
        if layer.precision.weight_bits < FLOAT_BITS:
            name = f"{layer.name}.weight"
            if not is_on_grid(weights[name], layer.precision):
                raise WeightsError(f"{name} is not on the grid of {layer.precision}; quantise it first")
            arrays |= _pack(name, weights[name], layer.precision)
            form = _Form.CODEBOOK if layer.precision.is_codebook else _Form.GRID
            table[name] = _Packed(bits=layer.precision.weight_bits, shape=weights[name].shape, form=form)
    own = {_VERSION_KEY: VERSION, _WEIGHTS_KEY: _TABLE.dump_json(table).decode()}
    return weights_as_bytes(arrays, {**(metadata or {}), **own})


def unpack_weights(data: bytes) -> Weights:
    """The weights of a file that `pack_weights` wrote, float32.

    Raises:
        WeightsError: the file is damaged, of another form, or does not fit what it says of itself; naming the array.
    """
    table = _read_table(data)
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise WeightsError(f"no whole safetensors file: {error}") from error
    weights: Weights = {}
    for name, packed in table.items():
        weights[name] = _unpack(name, packed, arrays)
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise WeightsError(f"{name} is {array.dtype}, and not said to be packed")
        weights[name] = array
    return weights


def _pack(name: str, weight: np.ndarray, precision: Precision) -> dict[str, np.ndarray]:
    bits = precision.weight_bits
    if precision.is_codebook:
        codebook = make_codebook(weight, bits)
        return {name: _pack_codes(find_in_codebook(weight, codebook), bits), f"{name}.codebook": codebook}
    scales = weight_scales(weight, bits)
    integers = round_to_grid(weight, bits, scales)
    if bits > _PACKED_BITS:
        return {name: integers, f"{name}.scale": scales}
    if bits == 1:
        scales = np.where(integers.reshape(len(integers), -1).any(axis=1), scales, np.float32(0))
        codes = (integers > 0).astype(np.uint8)
    else:
        codes = (integers.astype(np.int16) + top_of(bits)).astype(np.uint8)
    return {name: _pack_codes(codes, bits), f"{name}.scale": scales}


def _pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.packbits(np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder="little")[:, :bits], bitorder="little")


def _unpack_codes(packed: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    lowest = np.unpackbits(packed, count=math.prod(shape) * bits, bitorder="little").reshape(-1, bits)
    return np.packbits(lowest, axis=1, bitorder="little").reshape(shape)


def _read_table(data: bytes) -> dict[str, _Packed]:
    """What the file says of its packed weights; safetensors' own reader does not hand out the metadata of bytes."""
    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or not 0 < size <= min(len(data) - 8, _MOST_HEADER_BYTES):
            raise WeightsError("no whole safetensors file: its header is not all there")
        metadata = json.loads(json.loads(data[8 : 8 + size]).get("__metadata__", {}).get(METADATA_KEY, "{}"))
        version, table = metadata.get(_VERSION_KEY), metadata.get(_WEIGHTS_KEY)
        if version != VERSION or not isinstance(table, str):
            raise WeightsError(f"packed weights of version {version!r}; version {VERSION} can be read")
        return _TABLE.validate_json(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise WeightsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, WeightsError) else WeightsError("its header is not JSON") from None


def _unpack(name: str, packed: _Packed, arrays: dict[str, np.ndarray]) -> np.ndarray:
    bits, shape = packed.bits, packed.shape
    count = math.prod(shape)
    if packed.form is _Form.CODEBOOK:
        codes = _taken(arrays, name, np.uint8, (-(-count * bits // 8),))
        codebook = _taken(arrays, f"{name}.codebook", np.float32, (2**bits,))
        return np.asarray(codebook[_unpack_codes(codes, bits, shape)])
    scales = _taken(arrays, f"{name}.scale", np.float32, shape[:1])
    if bits > _PACKED_BITS:
        return from_grid(_taken(arrays, name, np.int16, shape), scales)
    codes = _unpack_codes(_taken(arrays, name, np.uint8, (-(-count * bits // 8),)), bits, shape).astype(np.int16)
    return from_grid(2 * codes - 1 if bits == 1 else codes - top_of(bits), scales)


def _taken(arrays: dict[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Take an array out of those that are left, once it is known to be what it must be."""
    array = arrays.pop(name, None)
    if array is None or array.dtype != dtype or array.shape != shape:
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise WeightsError(f"{name} must be {np.dtype(dtype)} {shape}, not {found}")
    return array
