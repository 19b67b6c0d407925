"""From pixels in a file to what a network is fed: conversion, geometry, rendered files, training, previews."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search_spaces.network import InputContract, Interpolation, Network, Node, Op
from tests.workers.own_data import classes, encode, make_npz, make_zip, numbered, picture, png
from tests.workers.torch_accuracy import accuracy
from workers.batches import draw_batches
from workers.datasets import geometry, watch
from workers.datasets.dataset import DatasetUnavailableError
from workers.datasets.geometry import Window, find_window, fit
from workers.datasets.index import Index
from workers.datasets.indexing import index_dataset
from workers.datasets.picture import picture_digest, picture_of, read_picture
from workers.datasets.preview import preview
from workers.datasets.refusal import DatasetRefusedError
from workers.datasets.render import render, render_key
from workers.progress import ignore_progress
from workers.recipe import Recipe
from workers.splits import Split, normalise
from workers.train import train

GREY_8 = InputContract((1, 8, 8), (0.5,), (0.25,))
COLOUR_8 = InputContract((3, 8, 8), (0.5,) * 3, (0.25,) * 3)


def contract(channels: int, height: int, width: int, resize: int = 0, **options: Interpolation) -> InputContract:
    return InputContract((channels, height, width), (0.5,) * channels, (0.25,) * channels, resize, **options)


class TestConversion:
    """Known pixels in, known pixels out."""

    def pixel(self, image: Image.Image, kind: str = "PNG", **options: object) -> object:
        read = read_picture(encode(image, kind, **options)).image
        return read.mode, read.getpixel((0, 0))

    def test_grey_and_colour_stay_as_they_are(self):
        assert self.pixel(Image.new("L", (4, 4), 77)) == ("L", 77)
        assert self.pixel(Image.new("RGB", (4, 4), (1, 2, 3))) == ("RGB", (1, 2, 3))

    def test_black_and_white_is_grey_and_a_palette_is_colour(self):
        assert self.pixel(Image.new("1", (4, 4), 1)) == ("L", 255)
        assert self.pixel(Image.new("RGB", (4, 4), (1, 2, 3)).quantize(2)) == ("RGB", (1, 2, 3))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_the_upper_8_of_16_bits_are_kept(self, kind):
        values = np.full((4, 4), 0xABCD, dtype=np.uint16)
        assert self.pixel(Image.fromarray(values), kind) == ("L", 0xAB)

    def test_inks_become_light(self):
        assert self.pixel(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF") == ("RGB", (0, 255, 255))

    def test_what_is_transparent_is_laid_on_white(self):
        assert self.pixel(Image.new("RGBA", (4, 4), (10, 20, 30, 0))) == ("RGB", (255, 255, 255))
        assert self.pixel(Image.new("RGBA", (4, 4), (10, 20, 30, 255))) == ("RGB", (10, 20, 30))
        assert self.pixel(Image.new("RGBA", (4, 4), (0, 0, 0, 102))) == ("RGB", (153, 153, 153))
        assert self.pixel(Image.new("LA", (4, 4), (0, 102))) == ("L", 153)

    def test_a_colour_that_stands_for_transparency_is_laid_on_white_too(self):
        assert self.pixel(Image.new("L", (4, 4), 7), transparency=7) == ("L", 255)
        assert self.pixel(Image.new("RGB", (4, 4), (7, 8, 9)), transparency=(7, 8, 9)) == ("RGB", (255, 255, 255))
        palette = Image.new("RGB", (4, 4), (1, 2, 3)).quantize(2)
        assert self.pixel(palette, transparency=palette.getpixel((0, 0))) == ("RGB", (255, 255, 255))

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_images_are_upright_whichever_way_the_camera_was_held(self, kind, orientation):
        upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.T,
            6: np.rot90(upright),
            7: upright[::-1, ::-1].T,
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x112] = orientation
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(Image.fromarray(np.ascontiguousarray(stored)).convert("RGB"), kind, exif=exif, **options)
        assert np.array_equal(np.asarray(read_picture(data).image)[:, :, 0], upright)

    def test_digests_are_of_mode_size_and_pixels(self):
        image = picture(1, (6, 4))
        digest = picture_digest(image)
        assert picture_digest(read_picture(encode(image, "BMP")).image) == digest
        assert picture_digest(picture_of(np.asarray(image)).image) == digest
        others = [image.transpose(Image.Transpose.ROTATE_90), image.convert("L"), picture(2, (6, 4))]
        zeros = [Image.new("L", (12, 1)), Image.new("L", (6, 2)), Image.new("RGB", (2, 2))]
        assert len({digest, *map(picture_digest, others), *map(picture_digest, zeros)}) == 7


class TestGeometry:
    @pytest.mark.parametrize(
        ("size", "wanted", "window"),
        [
            # torchvision: Resize(256), CenterCrop(224)
            ((640, 480), contract(3, 224, 224, 256), Window((341, 256), 58, 16)),
            ((480, 640), contract(3, 224, 224, 256), Window((256, 341), 16, 58)),
            ((100, 100), contract(3, 224, 224, 256), Window((256, 256), 16, 16)),
            ((333, 500), contract(3, 224, 224, 256), Window((256, 384), 16, 80)),
            # no more than is needed to cover
            ((640, 480), contract(3, 224, 224), Window((298, 224), 37, 0)),
            ((640, 480), contract(3, 100, 200), Window((200, 150), 0, 25)),
            ((480, 640), contract(3, 100, 200), Window((200, 266), 0, 83)),
            ((5, 3), contract(1, 8, 8), Window((13, 8), 2, 0)),
            # the shorter side would be too short
            ((640, 480), contract(3, 224, 224, 200), Window((298, 224), 37, 0)),
            ((300, 300), contract(3, 100, 400, 256), Window((400, 400), 0, 150)),
            # halves of a pixel go to the even side
            ((9, 8), contract(1, 8, 8), Window((9, 8), 0, 0)),
            ((11, 8), contract(1, 8, 8), Window((11, 8), 2, 0)),
            ((1, 64_000_000), contract(3, 224, 224), Window((224, 14_336_000_000), 0, 7_167_999_888)),
        ],
    )
    def test_known_windows(self, size, wanted, window):
        assert find_window(size, wanted) == window

    @given(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.integers(0, 60),
        st.sampled_from(Interpolation),
    )
    @settings(deadline=None)
    def test_it_is_resizing_the_whole_image_and_cutting_out_its_middle(self, size, wanted, resize, interpolation):
        """To the bit, whatever the sizes."""
        image = picture(1, size)
        rule = contract(3, *wanted, resize, interpolation=interpolation)
        height, width = wanted
        result = fit(image, rule)
        assert result.size == (width, height)
        if size == (width, height):
            assert result == image
            return
        window = find_window(size, rule)
        assert min(window.left, window.top) >= 0
        assert window.size[0] >= window.left + width
        assert window.size[1] >= window.top + height
        filters = {Interpolation.BILINEAR: Image.Resampling.BILINEAR, Interpolation.BICUBIC: Image.Resampling.BICUBIC}
        whole = image.resize(window.size, filters[interpolation])
        cut = whole.crop((window.left, window.top, window.left + width, window.top + height))
        assert result == cut

    def test_proportions_stay(self):
        """A square in the middle of a wide image is still one."""
        image = Image.new("L", (400, 200))
        image.paste(255, (160, 60, 240, 140))
        seen = np.asarray(fit(image, contract(1, 50, 50, 100))) > 127
        assert (
            np.flatnonzero(seen.any(axis=0)).tolist() == np.flatnonzero(seen.any(axis=1)).tolist() == list(range(5, 45))
        )

    def test_making_smaller_is_antialiased(self):
        stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
        seen = np.asarray(fit(stripes, contract(1, 8, 8)))
        assert 120 <= seen.min() <= seen.max() <= 135

    def test_channels(self):
        assert fit(Image.new("L", (9, 9), 7), COLOUR_8).getpixel((0, 0)) == (7, 7, 7)
        assert fit(Image.new("RGB", (9, 9), (255, 0, 0)), GREY_8).getpixel((0, 0)) == 76  # ITU-R 601
        with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
            fit(Image.new("L", (9, 9)), contract(4, 8, 8))

    def test_of_a_long_strip_only_what_is_seen_is_computed(self, monkeypatch):
        strip, rule = picture(1, (300, 20)), contract(3, 30, 30, 40)
        whole = np.asarray(fit(strip, rule), int)
        monkeypatch.setattr(geometry, "_LARGEST_RESIZED", 1000)
        assert np.abs(np.asarray(fit(strip, rule), int) - whole).max() <= 2

    def test_a_strip_of_any_length_takes_little_memory(self):
        code = (
            "import resource\nfrom PIL import Image\nfrom search_spaces.network import InputContract\n"
            "from workers.datasets.geometry import fit\n"
            "strip = Image.new('L', (20_000_000, 1))\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "fit(strip, InputContract((1, 224, 224), (0.0,), (1.0,), 256))\n"
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert float(done.stdout) < 10


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Photos of several sizes, with a test set."""
    files = {f"train/{n % 2}/{n}.png": png(n, (10 + n % 5, 12)) for n in range(80)}
    return make_zip(tmp_path / "data.zip", files | {f"test/{n % 2}/{n}.png": png(n, (20, 10)) for n in range(100, 110)})


@pytest.fixture
def index(archive: Path) -> Index:
    return index_dataset([archive], "mine")


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock"}


class TestRendering:
    def test_each_row_is_its_image_in_the_order_of_digests(self, archive, index, tmp_path):
        splits = render(index, [archive], COLOUR_8, tmp_path / "rendered")
        sizes = [len(getattr(splits, name)) for name in ("train", "calibrate", "score", "confirm", "test")]
        assert sizes == [46, 8, 13, 13, 10]
        by_digest = {picture_digest(image): image for image in (picture(n, (10 + n % 5, 12)) for n in range(80))}
        rows = np.flatnonzero(index.splits == 0)
        for image, row in zip(splits.train.images, rows, strict=True):
            expected = fit(by_digest[int(index.rows.digests[row])], COLOUR_8)
            assert np.array_equal(image, np.asarray(expected).transpose(2, 0, 1))
        assert np.array_equal(splits.train.labels, index.rows.labels[rows])
        assert (splits.dataset, splits.dropped) == ("mine", 0)

    def test_images_are_mapped_and_cannot_be_written(self, archive, index, tmp_path):
        images = render(index, [archive], GREY_8, tmp_path).train.images
        assert isinstance(images, np.memmap)
        assert not images.flags.writeable

    def test_done_once(self, archive, index, tmp_path):
        first = render(index, [archive], GREY_8, tmp_path / "rendered")
        archive.unlink()
        again = render(index, [archive], GREY_8, tmp_path / "rendered")
        assert again.digests() == first.digests()
        assert np.array_equal(again.score.images, first.score.images)

    def test_normalisation_does_not_make_other_files_and_geometry_does(self, archive, index, tmp_path):
        splits = render(index, [archive], GREY_8, tmp_path / "rendered")
        others = [
            replace(GREY_8, shape=(1, 8, 9)),
            replace(GREY_8, resize=9),
            replace(GREY_8, resize=9, interpolation=Interpolation.BICUBIC),
            COLOUR_8,
        ]
        assert len({render_key(index, rule) for rule in (GREY_8, *others)}) == 5
        assert render_key(index, replace(GREY_8, mean=(0.1,), std=(0.2,))) == render_key(index, GREY_8)
        other = render(index, [archive], others[0], tmp_path / "rendered")  # the same images in other shapes
        assert other.train.digest != splits.train.digest
        assert len(set(splits.digests().values())) == 5

    @pytest.mark.parametrize(
        "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])]
    )
    def test_what_is_damaged_is_made_again(self, archive, index, tmp_path, damage):
        splits = render(index, [archive], GREY_8, tmp_path / "rendered")
        whole = np.array(splits.train.images)
        damage(tmp_path / "rendered" / render_key(index, GREY_8) / "train.npy")
        assert np.array_equal(render(index, [archive], GREY_8, tmp_path / "rendered").train.images, whole)

    def test_arrays_and_added_archives(self, tmp_path):
        paths = [
            make_npz(tmp_path / "a.npz", numbered(np.arange(60)), np.arange(60) % 2),
            make_npz(tmp_path / "b.npz", numbered(np.arange(100, 160)), np.arange(60) % 2),
        ]
        made = index_dataset(paths, "mine", index_dataset(paths[:1], "mine"))
        splits = render(made, paths, InputContract((1, 1, 2), (0.5,), (0.5,)), tmp_path / "rendered")
        seen = np.concatenate(
            [split.images for split in (splits.train, splits.calibrate, splits.score, splits.confirm)]
        )
        assert sorted((seen[:, 0, 0, 0].astype(int) * 256 + seen[:, 0, 0, 1]).tolist()) == [
            *range(60),
            *range(100, 160),
        ]
        assert len(splits.test) == 0
        assert splits.test.images.shape == (0, 1, 1, 2)

    def test_values_are_labels(self, tmp_path):
        path = make_npz(tmp_path / "a.npz", numbered(np.arange(60)), np.arange(60) / 8)
        splits = render(index_dataset([path], "mine"), [path], InputContract((1, 1, 2), (0.5,), (0.5,)), tmp_path / "r")
        assert splits.train.labels.dtype == np.float32
        for image, label in zip(splits.train.images, splits.train.labels, strict=True):
            assert label == image[0, 0, 1] / 8

    def test_archives_that_have_changed_are_noticed(self, archive, index, tmp_path):
        changed = {f"train/{n % 2}/{n}.png": png(n + 1, (10 + n % 5, 12)) for n in range(80)}
        make_zip(archive, changed | {f"test/{n % 2}/{n}.png": png(n, (20, 10)) for n in range(100, 110)})
        with pytest.raises(DatasetUnavailableError, match="archive 1 of mine is not what was indexed; hand"):
            render(index, [archive], GREY_8, tmp_path / "rendered")
        archive.write_bytes(b"")
        with pytest.raises(DatasetRefusedError, match=r"is no zip file .*; send it again"):
            render(index, [archive], GREY_8, tmp_path / "rendered")
        archive.unlink()
        with pytest.raises(DatasetUnavailableError, match="archive 1 of mine is missing; hand it over again"):
            render(index, [archive], GREY_8, tmp_path / "rendered")
        assert tree(tmp_path / "rendered") == set()

    def test_a_full_disk_is_told_before_anything_is_written(self, archive, index, tmp_path, monkeypatch):
        def full(*_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DatasetUnavailableError, match=r"no room for 0\.0 GB of images .*; free some"):
            render(index, [archive], GREY_8, tmp_path / "rendered")
        assert tree(tmp_path / "rendered") == set()

    def test_progress_tells_the_share(self, archive, index, tmp_path):
        seen: list[tuple[str, float, str]] = []
        render(index, [archive], GREY_8, tmp_path / "rendered", lambda *told: seen.append(told))
        assert seen[-1][:2] == ("render", 1.0)

    def test_memory_does_not_grow_with_the_data_set(self, tmp_path):
        """20 MB of pixels, of which Python sees less than a tenth at a time."""
        images = np.random.default_rng(0).integers(256, size=(100, 256, 256, 3), dtype=np.uint8)
        path = make_npz(tmp_path / "a.npz", images, np.arange(100) % 2)
        made = index_dataset([path], "mine")
        tracemalloc.start()
        render(made, [path], contract(3, 256, 256), tmp_path / "rendered")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000


def render_slowly(path: Path, folder: Path, begun: multiprocessing.Queue[int]) -> None:
    """Render, and tell when it has begun; too slow to end by itself."""

    def progress(stage: str, done: float, message: str) -> None:
        begun.put(1)
        time.sleep(60)

    watch._EVERY_S = 0.0
    render(index_dataset([path], "mine"), [path], GREY_8, folder, lambda *told: told[0] == "render" and progress(*told))


class TestBeingKilled:
    def test_a_killed_render_leaves_nothing_that_looks_whole(self, archive, index, tmp_path):
        folder = tmp_path / "rendered"
        context = multiprocessing.get_context("fork")
        begun: multiprocessing.Queue[int] = context.Queue()
        process = context.Process(target=render_slowly, args=(archive, folder, begun))
        process.start()
        begun.get(timeout=30)
        process.kill()
        process.join()
        left = tree(folder)
        assert left
        assert all(name.startswith(".") for name in left)
        splits = render(index, [archive], GREY_8, folder)
        assert len(splits.train) == 46
        assert not any(name.startswith(".") for name in tree(folder))


class TestSplitsFromFiles:
    @pytest.fixture
    def split(self, archive: Path, index: Index, tmp_path: Path) -> Split:
        return render(index, [archive], COLOUR_8, tmp_path / "rendered").train

    def test_parts_of_it_are_no_copies(self, split):
        assert split.first(10).images.base is not None
        assert np.shares_memory(split.first(10).images, split.images)

    def test_rows_are_copies_that_may_be_written(self, split):
        images, labels = split.take(np.array([3, 1]))
        images[:] = 0
        labels[:] = 9
        assert split.images[3].any()
        assert split.labels[3] != 9

    def test_batches_are_the_same_as_from_memory_and_nothing_warns(self, split):
        in_memory = Split(split.name, np.array(split.images), split.labels, split.digest)
        recipe = Recipe(epochs=2, batch_size=16, shift_pixels=1, flip=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for one, other in zip(
                draw_batches(split, COLOUR_8, recipe, 6), draw_batches(in_memory, COLOUR_8, recipe, 6), strict=True
            ):
                assert one[0].equal(other[0])
                assert one[1].equal(other[1])

    def test_values_are_drawn_as_they_are(self):
        split = Split("train", np.zeros((8, 1, 2, 2), np.uint8), np.arange(8, dtype=np.float32) / 3, "")
        ((_, labels),) = draw_batches(split, GREY_8, Recipe(epochs=1, batch_size=8), 1)
        assert sorted(labels.tolist()) == pytest.approx((np.arange(8) / 3).tolist())

    def test_a_network_learns_from_them(self, tmp_path):
        """Dark against bright, in photos of any size."""
        shade = {0: 60, 1: 190}
        files = {
            f"{n % 2}/{n}.png": encode(Image.new("RGB", (9 + n % 7, 9), (shade[n % 2] + n // 2, 90, n)))
            for n in range(100)
        }
        path = make_zip(tmp_path / "data.zip", files)
        splits = render(index_dataset([path], "mine"), [path], COLOUR_8, tmp_path / "rendered")
        nodes = (
            Node("x", Op.INPUT),
            Node("c", Op.CONV, ("x",), channels=4, kernel=(3, 3), padding=(1, 1, 1, 1)),
            Node("p", Op.GLOBAL_AVERAGE_POOL, ("c",)),
            Node("f", Op.FLATTEN, ("p",)),
            Node("l", Op.LINEAR, ("f",), channels=2, bias=True),
        )
        network = Network("n", COLOUR_8, nodes, "l")
        weights = train(network, None, splits.train, Recipe(epochs=15, batch_size=16), ignore_progress, lambda: None)
        assert accuracy(network, weights, splits.score) > 0.9
        assert normalise(splits.score.images, COLOUR_8).dtype == np.float32


class TestPreviews:
    def sheets(self, data: dict[str, bytes]) -> dict[str, Image.Image]:
        return {name: Image.open(io.BytesIO(sheet), formats=["PNG"]) for name, sheet in data.items()}

    def test_a_row_for_each_class(self, archive, index):
        sheets = self.sheets(preview(index, [archive], per_class=4, size=16))
        assert list(sheets) == ["0", "1"]
        assert {sheet.size for sheet in sheets.values()} == {(4 * 20 - 4, 16)}
        row = np.flatnonzero((index.splits == 0) & (index.rows.labels == 1))[0]
        place = int(index.rows.places[row])
        shown = fit(picture(place, (10 + place % 5, 12)), contract(3, 16, 16))
        assert np.array_equal(np.asarray(sheets["1"])[:, :16], np.asarray(shown))

    def test_only_the_first_classes_and_few_images(self, tmp_path):
        files = classes({f"{number:02}": 2 for number in range(60)} | {"60": 40})
        path = make_zip(tmp_path / "data.zip", files)
        sheets = self.sheets(preview(index_dataset([path], "mine"), [path], size=8))
        assert list(sheets) == [f"{number:02}" for number in range(50)]
        assert {sheet.width for sheet in sheets.values()} <= {8, 20}

    def test_values_are_shown_by_bins(self, tmp_path):
        path = make_npz(tmp_path / "a.npz", numbered(np.arange(60)), np.arange(60) / 8)
        sheets = self.sheets(preview(index_dataset([path], "mine"), [path]))
        assert list(sheets) == ["0 to 1.125", "1.125 to 2.125", "2.125 to 3.25", "3.25 to 4.25", "4.25 to 5.375",
                                "5.375 to 6.375", "6.375 to 7.375"]  # fmt: skip
