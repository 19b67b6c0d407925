import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from search_spaces.datasets import DATASETS, DatasetInfo
from workers.datasets import DatasetSource, DatasetUnavailableError, fashion_mnist, load_dataset
from workers.datasets.cifar import CifarArchive, load_cifar
from workers.datasets.dataset import Dataset
from workers.datasets.digits import Digits
from workers.datasets.download import PinnedFile, SourceError, check, download, gunzip
from workers.datasets.idx import parse_idx
from workers.datasets.testing import DatasetSourceContract
from workers.progress import ignore_progress


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def pin(name: str, data: bytes) -> PinnedFile:
    return PinnedFile(name, len(data), hashlib.sha256(data).hexdigest())


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web site on the loopback interface: its address and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


class TestIdx:
    def test_round_trip(self):
        array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        assert np.array_equal(parse_idx(idx(array)), array)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "no IDX file"),
            (b"\0\0\x08\0", "no IDX file"),
            (b"\0\0\x0d\1\0\0\0\0", "no IDX file"),
            (b"\x1f\x8b\x08\1\0\0\0\0", "no IDX file"),
            (b"\0\0\x08\2\0\0\0\1", "ends in its header"),
            (b"\0\0\x08\1\0\0\0\2a", "holds 1 bytes"),
            (b"\0\0\x08\1\0\0\0\2abc", "holds 3 bytes"),
            (b"\0\0\x08\3" + b"\xff" * 12 + b"abc", "holds 3 bytes"),
        ],
    )
    def test_anything_else_is_refused(self, data, message):
        with pytest.raises(ValueError, match=message):
            parse_idx(data)


class TestPinnedFiles:
    def test_recompressed_archives_are_the_same_file(self):
        data = bytes(1000)
        pinned = pin("zeros", data)
        assert gunzip(pinned, gzip.compress(data, 1)) == gunzip(pinned, gzip.compress(data, 9)) == data

    @pytest.mark.parametrize("archive", [b"", b"no gzip", gzip.compress(bytes(999)), gzip.compress(bytes(1000))[:-20]])
    def test_damaged_or_other_archives_are_refused(self, archive):
        with pytest.raises(SourceError):
            gunzip(pin("zeros", bytes(1000)), archive)

    def test_a_bomb_is_not_unpacked(self):
        with pytest.raises(SourceError, match="1001 bytes"):
            gunzip(pin("zeros", bytes(1000)), gzip.compress(bytes(50_000_000)))

    def test_check(self):
        assert check(pin("a", b"abc"), b"abc") == b"abc"
        with pytest.raises(SourceError, match="checksum"):
            check(pin("a", b"abc"), b"abd")


class TestDownload:
    def test_gives_the_bytes_and_shows_progress(self, site):
        address, folder = site
        (folder / "file").write_bytes(b"x" * 1000)
        seen: list[float] = []
        assert download(f"{address}/file", 1000, lambda _stage, done, _message: seen.append(done)) == b"x" * 1000
        assert seen[-1] == 1.0

    def test_says_what_went_wrong(self, site):
        address, folder = site
        (folder / "file").write_bytes(b"x" * 1001)
        with pytest.raises(SourceError, match="404"):
            download(f"{address}/other", 1000, ignore_progress)
        with pytest.raises(SourceError, match="more than the expected 1000 bytes"):
            download(f"{address}/file", 1000, ignore_progress)
        with pytest.raises(SourceError, match=r"127\.0\.0\.1:9"):
            download("http://127.0.0.1:9/file", 1000, ignore_progress)


class TestFashionMnist:
    """With tiny files of the same format: everything but the size and the checksums is real."""

    @pytest.fixture
    def files(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
        generator = np.random.default_rng(0)
        images = {"images": 20, "test_images": 5}
        files = {part: idx(generator.integers(256, size=(n, 28, 28)).astype(np.uint8)) for part, n in images.items()}
        files |= {part: idx(np.arange(n).astype(np.uint8) % 10) for part, n in {"labels": 20, "test_labels": 5}.items()}
        pins = {part: pin(fashion_mnist.FILES[part].name, data) for part, data in files.items()}
        monkeypatch.setattr(fashion_mnist, "FILES", pins)
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", Path("/nonexistent/fashion-mnist"))
        monkeypatch.setattr(fashion_mnist, "OFFICIAL_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(fashion_mnist, "DEBIAN_PACKAGE", "espalier-no-such-package")
        return {pins[part].name: data for part, data in files.items()}

    def publish(self, files: dict[str, bytes], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))

    def check_loaded(self, dataset: Dataset, files: dict[str, bytes]) -> None:
        assert dataset.images.shape == (20, 1, 28, 28)
        assert dataset.test_labels.tolist() == [0, 1, 2, 3, 4]
        assert idx(dataset.images[:, 0]) == files["train-images-idx3-ubyte"]

    def test_from_the_installed_package_then_from_the_cache(self, files, tmp_path, monkeypatch):
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
        self.publish(files, tmp_path / "debian")
        self.check_loaded(load_dataset("fashion_mnist", tmp_path), files)
        shutil.rmtree(tmp_path / "debian")
        self.check_loaded(load_dataset("fashion_mnist", tmp_path), files)

    def test_from_the_official_site(self, files, tmp_path, monkeypatch, site):
        address, folder = site
        monkeypatch.setattr(fashion_mnist, "OFFICIAL_URL", address)
        self.publish(files, folder)
        self.check_loaded(load_dataset("fashion_mnist", tmp_path), files)

    @pytest.mark.parametrize("damage", [b"", b"half", "longer"])
    def test_a_damaged_cache_is_fetched_again(self, files, tmp_path, monkeypatch, damage):
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
        self.publish(files, tmp_path / "debian")
        load_dataset("fashion_mnist", tmp_path)
        cached = tmp_path / "datasets" / "fashion_mnist" / "train-images-idx3-ubyte"
        cached.write_bytes(cached.read_bytes() + b"x" if damage == "longer" else damage)
        self.check_loaded(load_dataset("fashion_mnist", tmp_path), files)
        assert cached.read_bytes() == files[cached.name]

    def test_a_wrong_source_is_passed_over(self, files, tmp_path, monkeypatch, site):
        address, folder = site
        monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
        monkeypatch.setattr(fashion_mnist, "OFFICIAL_URL", address)
        self.publish(dict.fromkeys(files, b"something else"), tmp_path / "debian")
        self.publish(files, folder)
        self.check_loaded(load_dataset("fashion_mnist", tmp_path), files)

    def test_the_error_lists_what_was_tried_and_the_remedy(self, files, tmp_path):
        with pytest.raises(DatasetUnavailableError) as caught:
            load_dataset("fashion_mnist", tmp_path)
        message = str(caught.value)
        assert "/nonexistent/fashion-mnist/train-images-idx3-ubyte.gz: No such file" in message
        assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in message
        assert "apt-get download espalier-no-such-package" in message
        assert "apt-get install" in message
        assert not list(tmp_path.glob("datasets/fashion_mnist/*"))


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs Debian's dpkg-deb")
def test_a_debian_package_is_unpacked_without_root(tmp_path, monkeypatch):
    """A package made here stands for the archive's; `apt-get` is a script that copies it."""
    content = tmp_path / "tree" / "usr" / "share" / "made"
    content.mkdir(parents=True)
    (content / "file").write_bytes(b"content")
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text("Package: made\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: made\n")
    subprocess.run(["dpkg-deb", "--build", tmp_path / "tree", tmp_path / "made_1_all.deb"], check=True)
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\ncp "{tmp_path}/$2_1_all.deb" .\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")

    fashion_mnist.unpack_debian_package("made", tmp_path / "cache" / "made")

    assert (tmp_path / "cache/made/usr/share/made/file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made"]
    with pytest.raises(SourceError, match="apt-get download other"):
        fashion_mnist.unpack_debian_package("other", tmp_path / "cache" / "other")


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_fashion_mnist_has_the_known_checksums(tmp_path):
    dataset = load_dataset("fashion_mnist", tmp_path)
    info = DATASETS["fashion_mnist"]
    assert (len(dataset.images), len(dataset.test_images)) == (info.images, info.test_images)
    assert np.bincount(dataset.labels).tolist() == [6000] * 10
    assert dataset.images.mean() / 255 == pytest.approx(info.mean[0], abs=1e-3)
    assert dataset.images.std() / 255 == pytest.approx(info.std[0], abs=1e-3)


def test_digits():
    dataset = load_dataset("digits", Path("unused"))
    assert (len(dataset.images), len(dataset.test_images)) == (1437, 360)
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)
    assert np.bincount(dataset.test_labels).min() > 30


class TestDigitsSource(DatasetSourceContract):
    def make_source(self) -> DatasetSource:
        return Digits()


class TestFashionMnistSource(DatasetSourceContract):
    def make_source(self) -> DatasetSource:
        return fashion_mnist.FashionMnist()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DatasetUnavailableError, match=r"no data set 'mnist' here; there are cifar10, cifar100, digits"):
        load_dataset("mnist", Path("unused"))


class TestCifar:
    INFO = DatasetInfo("made", "", 10, (3, 2, 2), (0.5,) * 3, (0.5,) * 3, 6, 2)

    def make(
        self, folder: Path, members: dict[str, bytes], url: str = "http://127.0.0.1:9/made.tar.gz"
    ) -> CifarArchive:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "made.tar.gz").write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        return CifarArchive(url, digest, ("in/1.bin", "in/2.bin"), ("in/test.bin",), label_bytes=2)

    def records(self, *labels: int) -> bytes:
        return b"".join(bytes([99, label, *range(label, label + 12)]) for label in labels)

    def members(self) -> dict[str, bytes]:
        others = {"../../evil": b"x", "/etc/evil": b"y"}
        return {"in/test.bin": self.records(9), "in/1.bin": self.records(0, 1, 2), "in/2.bin": self.records(3)} | others

    def test_records_in_the_order_of_the_members_named(self, tmp_path):
        archive = self.make(tmp_path / "cache", self.members())
        dataset = load_cifar(self.INFO, archive, tmp_path / "cache", ignore_progress)
        assert dataset.labels.tolist() == [0, 1, 2, 3]
        assert dataset.test_labels.tolist() == [9]
        assert dataset.images[1].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]]
        assert [path.name for path in tmp_path.rglob("*")] == ["cache", "made.tar.gz"]

    def test_downloaded_when_missing_and_again_when_damaged(self, tmp_path, site):
        address, folder = site
        archive = self.make(folder, self.members(), f"{address}/made.tar.gz")
        for damage in (None, b"half"):
            if damage is not None:
                (tmp_path / "cache" / "made.tar.gz").write_bytes(damage)
            assert len(load_cifar(self.INFO, archive, tmp_path / "cache", ignore_progress).labels) == 4

    def test_a_wrong_download_is_refused_and_not_kept(self, tmp_path, site):
        address, folder = site
        archive = self.make(folder, self.members(), f"{address}/made.tar.gz")
        (folder / "made.tar.gz").write_bytes(b"something else")
        with pytest.raises(DatasetUnavailableError, match="checksum"):
            load_cifar(self.INFO, archive, tmp_path / "cache", ignore_progress)
        assert not (tmp_path / "cache").exists()

    def test_offline_the_remedy_is_told(self, tmp_path):
        archive = self.make(tmp_path / "elsewhere", self.members())
        with pytest.raises(DatasetUnavailableError, match="put the archive there yourself"):
            load_cifar(self.INFO, archive, tmp_path / "cache", ignore_progress)

    @pytest.mark.parametrize("change", [{"in/1.bin": b"half a record"}, {"in/1.bin": None}])
    def test_an_archive_with_other_content_is_refused(self, tmp_path, change):
        members = {name: data for name, data in (self.members() | change).items() if data is not None}
        archive = self.make(tmp_path / "cache", members)
        with pytest.raises(DatasetUnavailableError, match=r"in/1.bin|whole number"):
            load_cifar(self.INFO, archive, tmp_path / "cache", ignore_progress)
