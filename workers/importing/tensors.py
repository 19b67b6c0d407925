"""The constants of an ONNX file as arrays. What a tensor says of its size is checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from workers.importing.faults import ImportFault, ImportRefusedError, refuse

ExternalData = Mapping[str, Path]
"""Files that came with a model and hold its data, by their plain names."""

_CONSTANT_TYPES: dict[int, int] = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.BOOL: 1,
}
"""Types of constants to bytes of an element."""

_TYPED_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT64: "int64_data",
}


def read_constants(graph: onnx.GraphProto, external: ExternalData) -> dict[str, np.ndarray]:
    """All constants by name, each as large as it says.

    Raises:
        ImportRefusedError: with every one that is not.
    """
    faults: list[ImportFault] = []
    if graph.sparse_initializer:
        faults.append(ImportFault("sparse initializers", "sparse weights are not read; export them dense"))
    constants: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        try:
            constants[tensor.name] = read_tensor(tensor, external)
        except ImportRefusedError as error:
            faults += error.faults
    if faults:
        raise ImportRefusedError(list(dict.fromkeys(faults)))
    return constants


def read_tensor(tensor: onnx.TensorProto, external: ExternalData) -> np.ndarray:
    """The array of a constant.

    Raises:
        ImportRefusedError: it is not as large as it says, of a type that no network here has, or not there.
    """
    part = f"initializer {tensor.name}"
    width = _CONSTANT_TYPES.get(tensor.data_type)
    if width is None:
        raise refuse(f"is of type {type_name(tensor.data_type)}; export the network in float32", part)
    if any(size < 0 for size in tensor.dims):
        raise refuse(f"has the shape {list(tensor.dims)}", part)
    wanted = width * math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raw = _external_bytes(tensor, external, part)
    elif tensor.HasField("raw_data") or not wanted:
        raw = tensor.raw_data
    else:
        return _typed_array(tensor, part)
    if len(raw) != wanted:
        raise refuse(f"says that it has {wanted:,} bytes and holds {len(raw):,}; the file is damaged", part)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    array: np.ndarray = np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))
    return array


def type_name(kind: int) -> str:
    """ONNX's word for a type, such as float16."""
    known = kind in onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(kind)).lower() if known else "unknown"


def _typed_array(tensor: onnx.TensorProto, part: str) -> np.ndarray:
    """Data in fields of their own type instead of raw bytes."""
    held = getattr(tensor, _TYPED_FIELDS.get(tensor.data_type, "int32_data"))
    if len(held) != math.prod(tensor.dims):
        message = f"says that it has {math.prod(tensor.dims):,} values and holds {len(held):,}; the file is damaged"
        raise refuse(message, part)
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _external_bytes(tensor: onnx.TensorProto, external: ExternalData, part: str) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if location not in external:
        remedy = "hand that file over together with the model, both in one zip, or export everything into one file"
        raise refuse(f"holds data of the network and is not there; {remedy}", f"file {location or 'without a name'}")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
    except ValueError:
        raise refuse("says with something else than numbers where its data are", part) from None
    size = external[location].stat().st_size
    end = size if length < 0 else offset + length
    if offset < 0 or end > size:
        raise refuse(f"has its data beyond the end of {location!r}; that file is not whole", part)
    with external[location].open("rb") as file:
        file.seek(offset)
        return file.read(end - offset)
