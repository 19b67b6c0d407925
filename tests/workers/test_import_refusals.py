"""What cannot be imported is refused with the part that it is about and a remedy, and costs little to refuse."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save

from search_spaces.catalog import build_network
from search_spaces.importing import ImportSettings
from search_spaces.spec import Family
from tests.workers.onnx_files import SHAPE, model_of, plain_parts
from workers.importing.faults import ImportRefusedError
from workers.importing.import_file import import_file
from workers.weights import init_weights

ROOT = Path(__file__).resolve().parents[2]


def refused(data: bytes, folder: Path, **given: object) -> list[tuple[str, str]]:
    path = folder / "model"
    path.write_bytes(data)
    with pytest.raises(ImportRefusedError) as caught:
        import_file(path, "mine", ImportSettings(**given))
    assert sorted(item.name for item in folder.iterdir()) == ["model"]  # nothing unpacked is left behind
    return [(fault.part, fault.message) for fault in caught.value.faults]


def plain_model(**changes: object) -> onnx.ModelProto:
    return model_of(*plain_parts(), **changes)


# --- bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\0", b"hello, world", b"\x08\x08" * 50, bytes(range(256)) * 40])
def test_what_is_no_onnx_file(data, tmp_path):
    ((_, message),) = refused(data, tmp_path)
    assert "no whole ONNX file" in message
    assert "export" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(share, tmp_path):
    data = plain_model().SerializeToString()
    faults = refused(data[: int(len(data) * share)], tmp_path)
    assert "no whole ONNX file" in faults[0][1]


def test_a_file_that_would_be_millions_of_objects(tmp_path):
    """Two bytes for each node; parsed, they would take gigabytes."""
    graph = b"\x0a\x00" * 3_000_000
    length = onnx.ModelProto(graph=onnx.GraphProto(name="x" * len(graph))).SerializeToString()[1:5]
    ((_, message),) = refused(b"\x3a" + _varint(len(graph)) + graph, tmp_path)
    assert "2,000,000 parts" in message
    assert length


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


# --- tensors ----------------------------------------------------------------------------------------------------


def model_with_tensor(**fields: object) -> bytes:
    """A model whose second weight says of itself what is given."""
    model = plain_model()
    tensor = model.graph.initializer[1]
    for name, value in fields.items():
        if name == "dims":
            tensor.dims[:] = value
        elif name == "external":
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            for key, text in value.items():
                tensor.external_data.add(key=key, value=text)
        else:
            setattr(tensor, name, value)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [2**31, 2**20]}, "holds 80"),
        ({"dims": [5, 3]}, "says that it has 60 bytes and holds 80"),
        ({"dims": [-5, -4]}, "has the shape"),
        ({"raw_data": b""}, "says that it has 80 bytes and holds 0"),
        ({"data_type": TensorProto.FLOAT16}, "is of type float16; export the network in float32"),
        ({"data_type": TensorProto.STRING}, "is of type string"),
        ({"data_type": 99}, "is of type unknown"),
    ],
)
def test_a_tensor_that_is_not_what_it_says(fields, message, tmp_path):
    ((part, text),) = refused(model_with_tensor(**fields), tmp_path)
    assert part == "initializer v"
    assert message in text


@pytest.mark.parametrize("location", ["../../../etc/passwd", "/etc/passwd", ""])
def test_data_that_lie_elsewhere_are_asked_for_once_a_file(location, tmp_path):
    model = plain_model()
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    ((part, text),) = refused(model.SerializeToString(), tmp_path)
    assert part == f"file {location or 'without a name'}"
    assert "is not there; hand that file over together with the model" in text


def zipped(files: dict[str, bytes], **options: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_data_beside_the_model_come_in_one_zip(tmp_path):
    data = {"location": "weights.bin", "offset": "4", "length": "80"}
    weights = plain_model().graph.initializer[1].raw_data
    path = tmp_path / "model.zip"
    path.write_bytes(zipped({"a/model.onnx": model_with_tensor(external=data), "a/weights.bin": b"\0" * 4 + weights}))
    found = import_file(path, "mine", ImportSettings())
    np.testing.assert_array_equal(found.weights["last.weight"].ravel(), np.frombuffer(weights, np.float32))


@pytest.mark.parametrize(
    ("files", "part", "message"),
    [
        ({"readme.txt": b"x"}, "", "hold one .onnx file and its data; in this one there are 0"),
        ({"a.onnx": b"x", "b.onnx": b"y"}, "", "there are 2: a.onnx, b.onnx"),
        ({"a/m.onnx": b"x", "b/m.onnx": b"y"}, "b/m.onnx", "has a name that another file has too"),
        ({"..": b"x", "m.onnx": b"y"}, "..", "or that is none"),
        ({f"{number}": b"" for number in range(1001)}, "", "1,000 are the most"),
        ({"m.onnx": plain_model().SerializeToString(), "w": b"\0" * 10**7}, "w", "when it is unpacked"),
    ],
    ids=["no model", "two models", "same name", "odd name", "many", "bomb"],
)
def test_a_zip_that_is_no_model(files, part, message, tmp_path):
    faults = refused(zipped(files, compression=zipfile.ZIP_DEFLATED), tmp_path)
    assert (faults[0][0], message in faults[0][1]) == (part, True), faults


def test_a_damaged_zip(tmp_path):
    data = zipped({"m.onnx": plain_model().SerializeToString()})
    assert "cannot be read" in refused(data[:-30], tmp_path)[0][1]


def test_external_data_that_end_too_soon(tmp_path):
    model = model_with_tensor(external={"location": "w.bin", "offset": "0", "length": "80"})
    ((part, message),) = refused(zipped({"m.onnx": model, "w.bin": b"\0" * 79}), tmp_path)
    assert part == "initializer v"
    assert "beyond the end of 'w.bin'" in message


# --- graphs -----------------------------------------------------------------------------------------------------


def test_every_node_that_cannot_be_imported_is_named_at_once(tmp_path):
    nodes, constants = plain_parts()
    odd = [
        helper.make_node("RandomNormalLike", ["b"], ["r"], name="noise"),
        helper.make_node("Fused", ["b"], ["f"], name="theirs", domain="com.example"),
        helper.make_node("ReduceMax", ["b"], ["m"], name="over_images", axes=[0]),
    ]
    model = model_of([*nodes[:2], *odd, *nodes[2:]], constants)
    model.opset_import.add(domain="com.example", version=1)
    faults = dict(refused(model.SerializeToString(), tmp_path))
    assert faults.keys() == {
        "node noise (RandomNormalLike)",
        "node theirs (Fused)",
        "node over_images (ReduceMax)",
    }
    assert "com.example" in faults["node theirs (Fused)"]
    assert "cannot be kept as it is" in faults["node over_images (ReduceMax)"]


def test_a_circle_and_a_dangling_input(tmp_path):
    nodes, constants = plain_parts()
    nodes[1] = helper.make_node("Add", ["a", "z"], ["b"], name="in")
    circle = [*nodes, helper.make_node("Relu", ["b"], ["z"], name="back")]
    ((_, message),) = refused(model_of(circle, constants).SerializeToString(), tmp_path)
    assert "in a circle" in message
    assert "node in" in message
    assert "node back" in message
    faults = dict(refused(model_of(nodes, constants).SerializeToString(), tmp_path))
    assert "reads 'z', which nothing makes" in faults["node in"]


def test_nodes_in_another_order_are_sorted(tmp_path):
    nodes, constants = plain_parts()
    path = tmp_path / "model"
    path.write_bytes(model_of(nodes[::-1], constants).SerializeToString())
    assert import_file(path, "mine", ImportSettings()).report["layers"] == 2


def with_input(**changes: object) -> bytes:
    return plain_model(**changes).SerializeToString()


def with_second_input() -> bytes:
    model = plain_model()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    return model.SerializeToString()


def with_second_output() -> bytes:
    model = plain_model()
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    return model.SerializeToString()


def of_integers() -> bytes:
    model = plain_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model.SerializeToString()


def without_convolution() -> bytes:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "v"], ["y"], transB=1)]
    return model_of(nodes, {"v": np.zeros((5, int(np.prod(SHAPE))), np.float32)}).SerializeToString()


def with_a_map_at_the_end() -> bytes:
    nodes, constants = plain_parts()
    return model_of(nodes[:2], {"w": constants["w"]}, output="b").SerializeToString()


def already_quantised() -> bytes:
    nodes, constants = plain_parts()
    quantised = [
        helper.make_node("QuantizeLinear", ["b", "s", "z"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["b2"], name="dequantise"),
        helper.make_node("GlobalAveragePool", ["b2"], ["c"]),
    ]
    constants |= {"s": np.float32(0.1), "z": np.uint8(0)}
    return model_of([*nodes[:2], *quantised, *nodes[3:]], constants).SerializeToString()


@pytest.mark.parametrize(
    ("make", "part", "message"),
    [
        (with_second_input, "", "has 2 inputs (x, mask)"),
        (with_second_output, "", "has 2 outputs (y, b)"),
        (of_integers, "input x", "takes uint8 values; export it with a float32 input"),
        (without_convolution, "", "no convolution, so there is nothing that could be searched"),
        (with_a_map_at_the_end, "output", "a vector of scores or values is needed"),
        (already_quantised, "node quantise (QuantizeLinear)", "cannot be kept as it is"),
        (lambda: with_input(shape=("n", 3, "h", "w")), "input x", "say which input it takes, such as 3,224,224"),
        (lambda: with_input(shape=(1, 3, 16)), "input x", "has 3 axes"),
        (lambda: with_input(shape=(8, *SHAPE)), "input x", "takes 8 images at once"),
        (lambda: with_input(shape=(1, 3, 10**6, 10**6)), "input x", "are the most"),
        (lambda: with_input(opset=9), "", "of opset 9; export it again with one from 11"),
        (lambda: with_input(opset=999), "", "of opset 999"),
    ],
)
def test_a_network_of_another_kind(make, part, message, tmp_path):
    faults = refused(make(), tmp_path)
    assert faults[0][0] == part
    assert message in faults[0][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (0.5,), "std": (0.5,)}, "mean has 1 values for an input of 3 channels"),
        ({"class_names": ("cat", "dog")}, "2 class names do not fit 5 outputs"),
        ({"input": (3, 8, 8)}, "cannot be [3, 8, 8]"),
        ({"family": "resnet_56", "input": (3, 16, 16)}, "brings its own architecture"),
    ],
)
def test_settings_that_do_not_fit_the_file(given, message, tmp_path):
    assert message in refused(with_input(), tmp_path, **given)[0][1]


# --- small files that ask for much ------------------------------------------------------------------------------


def asking_for_much(kind: str) -> bytes:
    nodes, constants = plain_parts()
    large = np.array([1, 4, 2**16, 2**16], np.int64)
    middle = {
        "pad": helper.make_node("Pad", ["b", "k"], ["m"]),
        "resize": helper.make_node("Resize", ["b", "", "", "k"], ["m"], mode="nearest"),
        "expand": helper.make_node("Expand", ["one_each", "k"], ["m"]),
        "tile": helper.make_node("Tile", ["b", "k"], ["m"]),
        "constant": helper.make_node("ConstantOfShape", ["k"], ["m"]),
        "range": helper.make_node("Range", ["zero", "many", "one"], ["m"]),
        "product": helper.make_node("Mul", ["column", "row"], ["m"]),
    }[kind]
    constants |= {
        "k": {"pad": np.array([0, 0, 0, 0, 0, 0, 2**15, 2**15], np.int64)}.get(kind, large),
        "zero": np.int64(0),
        "one": np.int64(1),
        "many": np.int64(2**40),
        "column": np.zeros((2**15, 1), np.float32),
        "row": np.zeros((1, 2**15), np.float32),
    }
    if kind == "expand":
        nodes.insert(2, helper.make_node("GlobalAveragePool", ["b"], ["one_each"]))
    after = helper.make_node("ReduceMean", ["m"], ["c"], axes=[2, 3])
    return model_of([*nodes[:-3], middle, after, *nodes[-2:]], constants).SerializeToString()


@pytest.mark.parametrize("kind", ["pad", "resize", "expand", "tile", "constant", "range", "product"])
def test_a_small_file_that_asks_for_gigabytes(kind, tmp_path):
    faults = refused(asking_for_much(kind), tmp_path)
    assert any("are the most" in message or "cannot be told" in message for _, message in faults), faults


_MEASURE = """
import sys, resource
from pathlib import Path
import onnxruntime, torch  # what an evaluator has loaded anyway
from search_spaces.importing import ImportSettings
from workers.importing.faults import ImportRefusedError
from workers.importing.import_file import import_file
torch.set_num_threads(1)
import_file(Path(sys.argv[1]), "warm", ImportSettings())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    import_file(Path(sys.argv[2]), "mine", ImportSettings())
    result = "imported"
except ImportRefusedError as error:
    result = error.faults[0].message
print(result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sep="|")
"""


def peak_kilobytes(small: Path, path: Path) -> tuple[str, int]:
    command = [sys.executable, "-c", _MEASURE, str(small), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result, kilobytes = done.stdout.strip().split("|")
    return result, int(kilobytes)


@pytest.mark.parametrize("case", ["whole", "truncated", "lying"])
def test_memory_is_bounded_by_the_upload(case, tmp_path):
    nodes, constants = plain_parts()
    wide = np.random.default_rng(0).standard_normal((5000, 5000)).astype(np.float32)  # 100 MB
    nodes[4:] = [
        helper.make_node("Gemm", ["d", "u"], ["e"], transB=1),
        helper.make_node("Gemm", ["e", "wide"], ["y"], transB=1),
    ]
    constants |= {"u": np.ones((5000, 4), np.float32), "wide": wide}
    del constants["v"]
    model = model_of(nodes, constants)
    if case == "lying":
        model.graph.initializer[-1].dims[:] = [2**20, 2**20]
    data = model.SerializeToString()
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(plain_model().SerializeToString())
    large.write_bytes(data[: len(data) // 2] if case == "truncated" else data)
    result, kilobytes = peak_kilobytes(small, large)
    expected = {"whole": "imported", "truncated": "no whole ONNX file", "lying": "the file is damaged"}[case]
    assert expected in result
    assert kilobytes * 1024 <= 4.2 * len(data)  # four times, and what a run takes besides


# --- weights of a catalog network -------------------------------------------------------------------------------

SETTINGS = {"family": "resnet_56", "width": 0.5, "input": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}


def catalog_weights(classes: int = 7) -> dict[str, np.ndarray]:
    spec = ImportSettings(**SETTINGS).network_spec()
    return init_weights(build_network(spec, classes, (0.5,) * 3, (0.5,) * 3), seed=0)


def test_weights_of_a_catalog_network_are_imported(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(catalog_weights()))
    found = import_file(path, "mine", ImportSettings(**SETTINGS))
    assert (found.report["outputs"], found.report["source"]["producer"]) == (7, str(Family.RESNET_56))
    assert found.network.name == "mine"
    np.testing.assert_array_equal(found.weights["stem.weight"], catalog_weights()["stem.weight"])


def changed_weights(case: str) -> bytes:
    weights = catalog_weights()
    match case:
        case "missing":
            del weights["stem.weight"]
        case "superfluous":
            weights["fc.weight"] = np.zeros((7, 2), np.float32)
        case "shape":
            weights["stem.weight"] = np.zeros((9, 3, 3, 3), np.float32)
        case "not finite":
            weights["stem.weight"][0] = np.nan
        case "no classifier":
            del weights["classifier.weight"]
        case "truncated":
            return save(weights)[:-8]
    return save(weights)


@pytest.mark.parametrize(
    ("case", "part", "message"),
    [
        ("missing", "stem.weight", "is missing"),
        ("superfluous", "fc.weight", "is no array of this network"),
        ("shape", "stem.weight", "has the shape [9, 3, 3, 3], not [8, 3, 3, 3]"),
        ("not finite", "", "not finite"),
        ("no classifier", "", "classifier.weight"),
        ("truncated", "", "no whole safetensors file"),
    ],
)
def test_weights_that_do_not_fit(case, part, message, tmp_path):
    faults = refused(changed_weights(case), tmp_path, **SETTINGS)
    assert faults[0][0] == part
    assert message in faults[0][1]


def test_weights_without_an_architecture(tmp_path):
    ((part, message),) = refused(save(catalog_weights()), tmp_path)
    assert part == "/family"
    assert "say which network of the catalog" in message


def test_refusals_are_plain_text(tmp_path):
    faults = refused(with_second_input(), tmp_path)
    assert json.loads(json.dumps(faults)) == [list(fault) for fault in faults]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Transpose", {"perm": [0, 1, 2]}),
        ("Transpose", {"perm": "text"}),
        ("MaxPool", {"kernel_shape": [0, 0]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [0, 0]}),
        ("MaxPool", {}),
        ("Flatten", {"axis": 99}),
        ("Concat", {"axis": "first"}),
        ("Concat", {}),
        ("Split", {"axis": 7}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1]}),
        ("Softmax", {"axis": 50}),
        ("Conv", {}),
        ("BatchNormalization", {}),
        ("Reshape", {}),
        ("Clip", {"min": "low"}),
    ],
)
def test_attributes_that_make_no_sense(op, attributes, tmp_path):
    nodes, constants = plain_parts()
    nodes[1] = helper.make_node(op, ["a"], ["b"], name="odd", **attributes)
    faults = dict(refused(model_of(nodes, constants).SerializeToString(), tmp_path))
    assert list(faults) == [f"node odd ({op})"]
    assert all(faults.values())
