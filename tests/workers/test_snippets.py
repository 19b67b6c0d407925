"""The programs that come with an export: from users' own pictures they feed a file what the network was scored with."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from search_spaces.datasets import Task
from search_spaces.network import InputContract, Interpolation, Network, Node, Op
from workers.datasets.geometry import fit
from workers.datasets.picture import read_picture
from workers.onnx_writer import write_onnx
from workers.score import predict
from workers.snippets import write_snippets
from workers.weights import init_weights

CLASSES = ("crête", 'quo"te\\', "tab\tstop ?\u003f/", "四🐱", "plain")
CONTRACTS = {
    "colour, cut from a larger one": InputContract((3, 24, 20), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 28),
    "colour, bicubic": InputContract((3, 24, 20), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 0, Interpolation.BICUBIC),
    "grey": InputContract((1, 16, 16), (0.3,), (0.4,), 18),
}
STUB = Path(__file__).parent / "assets" / "onnxruntime_stub"
SIZES = [(20, 24), (61, 33), (33, 61), (300, 40), (9, 7), (28, 28)]


@pytest.fixture(params=CONTRACTS.values(), ids=CONTRACTS)
def contract(request) -> InputContract:
    return request.param


@pytest.fixture
def folder(contract: InputContract, tmp_path: Path) -> Path:
    """A model, its programs, and pictures of every size and kind."""
    nodes = (
        Node("input", Op.INPUT),
        Node("conv", Op.CONV, ("input",), channels=8, kernel=(3, 3), bias=True),
        Node("pool", Op.GLOBAL_AVERAGE_POOL, ("conv",)),
        Node("flat", Op.FLATTEN, ("pool",)),
        Node("classifier", Op.LINEAR, ("flat",), channels=len(CLASSES), bias=True),
    )
    network = Network("small", contract, nodes, "classifier")
    (tmp_path / "my-net.onnx").write_bytes(write_onnx(network, init_weights(network, seed=1)))
    for name, text in write_snippets("my-net.onnx", contract, CLASSES, Task.CLASSIFICATION).items():
        (tmp_path / name).write_text(text)
    draw_pictures(tmp_path)
    return tmp_path


def draw_pictures(folder: Path) -> None:
    chance = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        small = chance.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        alpha = Image.fromarray(chance.integers(0, 256, (height, width), dtype=np.uint8))
        grey = picture.convert("L")
        picture.save(folder / f"{number}-colour.png")
        grey.save(folder / f"{number}-grey.png")
        picture.convert("P").save(folder / f"{number}-palette.gif")
        Image.merge("RGBA", [*picture.split(), alpha]).save(folder / f"{number}-clear.png")
        Image.merge("LA", [grey, alpha]).save(folder / f"{number}-clear-grey.png")
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 99).save(folder / f"{number}-deep.png")
        turned = Image.Exif()
        turned[0x0112] = 6
        picture.save(folder / f"{number}-turned.jpg", exif=turned)
        grey.save(folder / f"{number}-turned.tif", exif=turned)  # Pillow maps such a file into memory


def expected_pixels(path: Path, contract: InputContract) -> np.ndarray:
    """uint8 (1, C, H, W), as data sets are rendered."""
    image = fit(read_picture(path.read_bytes()).image, contract)
    pixels = np.asarray(image).reshape(*contract.shape[1:], contract.shape[0])
    return pixels.transpose(2, 0, 1)[None]


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".gif", ".tif"))


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("snippet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_python_program_feeds_what_the_network_was_scored_with(folder, contract):
    program = load_module(folder / "run_my-net.py")
    model = (folder / "my-net.onnx").read_bytes()
    session = program.open_session()
    assert len(pictures(folder)) == 8 * len(SIZES)
    for path in pictures(folder):
        expected = predict(model, expected_pixels(path, contract), contract)[0]
        np.testing.assert_allclose(program.run(session, path), expected, atol=1e-4, err_msg=path.name)


def test_the_python_program_runs_as_it_is(folder):
    paths = pictures(folder)[:3]
    ran = subprocess.run([sys.executable, folder / "run_my-net.py", *paths], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(ran.stdout.replace(CLASSES[2], "").splitlines()) == 3, lines
    assert all(name in ran.stdout for name in CLASSES)


BAD_PICTURES = {
    "empty": b"",
    "text": b"no picture at all",
    "damaged": b"\x89PNG\r\n\x1a\n" + b"\0" * 60,
}


@pytest.mark.parametrize("kind", ["missing", "a folder", "cut off", *BAD_PICTURES])
def test_a_picture_that_cannot_be_read_is_told_in_one_line(folder, kind):
    """The others are answered all the same."""
    good = pictures(folder)[0]
    bad = folder / f"{kind}.png"
    if kind == "a folder":
        bad.mkdir()
    elif kind == "cut off":
        whole = (folder / "3-colour.png").read_bytes()
        bad.write_bytes(whole[: len(whole) // 2])
    elif kind != "missing":
        bad.write_bytes(BAD_PICTURES[kind])
    command = [sys.executable, folder / "run_my-net.py", bad, good]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"{bad}: ")
    assert "object at" not in line
    assert len(line) > len(f"{bad}: ") + 5
    assert ran.stdout.startswith(f"{good}: ")


def test_a_program_without_its_model_says_so(folder):
    (folder / "my-net.onnx").unlink()
    command = [sys.executable, folder / "run_my-net.py", pictures(folder)[0]]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"{folder / 'my-net.onnx'}: there is no such file; it belongs beside this program\n"


def test_one_output_tells_two_classes_and_a_number_is_a_number(tmp_path):
    contract = CONTRACTS["grey"]
    for name, task in (("two", Task.CLASSIFICATION), ("value", Task.REGRESSION)):
        texts = write_snippets(f"{name}.onnx", contract, (), task)
        (tmp_path / f"run_{name}.py").write_text(texts[f"run_{name}.py"])
    two, value = (load_module(tmp_path / f"run_{name}.py") for name in ("two", "value"))
    assert two.describe(np.array([np.log(3.0)])) == "1 75.0%, 0 25.0%"
    assert value.describe(np.array([-12.5])) == "-12.5"


def test_no_program_where_no_image_has_so_many_channels():
    contract = InputContract((2, 8, 8), (0.5,) * 2, (0.5,) * 2)
    assert write_snippets("radar.onnx", contract, (), Task.CLASSIFICATION) == {}


# --- C++ --------------------------------------------------------------------------------------------------------


def compiler() -> str:
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler is installed: run `apt-get install g++`")
    return found


def compile_program(folder: Path, *options: str) -> Path:
    strict = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    program = folder / "run"
    command = [compiler(), *strict, str(folder / "run_my-net.cpp"), "-o", str(program), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return program


def write_pnm(path: Path, to: Path) -> Path:
    """What users are told to make of a picture; Pillow has brought it upright and made it plain."""
    read_picture(path.read_bytes()).image.save(to, "PPM")
    return to


def test_the_cpp_program_feeds_nearly_the_same_pixels(folder, contract):
    """Compiled against a stand-in for ONNX Runtime that prints what it is fed."""
    program = compile_program(folder, f"-I{STUB}")
    std = np.array(contract.std).reshape(-1, 1, 1)
    mean = np.array(contract.mean).reshape(-1, 1, 1)
    for path in pictures(folder):
        picture = write_pnm(path, folder / "picture.ppm")
        ran = subprocess.run([program, "my-net.onnx", picture], capture_output=True, text=True, check=True)
        fed = np.array(ran.stderr.split(), np.float64).reshape(contract.shape)
        pixels = (fed * std + mean) * 255
        difference = np.abs(pixels - expected_pixels(path, contract)[0])
        assert difference.max() < 2.01, path.name  # each of two passes may round the other way
        assert difference.mean() < 0.25, path.name


def test_the_cpp_program_names_classes_as_they_are_called(folder):
    program = compile_program(folder, f"-I{STUB}")
    picture = write_pnm(pictures(folder)[0], folder / "picture.ppm")
    ran = subprocess.run([program, "my-net.onnx", picture], capture_output=True, check=True)
    # The stand-in answers with descending outputs.
    assert [line.rsplit(b" ", 1)[0].decode() for line in ran.stdout.splitlines()] == list(CLASSES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be opened"),
        (b"", "no binary PPM or PGM file"),
        (b"P6 0 5 255 ", "a picture without pixels"),
        (b"P6 -4 5 255 ", "a picture without pixels"),
        (b"P6 4 5 65535 ", "not 8 bits a channel"),
        (b"P6 4 5 255 abc", "the file ends too early"),
    ],
)
def test_the_cpp_program_tells_what_is_wrong_with_a_picture(tmp_path_factory, content, reason):
    program = cpp_program(tmp_path_factory.getbasetemp())
    picture = tmp_path_factory.mktemp("bad") / "picture.ppm"
    if content is not None:
        picture.write_bytes(content)
    ran = subprocess.run([program, "my-net.onnx", picture], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"{picture}: {reason}\n")


@cache
def cpp_program(folder: Path) -> Path:
    text = write_snippets("my-net.onnx", CONTRACTS["grey"], CLASSES, Task.CLASSIFICATION)["run_my-net.cpp"]
    (folder / "run_my-net.cpp").write_text(text)
    return compile_program(folder, f"-I{STUB}")


def find_headers() -> Path:
    """The folder with ONNX Runtime's own C++ headers, which come with its releases and not with its wheel."""
    named = os.environ.get("ONNXRUNTIME_INCLUDE_DIR")
    usual = ("/usr/include", "/usr/include/onnxruntime", "/usr/local/include", "/usr/local/include/onnxruntime")
    for folder in [named, *usual]:
        if folder and (Path(folder) / "onnxruntime_cxx_api.h").is_file():
            return Path(folder)
    pytest.skip("no C++ headers of ONNX Runtime: unpack its release and set ONNXRUNTIME_INCLUDE_DIR to its include/")


def test_the_cpp_program_runs_the_file_with_the_real_runtime(folder, contract):
    headers = find_headers()
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    (folder / "libonnxruntime.so.1").symlink_to(library)
    program = compile_program(folder, f"-isystem{headers}", str(library), f"-Wl,-rpath,{folder}")
    python = load_module(folder / "run_my-net.py")
    session = python.open_session()
    for path in pictures(folder)[::5]:
        picture = write_pnm(path, folder / "picture.ppm")
        ran = subprocess.run([program, folder / "my-net.onnx", picture], capture_output=True, check=True)
        told = {
            line.rsplit(b" ", 1)[0].decode(): float(line.rsplit(b" ", 1)[1].rstrip(b"%"))
            for line in ran.stdout.splitlines()
        }
        outputs = python.run(session, path)
        shares = np.exp(outputs - outputs.max())
        expected = dict(zip(CLASSES, 100 * shares / shares.sum(), strict=True))
        assert told == pytest.approx(expected, abs=0.5)
