"""Archives that nobody means well with, or that somebody made in a hurry: each is refused, or told of, by its part."""

from __future__ import annotations

import gzip
import io
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.workers.own_data import classes, encode, make_npz, make_zip, notes, numbered, picture, png
from tests.workers.test_datasets import idx
from workers.datasets import archive as archive_module
from workers.datasets import contents as contents_module
from workers.datasets import indexing as indexing_module
from workers.datasets import picture as picture_module
from workers.datasets.index import Index
from workers.datasets.indexing import index_dataset
from workers.datasets.refusal import DatasetRefusedError

ENOUGH = classes({"cat": 20, "dog": 20})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "data.zip"


def index(*archives: Path, earlier: Index | None = None) -> Index:
    return index_dataset(archives, "mine", earlier)


def refusal(*archives: Path, earlier: Index | None = None) -> DatasetRefusedError:
    with pytest.raises(DatasetRefusedError) as caught:
        index(*archives, earlier=earlier)
    return caught.value


def check(error: DatasetRefusedError, part: str, message: str) -> None:
    """The first fault names its part, and says what is wrong and what would be right."""
    assert error.faults[0].part == part
    assert re.search(message, error.faults[0].message), error.faults[0].message


def left_out(path: Path) -> str:
    """Why the one file that cannot be read of a data set is left out."""
    told = notes(index(path))["unreadable"]
    assert told["count"] == 1
    reason: str = told["parts"][0]
    return reason


def png_header(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG that declares so many pixels and has these bytes for them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


class TestArchives:
    @pytest.mark.parametrize("data", [b"", b"some text", png(1), bytes(100), b"PK\x03\x04" + bytes(30)])
    def test_no_archive(self, archive, data):
        archive.write_bytes(data)
        check(refusal(archive), "the archive", r"is no zip file and no \.npz, or is cut short .*; send it again")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
    def test_cut_short(self, archive, share):
        whole = make_zip(archive, ENOUGH).read_bytes()
        archive.write_bytes(whole[: int(share * len(whole))])
        check(refusal(archive), "the archive", "is cut short .*; send it again")

    def test_a_damaged_member_is_left_out(self, archive):
        data = bytearray(make_zip(archive, ENOUGH | {"cat/bad.png": png(99)}, zipfile.ZIP_STORED).read_bytes())
        data[data.index(png(99)) + 50] ^= 1
        archive.write_bytes(data)
        assert re.match(r"cat/bad.png: is damaged in the archive \(Bad CRC-32.*\); pack it again", left_out(archive))

    def test_encrypted(self, archive):
        data = bytearray(make_zip(archive, {"cat/1.png": png(1)}).read_bytes())
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(data)
        check(refusal(archive), "cat/1.png", "is encrypted; pack the archive without a password")

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_methods_that_inflate_without_bounds(self, archive, method):
        make_zip(archive, {"cat/1.png": png(1)}, method)
        check(
            refusal(archive), "cat/1.png", "is compressed in a way that is not read here; pack with deflate, or store"
        )

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_names_twice(self, archive):
        with zipfile.ZipFile(archive, "w") as file:
            for seed in range(2):
                file.writestr("cat/1.png", png(seed))
        check(refusal(archive), "cat/1.png", "is in the archive twice; pack it again with each file once")

    def test_a_zip_in_a_zip(self, archive, tmp_path):
        inner = make_zip(tmp_path / "inner.zip", ENOUGH).read_bytes()
        assert left_out(make_zip(archive, ENOUGH | {"cat/inner.zip": inner})) == (
            "cat/inner.zip: is an archive in the archive; unpack it, and pack what is in it"
        )
        check(refusal(make_zip(archive, {"set/inner.zip": inner})), "set/inner.zip", "unpack it")

    def test_too_many_members(self, archive, monkeypatch):
        monkeypatch.setattr(archive_module, "MAX_MEMBERS", 39)
        check(refusal(make_zip(archive, ENOUGH)), "the archive", "holds 40 files; .* use several archives, or an .npz")

    def test_a_list_of_contents_is_not_read_when_it_is_too_long(self, archive, monkeypatch):
        monkeypatch.setattr(archive_module, "MAX_DIRECTORY_BYTES", 1000)
        check(
            refusal(make_zip(archive, ENOUGH)), "the archive", "holds too many files or too long names; .* use several"
        )

    def test_members_are_not_bound_by_the_limit_on_the_list(self, archive, monkeypatch):
        monkeypatch.setattr(archive_module, "MAX_DIRECTORY_BYTES", 4000)
        files = ENOUGH | {"cat/large.png": png(99, (100, 100))}
        assert len(index(make_zip(archive, files, zipfile.ZIP_STORED))) == 41

    def test_a_bomb_that_declares_what_it_is(self, archive):
        make_zip(archive, ENOUGH | {"cat/bomb.png": bytes(5_000_000)})
        check(refusal(archive), "cat/bomb.png", r"would inflate from 4,\d+ to 5,000,000 bytes; store it uncompressed")

    def test_many_small_bombs(self, archive):
        make_zip(archive, {f"cat/{number}.bmp": bytes(1_000_000) for number in range(30)})
        check(
            refusal(archive),
            "the archive",
            r"to 30,000,000 bytes; .* 200 times .* are allowed: make the images smaller",
        )

    def test_the_sum_is_bounded_whatever_the_ratio(self, archive, monkeypatch):
        monkeypatch.setattr(archive_module, "MAX_TOTAL_BYTES", 1000)
        check(refusal(make_zip(archive, ENOUGH)), "the archive", "1,000 bytes and 200 times .*use several archives")

    def test_damaged_names(self, archive):
        data = make_zip(archive, {"cat/\u00e9.png": png(1)}).read_bytes()
        archive.write_bytes(data.replace("\u00e9".encode(), b"\xff\xff"))
        check(refusal(archive), "the archive", "is no zip file .*; send it again")


BOMB_BYTES = 300_000_000


@pytest.fixture(scope="module")
def deflated() -> bytes:
    """Zeros, as they are stored in a zip file."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(pack.compress(bytes(1_000_000)) for _ in range(BOMB_BYTES // 1_000_000)) + pack.flush()


class TestMemory:
    """What an archive says of its sizes is not believed: memory is measured while it is refused."""

    def peak_bytes(self, work: Callable[[], Any]) -> int:
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    def zip_of(self, *members: tuple[str, bytes, int]) -> bytes:
        """A zip file of members of (name, deflated bytes, declared size)."""
        body, central = b"", b""
        for name, packed, declared in members:
            sizes = struct.pack("<LLL", 0, len(packed), declared)
            central += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 33) + sizes
            central += struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, len(body)) + name.encode()
            body += b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", len(name), 0)
            body += name.encode() + packed
        end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(central), len(body), 0)
        return body + central + b"PK\x05\x06" + end

    def test_an_image_that_declares_less_than_it_inflates_to(self, archive, deflated):
        archive.write_bytes(self.zip_of(("set/cat/1.png", deflated, 1000)))
        peak = self.peak_bytes(
            lambda: check(refusal(archive), "set/cat/1.png", "is damaged in the archive .*; pack it")
        )
        assert peak < 5_000_000

    def test_an_image_that_declares_more_than_it_may(self, archive, deflated):
        archive.write_bytes(self.zip_of(("set/cat/1.png", deflated, BOMB_BYTES)))
        peak = self.peak_bytes(
            lambda: check(refusal(archive), "set/cat/1.png", "would inflate .*; store it uncompressed")
        )
        assert peak < 5_000_000

    @pytest.mark.parametrize("long", ["images", "labels"])
    def test_arrays_that_declare_less_than_they_inflate_to(self, tmp_path, deflated, long):
        members = []
        for name, array in {"images": numbered(np.arange(40)), "labels": np.arange(40) % 2}.items():
            saved = io.BytesIO()
            np.save(saved, array)
            pack = zlib.compressobj(9, zlib.DEFLATED, -15)
            head = pack.compress(saved.getvalue()) + pack.flush(zlib.Z_FULL_FLUSH)
            packed = head + (deflated if name == long else pack.flush())
            members.append((f"{name}.npy", packed, len(saved.getvalue())))
        (tmp_path / "a.npz").write_bytes(self.zip_of(*members))
        peak = self.peak_bytes(lambda: check(refusal(tmp_path / "a.npz"), "images", r"is damaged .*Bad CRC.*; save it"))
        assert peak < 5_000_000

    def test_gzipped_labels_that_are_more_than_they_declare(self, archive):
        labels = gzip.compress(idx(np.zeros(40, np.uint8)) + bytes(50_000_000))
        files = {"images-idx3": idx(np.zeros((40, 5, 5), np.uint8)), "labels-idx1.gz": labels}
        make_zip(archive, files)
        peak = self.peak_bytes(
            lambda: check(
                refusal(archive), "labels-idx1.gz", "declares 40 labels and has another number; save it again"
            )
        )
        assert peak < 5_000_000

    def test_one_decoded_image_at_a_time(self, archive):
        """A process that may not have all decoded images in memory indexes them; Pillow's own memory is counted."""
        files = {
            f"{n % 2}/{n}.png": encode(Image.new("RGB", (1500, 1500), (n, n, n)), compress_level=1) for n in range(60)
        }
        make_zip(archive, files, zipfile.ZIP_STORED)
        code = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from workers.datasets.indexing import index_dataset\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000\n"
            "before = peak()\n"
            "assert len(index_dataset([Path(sys.argv[1])], 'mine')) == 60\n"
            "print(peak() - before)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(archive)], capture_output=True, text=True, check=True)
        # Decoded, an image is 9 MB in Pillow (4 bytes a pixel) and 7 MB more for its digest; all together are 540 MB.
        assert float(done.stdout) < 60


class TestImages:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "is empty; save it again, or take it out"),
            (b"some text", "is no PNG, JPEG, BMP, GIF, WebP or TIFF image; save it as one"),
            (b"%PDF-1.7 and so on", "is no PNG, JPEG"),
            (b"\x89PNG\r\n\x1a\n", "is no PNG, JPEG"),
            (png_header(8000, 8001), "has 8,000 x 8,001 pixels; up to 64,000,000 pixels are read: make it smaller"),
            (png_header(50_000, 50_000), "is too large .*: make it smaller"),
            (png_header(8, 8, b"short"), "is a damaged PNG image .*; save it again"),
            (encode(picture(1), "PPM"), "is no PNG, JPEG"),
            (encode(Image.new("F", (8, 8)), "TIFF"), "has pixels of kind 'F'; save it with 8 or 16 bits"),
            (encode(Image.new("I", (8, 8)), "TIFF"), "has pixels of kind 'I'; save it with 8 or 16 bits"),
        ],
    )
    def test_files_that_are_left_out(self, archive, data, reason):
        told = left_out(make_zip(archive, ENOUGH | {"cat/bad.png": data}))
        assert re.match(f"cat/bad.png: .*{reason}", told), told

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
    def test_truncated_images(self, archive, kind):
        whole = encode(picture(99, (64, 64)), kind)
        told = left_out(make_zip(archive, ENOUGH | {"cat/half": whole[: len(whole) // 2]}))
        assert re.match(r"cat/half: is (a damaged|no PNG, ).*; save it", told), told

    def test_the_bytes_tell_the_kind_and_not_the_name(self, archive):
        files = {f"{seed % 2}/{seed}.png": encode(picture(seed), "JPEG") for seed in range(40)}
        assert len(index(make_zip(archive, files))) == 40

    def test_a_large_file_is_not_read(self, archive, monkeypatch):
        monkeypatch.setattr("workers.datasets.image_files.MAX_FILE_BYTES", 1000)
        told = left_out(make_zip(archive, ENOUGH | {"cat/large.png": png(99, (100, 100))}))
        assert re.match(r"cat/large.png: has 30,\d+ bytes; 1,000 are read: make it smaller", told)

    def test_of_an_animation_the_first_frame_counts(self, archive):
        frames = [picture(seed).convert("P") for seed in range(200, 230)]
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        alone = encode(frames[0], "GIF")
        made = index(make_zip(archive, ENOUGH | {"cat/film.gif": data, "cat/still.gif": alone}))
        assert notes(made)["duplicates"]["parts"] == ["cat/still.gif"]

    def test_a_gif_that_declares_a_huge_screen(self, archive):
        data = encode(picture(1), "GIF")
        huge = data[:6] + struct.pack("<HH", 60_000, 60_000) + data[10:]
        assert "make it smaller" in left_out(make_zip(archive, ENOUGH | {"cat/huge.gif": huge}))

    def test_damaged_orientation_does_not_matter(self, archive):
        exif = Image.Exif()
        exif[0x112] = 6
        data = encode(picture(99), "JPEG", exif=exif)
        at = data.index(b"Exif\0\0") + 6
        assert len(index(make_zip(archive, ENOUGH | {"cat/1.jpg": data[:at] + b"XXXX" + data[at + 4 :]}))) == 41

    def test_mostly_unreadable_files_are_refused_and_the_first_are_named(self, archive):
        bad = {f"cat/bad{number:03}.png": b"" for number in range(60)}
        error = refusal(make_zip(archive, ENOUGH | bad))
        check(error, "cat/bad000.png", "is empty; save it again")
        assert (len(error.faults), error.count) == (50, 60)
        assert str(error).endswith("cat/bad049.png: is empty; save it again, or take it out\nand 10 more")


class TestLabels:
    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, "it holds no folders of images; put the images of each class in a folder"),
            ({"1.png": png(1), "2.png": png(2)}, "it holds no folders of images; put"),
            ({"train/1.png": png(1), "test/2.png": png(2)}, "the folders of its parts hold no folders; put the images"),
            (classes({"cat": 40}), "has the one class 'cat'; add images of what it is to be told from"),
            (classes({"cat": 40, "empty": 0}) | {"dog/": b""}, "has the one class 'cat'; add"),
            (classes({"cat": 2, "dog": 1}), "has 3 different images to train with; add some, to 30"),
            (
                classes({str(n): 1 for n in range(40)}),
                "no class with enough images for the split calibrate; add images",
            ),
            (classes({"test/cat": 20, "test/dog": 20}), "has 0 different images to train with; add some"),
            (dict.fromkeys(classes({"cat": 40, "dog": 40}), png(1)), "has 0 different images"),
            (classes({"cat": 20, "d\x07g": 20}), r"the class 'd\\x07g' has no printable name .*; rename it"),
            (classes({"cat": 20, "d" * 101: 20}), "has no printable name of 1 to 100 letters; rename it"),
        ],
    )
    def test_folders(self, archive, files, message):
        check(refusal(make_zip(archive, files)), "the archive", message)

    def test_folders_that_may_be_parts_or_classes(self, archive):
        files = classes({"train/cat": 20, "train/dog": 20, "extra": 20})
        message = "stands beside the folder 'extra'; take that out, or rename this one if it is a class"
        check(refusal(make_zip(archive, files)), "train/", message)

    def test_classes_for_testing_only(self, archive):
        files = classes({"train/cat": 20, "train/dog": 20, "test/cat": 5, "test/emu": 5})
        check(refusal(make_zip(archive, files)), "class emu", "has images for testing only; add some to train with")

    def test_too_many_classes(self, archive, monkeypatch):
        monkeypatch.setattr(contents_module, "MAX_CLASSES", 3)
        files = classes({str(number): 10 for number in range(4)})
        check(refusal(make_zip(archive, files)), "the archive", "gives 4 classes, of at most 3; are the labels")

    def test_too_many_images(self, archive, monkeypatch):
        monkeypatch.setattr(indexing_module, "MAX_IMAGES", 39)
        check(refusal(make_zip(archive, ENOUGH)), "the archive", "makes 40 images; leave out some, 39 are allowed")

    @pytest.mark.parametrize(
        ("table", "part", "message"),
        [
            ("1.png\n", "labels.csv, line 1", "has 1 columns; write the path, a comma and the label"),
            ("1.png,a\n../2.png,b\n", "labels.csv, line 2", "'../2.png' leads elsewhere; name images by their place"),
            ("/1.png,a\n", "labels.csv, line 1", "leads elsewhere"),
            ("1.png,a\n1.png,b\n", "labels.csv, line 2", "1.png stands in line 1 already; keep one"),
            ("path,value\n1.png,many\n", "labels.csv, line 2", "'many' is no number that can be learned; write"),
            ("1.png,a\n8.png,b\n9.png,b\n", "labels.csv, line 2", "there is no 8.png; add it, or take the line out"),
            (
                "".join(f"{n}.png,2.5\n" for n in range(40)),
                "the archive",
                "has the value 2.5 for all images; give them",
            ),
            ("".join(f"{n}.png,\a{n % 2}\n" for n in range(40)), "labels.csv", "has no printable name .*; rename it"),
            ("", "labels.csv, line 1", "there are no rows; write one line for each image"),
        ],
    )
    def test_tables(self, archive, table, part, message):
        files = {f"{seed}.png": png(seed) for seed in range(8 if "8.png" in table and "9.png,b" in table else 40)}
        check(refusal(make_zip(archive, files | {"labels.csv": table.encode()})), part, message)

    def test_a_table_that_is_too_long(self, archive, monkeypatch):
        monkeypatch.setattr("workers.datasets.image_table.MAX_TABLE_BYTES", 10)
        files = {"1.png": png(1), "labels.csv": b"1.png,something\n"}
        check(refusal(make_zip(archive, files)), "labels.csv", "has 16 bytes; 10 are read: make it smaller")

    def test_all_faults_of_a_table_are_told(self, archive):
        table = "".join(f"../{number}.png,a\n" for number in range(70))
        error = refusal(make_zip(archive, {"1.png": png(1), "labels.csv": table.encode()}))
        assert (len(error.faults), error.count) == (50, 70)

    def test_values_are_not_added_to_classes(self, archive, tmp_path):
        old = index(make_zip(archive, ENOUGH))
        values = make_npz(tmp_path / "a.npz", numbered(np.arange(40)), np.arange(40) / 7)
        check(
            refusal(archive, values, earlier=old),
            "the archive",
            "has values where the data set has classes.*keep them apart",
        )


class TestArrays:
    IMAGES = numbered(np.arange(40))
    LABELS = np.arange(40) % 2

    @pytest.mark.parametrize(
        ("arrays", "part", "message"),
        [
            ({"images": IMAGES / 255}, "images", r"are float64; .* such as \(images \* 255\)\.astype\(np.uint8\)"),
            ({"images": IMAGES.astype(np.int64)}, "images", "are int64; scale them to 0 to 255 and save them as uint8"),
            ({"images": IMAGES[:, 0]}, "images", r"has the shape \(40, 2\); make it \(images, height, width\)"),
            ({"images": np.zeros((40, 3, 8, 8), np.uint8)}, "images", "with 1, 3 or 4 channels, which come last"),
            ({"images": np.zeros((40, 0, 8), np.uint8)}, "images", r"has images of \(0, 8\) pixels; make them 1 to"),
            (
                {"images": np.zeros((0, 8, 8), np.uint8), "labels": LABELS[:0]},
                "the archive",
                "has no images; put some in",
            ),
            ({"images": np.asfortranarray(np.zeros((40, 8, 8), np.uint8))}, "images", "np.ascontiguousarray"),
            ({"images": np.array([object()] * 40)}, "images", "holds Python objects, .*; save it as uint8"),
            ({"labels": np.array(["a", 1] * 20, object)}, "labels", "holds Python objects, .* integers or floats"),
            (
                {"labels": np.array(["a", "b"] * 20)},
                "labels",
                "are <U1; save integers for classes, or floats for values",
            ),
            ({"labels": LABELS == 1}, "labels", "are bool; save integers"),
            ({"labels": LABELS[:39]}, "labels", r"have the shape \(39,\) for 40 images; save one label for each image"),
            ({"labels": LABELS[:, None]}, "labels", r"have the shape \(40, 1\)"),
            ({"labels": np.where(LABELS, np.nan, 1.0)}, "labels, row 1", "nan is no number that can be learned; leave"),
            ({"labels": np.where(LABELS, 1e300, 1.0)}, "labels, row 1", r"1e\+300 is no number"),
            (
                {"class_names": np.array(["a"])},
                "labels",
                "the label 1 has no name: there are 1 class_names, counted from 0",
            ),
            ({"class_names": np.array(["a", "a"])}, "class_names", "have a name twice; give each class a name"),
            (
                {"class_names": np.array([1, 2])},
                "class_names",
                r"are int64 of the shape \(2,\); save a list of strings",
            ),
            ({"class_names": np.array([None, 2])}, "class_names", "holds Python objects, .*; save it as strings"),
            ({"test_images": IMAGES}, "the archive", "has no array 'test_labels'; add it"),
            ({"test_labels": LABELS}, "the archive", "has no array 'test_images'; add it"),
            (
                {"test_images": IMAGES, "test_labels": LABELS / 2},
                "test_labels",
                "are of another kind than labels; make both integers",
            ),
        ],
    )
    def test_npz(self, tmp_path, arrays, part, message):
        np.savez(tmp_path / "a.npz", **{"images": self.IMAGES, "labels": self.LABELS} | arrays)
        check(refusal(tmp_path / "a.npz"), part, message)

    def test_arrays_by_other_names(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=self.IMAGES, y=self.LABELS)
        message = "has the arrays x, y; call the pixels 'images' and what they show 'labels'"
        check(refusal(tmp_path / "a.npz"), "the archive", message)

    @pytest.mark.parametrize("letter", [b"\xff\xff\xff\x7f", b"\x00\xd8\x00\x00"])
    def test_names_of_letters_that_there_are_not(self, tmp_path, letter):
        data = make_npz(tmp_path / "a.npz", self.IMAGES, self.LABELS, class_names=np.array(["a", "b"])).read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        members["class_names.npy"] = members["class_names.npy"].replace("b".encode("utf-32-le"), letter)
        message = r"are no text \(.*\); save a list of strings"
        check(refusal(make_zip(tmp_path / "b.npz", members)), "class_names", message)

    @pytest.mark.parametrize("shape", ["(41, 1, 2)", "(99999999999, 1, 2)", "(39, 1, 2)"])
    def test_an_array_that_declares_another_size(self, tmp_path, shape):
        data = io.BytesIO()
        np.save(data, self.IMAGES)
        old = b"(40, 1, 2), }" + b" " * 12
        assert old in data.getvalue()
        changed = data.getvalue().replace(old, f"{shape}, }}".encode().ljust(len(old)))
        labels = io.BytesIO()
        np.save(labels, self.LABELS)
        make_zip(tmp_path / "a.npz", {"images.npy": changed, "labels.npy": labels.getvalue()})
        check(refusal(tmp_path / "a.npz"), "images", r"declares [\d,]+ bytes and has 208; save it and send it again")

    @pytest.mark.parametrize("data", [b"", b"text", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, b"\x93NUMPY\x09\x00"])
    def test_a_header_that_cannot_be_read(self, tmp_path, data):
        make_zip(tmp_path / "a.npz", {"images.npy": data, "labels.npy": data})
        check(refusal(tmp_path / "a.npz"), "images", r"cannot be read as an array .*; save it with np\.savez")

    def test_a_damaged_array(self, tmp_path):
        images = np.random.default_rng(0).integers(256, size=(40, 50, 50)).astype(np.uint8)
        data = bytearray(make_npz(tmp_path / "a.npz", images, self.LABELS).read_bytes())
        data[data.index(images[30].tobytes()[:100])] ^= 1
        (tmp_path / "a.npz").write_bytes(data)
        check(refusal(tmp_path / "a.npz"), "images", r"is damaged .*\(Bad CRC-32.*\); save it and send it again")

    @pytest.mark.parametrize(
        ("changes", "part", "message"),
        [
            ({"images-idx3": b"text"}, "images-idx3", "cannot be read .*begins with 74657874.*; pack it again"),
            ({"images-idx3": idx(IMAGES)[:-1]}, "images-idx3", "declares 96 bytes and has 95; send it again"),
            ({"images-idx3": idx(IMAGES) + b"x"}, "images-idx3", "declares 96 bytes and has 97; send it again"),
            (
                {"images-idx3": idx(IMAGES[:, 0])},
                "images-idx3",
                r"declares the shape \(40, 2\); make it \(images, height, width\)",
            ),
            (
                {"labels-idx1": idx(LABELS[:39].astype(np.uint8))},
                "labels-idx1",
                r"shape \(39,\) for 40 images; save one label",
            ),
            (
                {"images-idx3": gzip.compress(idx(IMAGES)[:-1])},
                "images-idx3",
                r"is damaged at row 39 \(it ends there\); save",
            ),
            ({"images-idx3": gzip.compress(idx(IMAGES) + b"x")}, "images-idx3", "it goes on after the last row"),
            (
                {"images-idx3": gzip.compress(idx(IMAGES))[:-10]},
                "images-idx3",
                "is damaged at row .*; save it and send",
            ),
            (
                {"images-idx3": gzip.compress(idx(np.zeros((40, 9999, 999), np.uint8)))},
                "images-idx3",
                "declares 399,560,056 bytes",
            ),
            ({"t10k-images-idx3": idx(IMAGES)}, "the archive", "has no file of test_labels in IDX format; add it"),
            (
                {"more/images-idx3": idx(IMAGES)},
                "more/images-idx3",
                "is a second file of images; take out one of the two",
            ),
        ],
    )
    def test_idx(self, archive, changes, part, message):
        files = {"images-idx3": idx(self.IMAGES), "labels-idx1": idx(self.LABELS.astype(np.uint8))}
        check(refusal(make_zip(archive, files | changes)), part, message)

    def test_too_many_rows(self, tmp_path, monkeypatch):
        monkeypatch.setattr("workers.datasets.array_rows.MAX_IMAGES", 39)
        path = make_npz(tmp_path / "a.npz", self.IMAGES, self.LABELS)
        check(refusal(path), "images", "has 40 images; leave out some, 39 are allowed")


def test_the_limits_are_those_that_are_told():
    assert archive_module.MAX_MEMBERS == 250_000
    assert picture_module.MAX_PIXELS == 64_000_000


def valid_members() -> dict[str, dict[str, bytes]]:
    """What is in a small archive of each format, with one image of each kind."""
    arrays = {"images": numbered(np.arange(40)), "labels": np.arange(40) % 2, "class_names": np.array(["a", "b"])}
    npz = {f"{name}.npy": io.BytesIO() for name in arrays}
    for array, file in zip(arrays.values(), npz.values(), strict=True):
        np.save(file, array)
    table = "".join(f"{seed}.png,{seed % 2}\n" for seed in range(40)).encode()
    kinds = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
    labels = gzip.compress(idx(arrays["labels"].astype(np.uint8)), mtime=0)
    return {
        "folder": ENOUGH | {f"cat/{kind}": encode(picture(500, (9, 9)), kind) for kind in kinds},
        "table": {"labels.csv": table} | {f"{seed}.png": png(seed) for seed in range(40)},
        "idx": {"images-idx3": idx(arrays["images"]), "labels-idx1": labels},
        "npz": {name: file.getvalue() for name, file in npz.items()},
    }


def changed(data: bytes, generator: np.random.Generator) -> bytes:
    """A few bytes are others, and some may be missing."""
    out = bytearray(data)
    for at in generator.integers(len(out), size=int(generator.integers(1, 9))).tolist():
        out[at] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF, int(generator.integers(256))]))
    if generator.random() < 0.2:
        cut = int(generator.integers(len(out)))
        del out[cut : cut + int(generator.integers(1, 100))]
    return bytes(out)


@pytest.mark.parametrize("members", valid_members().values(), ids=valid_members())
@pytest.mark.parametrize("within", [False, True], ids=["archive", "member"])
def test_whatever_is_changed_it_is_indexed_or_refused(members, within, tmp_path):
    """Nothing but the refusal is ever raised, whether the archive itself is changed or a file before it is packed."""

    @given(st.integers(0, 2**64))
    @settings(max_examples=50, deadline=None)
    def check_one(seed: int) -> None:
        generator = np.random.default_rng(seed)
        victim = list(members)[int(generator.integers(len(members)))]
        files = members | ({victim: changed(members[victim], generator)} if within else {})
        path = make_zip(tmp_path / "data", files, zipfile.ZIP_STORED)
        if not within:
            path.write_bytes(changed(path.read_bytes(), generator))
        try:
            index(path)
        except DatasetRefusedError as refused:
            faults = refused.faults
        else:
            return
        assert faults
        assert all(fault.part and fault.message for fault in faults)

    check_one()
