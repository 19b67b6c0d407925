"""Users' data sets by the whole path: archives made here, indexed, reported, described, added to, stored."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search_spaces.datasets import Task, dataset_from_json, dataset_to_json
from service.packing import pack
from tests.workers.own_data import classes, encode, make_npz, make_zip, notes, numbered, picture, png, split_of
from tests.workers.test_datasets import idx
from workers.datasets.contents import Pictures
from workers.datasets.dataset import DatasetUnavailableError
from workers.datasets.describe import describe
from workers.datasets.formats import open_pictures
from workers.datasets.index import Index, load_index, save_index
from workers.datasets.indexing import index_dataset
from workers.datasets.picture import Picture, picture_digest


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "data.zip"


def index(*archives: Path, earlier: Index | None = None) -> Index:
    return index_dataset(archives, "mine", earlier)


def counts(made: Index) -> dict[str, int]:
    """Images of each class."""
    return dict(zip(made.class_names, np.bincount(made.rows.labels).tolist(), strict=True))


class TestFolders:
    def test_classes_are_folders(self, archive):
        made = index(make_zip(archive, classes({"dog": 20, "cat": 15})))
        assert counts(made) == {"cat": 15, "dog": 20}
        assert made.task is Task.CLASSIFICATION
        assert not made.report["splits"]["test"]

    def test_what_systems_leave_and_one_folder_around_everything_are_ignored(self, archive):
        files = {f"photos/{name}": data for name, data in classes({"cat": 20, "dog": 20}).items()}
        noise = {"__MACOSX/photos/cat/._0.png": b"x", "photos/.DS_Store": b"x", "photos/cat/Thumbs.db": b"x"}
        made = index(make_zip(archive, files | noise))
        assert counts(made) == {"cat": 20, "dog": 20}
        assert set(notes(made)) == {"few_images"}

    def test_a_file_beside_the_one_folder_changes_nothing_else(self, archive):
        files = {f"photos/{name}": data for name, data in classes({"cat": 20, "dog": 20}).items()}
        made = index(make_zip(archive, files | {"README.md": b"text", "photos/LICENSE": b"text"}))
        assert counts(made) == {"cat": 20, "dog": 20}
        assert notes(made)["unlabelled"]["parts"] == ["README.md", "LICENSE"]

    def test_folders_within_a_class_belong_to_it_and_windows_separates_otherwise(self, archive):
        files = classes({"cat/indoors": 10, "cat\\outdoors": 10, "dog": 20})
        assert counts(index(make_zip(archive, files))) == {"cat": 20, "dog": 20}

    @pytest.mark.parametrize("top", ["", "photos/"])
    def test_train_val_and_test(self, archive, top):
        files = classes({f"{top}train/cat": 20, f"{top}train/dog": 20, f"{top}Valid/cat": 5, f"{top}test/dog": 7})
        made = index(make_zip(archive, files))
        assert counts(made) == {"cat": 25, "dog": 27}
        assert made.report["splits"]["test"] == 7
        assert made.report["classes"][1]["test"] == 7

    def test_folders_called_train_beside_others_are_classes(self, archive):
        made = index(make_zip(archive, classes({"train": 20, "bus": 20})))
        assert counts(made) == {"bus": 20, "train": 20}
        assert notes(made)["folders_as_classes"]["parts"] == ["train"]

    def test_what_is_left_out_is_told(self, archive):
        files = classes({"cat": 20, "dog": 20}) | {"readme.png": png(999), "../../evil.png": png(998), "empty/": b""}
        made = index(make_zip(archive, files))
        assert notes(made)["unlabelled"]["parts"] == ["readme.png", "../../evil.png"]
        assert notes(made)["empty_classes"]["parts"] == ["empty"]
        assert len(made) == 40

    def test_names_are_composed_as_other_systems_compose_them(self, archive):
        made = index(make_zip(archive, classes({"caf\u00e9": 20, "cafe\u0301/more": 5, "tea": 20})))
        assert counts(made) == {"caf\u00e9": 25, "tea": 20}

    def test_a_picture_saved_in_grey_and_in_colour_is_one(self, archive):
        """Or it could be trained on and scored on."""
        grey = [(f"{seed % 2}/{seed}", picture(seed, mode="L")) for seed in range(40)]
        files = {f"{name}.png": encode(image) for name, image in grey}
        made = index(
            make_zip(archive, files | {f"{name}-rgb.png": encode(image.convert("RGB")) for name, image in grey})
        )
        assert len(made) == notes(made)["duplicates"]["count"] == 40

    def test_folders_are_numbered_as_torchvision_numbers_them(self, archive):
        made = index(make_zip(archive, classes({str(number): 10 for number in range(12)})))
        assert made.class_names[:4] == ("0", "1", "10", "11")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
    def test_all_kinds_of_images_whatever_their_names(self, archive, kind):
        files = {f"{seed % 2}/{seed}.dat": encode(picture(seed), kind) for seed in range(40)}
        made = index(make_zip(archive, files))
        assert len(made) == 40
        assert set(made.rows.widths.tolist()) == {8}


class TestTables:
    def files(self, table: str, count: int = 40) -> dict[str, bytes]:
        return {"set/labels.csv": table.encode()} | {f"set/photos/{seed}.png": png(seed) for seed in range(count)}

    def test_classes(self, archive):
        table = "path,label\n" + "".join(f"photos/{seed}.png,{['cat', 'dog'][seed % 2]}\n" for seed in range(40))
        made = index(make_zip(archive, self.files(table)))
        assert counts(made) == {"cat": 20, "dog": 20}

    def test_values(self, archive):
        table = "path,value\n" + "".join(f"photos/{seed}.png,{seed / 4}\n" for seed in range(40))
        made = index(make_zip(archive, self.files(table)))
        assert (made.task, made.class_names) == (Task.REGRESSION, ())
        assert made.rows.labels.dtype == np.float32
        assert sorted(made.rows.labels.tolist()) == [seed / 4 for seed in range(40)]
        assert made.report["values"] == {"least": 0.0, "greatest": 9.75, "mean": 4.875}
        assert describe(made).classes == 0

    def test_integers_are_classes_in_their_own_order(self, archive):
        table = "".join(f"photos/{seed}.png,{seed % 12}\n" for seed in range(120))
        assert index(make_zip(archive, self.files(table, 120))).class_names == tuple(map(str, range(12)))

    def test_rows_without_file_and_files_without_row_are_told(self, archive):
        table = "".join(f"photos/{seed}.png,{seed % 2}\n" for seed in range(45))
        made = index(make_zip(archive, self.files(table) | {"set/photos/other.png": png(99)}))
        assert len(made) == 40
        assert notes(made)["missing"]["count"] == 5
        first = "labels.csv, line 41: there is no photos/40.png; add it, or take the line out"
        assert notes(made)["missing"]["parts"][0] == first
        assert notes(made)["unlabelled"]["parts"] == ["photos/other.png"]


class TestArrays:
    @pytest.mark.parametrize("shape", [(60, 4, 5), (60, 4, 5, 1), (60, 4, 5, 3), (60, 4, 5, 4)])
    def test_shapes(self, tmp_path, shape):
        images = np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)
        made = index(make_npz(tmp_path / "a.npz", images, np.arange(60) % 3 + 5))
        assert counts(made) == {"5": 20, "6": 20, "7": 20}
        assert describe(made).shape == (1 if len(shape) == 3 or shape[3] == 1 else 3, 4, 5)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_names_and_test_set(self, tmp_path, save):
        parts = {"images": numbered(np.arange(40)), "labels": np.arange(40, dtype=np.uint8) % 2}
        tests = {"test_images": numbered(np.arange(100, 110)), "test_labels": np.ones(10, np.int64)}
        save(tmp_path / "a.npz", **parts, **tests, class_names=np.array(["no", "yes", "never"]))
        made = index(tmp_path / "a.npz")
        assert counts(made) == {"no": 20, "yes": 30}
        assert made.report["splits"]["test"] == 10
        assert notes(made)["empty_classes"]["parts"] == ["never"]

    def test_floats_are_values(self, tmp_path):
        made = index(make_npz(tmp_path / "a.npz", numbered(np.arange(40)), np.linspace(0, 1, 40)))
        assert made.task is Task.REGRESSION

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_idx(self, archive, pack):
        images = np.random.default_rng(0).integers(256, size=(50, 5, 4)).astype(np.uint8)
        labels = np.arange(50, dtype=np.uint8) % 2 + 3
        files = {
            "mnist/train-images-idx3-ubyte.gz": pack(idx(images[:40])),
            "mnist/train-labels-idx1-ubyte.gz": pack(idx(labels[:40])),
            "mnist/t10k-images-idx3-ubyte": pack(idx(images[40:])),
            "mnist/t10k-labels-idx1-ubyte": pack(idx(labels[40:])),
            "mnist/readme.txt": b"text",
        }
        made = index(make_zip(archive, files))
        assert counts(made) == {"3": 25, "4": 25}
        assert made.report["splits"]["test"] == 10
        assert describe(made).shape == (1, 5, 4)
        assert notes(made)["unlabelled"]["parts"] == ["mnist/readme.txt"]

    def test_the_same_pixels_make_the_same_version_in_any_format(self, tmp_path):
        images = np.random.default_rng(0).integers(256, size=(40, 6, 6)).astype(np.uint8)
        labels = np.arange(40) % 2
        files = {f"{labels[row]}/{row}.png": encode(Image.fromarray(images[row])) for row in range(40)}
        table = "".join(f"{row}.png,{labels[row]}\n" for row in range(40)).encode()
        idx_files = {"images-idx3": idx(images), "labels-idx1": idx(labels.astype(np.uint8))}
        made = [
            make_zip(tmp_path / "folder.zip", files),
            make_zip(tmp_path / "table.zip", {"t.csv": table} | {name[2:]: data for name, data in files.items()}),
            make_zip(tmp_path / "idx.zip", idx_files),
            make_npz(tmp_path / "array.npz", images, labels),
        ]
        assert len({index(path).digest for path in made}) == 1


class TestPictures:
    """What both implementations promise."""

    @pytest.fixture(params=["files", "rows"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        if request.param == "files":
            return make_zip(tmp_path / "a.zip", {f"cat/{n}.png": png(n) for n in range(9)} | {"cat/bad.png": b""})
        images = np.stack([np.asarray(picture(n)) for n in range(9)])
        tests = {"test_images": images[6:], "test_labels": np.arange(3)}
        return make_npz(tmp_path / "a.npz", images[:6], np.arange(6), **tests)

    def digests(self, pictures: Pictures, places: np.ndarray) -> list[int]:
        read = list(pictures.read(places))
        assert all(isinstance(one, Picture) for one in read)
        return [picture_digest(one.image) for one in read if isinstance(one, Picture)]

    @pytest.mark.parametrize("places", [range(9), [0], [8], [1, 4, 7], []])
    def test_any_ascending_places(self, path, places):
        with open_pictures(path) as pictures:
            read = self.digests(pictures, np.array(places, dtype=np.int64))
        assert read == [picture_digest(picture(place)) for place in places]

    def test_they_may_be_read_again(self, path):
        with open_pictures(path) as pictures:
            first, again = (self.digests(pictures, np.arange(2)) for _ in range(2))
        assert first == again

    def test_each_has_a_name(self, path):
        with open_pictures(path) as pictures:
            names = [pictures.part(place) for place in range(9)]
        assert len(set(names)) == 9
        assert names[7] in ("cat/7.png", "test_images, row 1")


class TestReports:
    def test_a_good_data_set_has_nothing_to_be_told(self, tmp_path):
        values = np.arange(2000)
        made = index(make_npz(tmp_path / "a.npz", numbered(values), values % 4))
        assert notes(made) == {}
        assert made.report["half_widths"] == {"score": 0.0324, "confirm": 0.0324}

    def test_few_images_and_uneven_classes(self, archive):
        made = index(make_zip(archive, classes({"cat": 90, "dog": 8, "emu": 3})))
        told = notes(made)
        assert told["class_imbalance"]["parts"] == ["emu: 3", "dog: 8"]
        assert "the largest class has 90 images and the smallest 3" in told["class_imbalance"]["message"]
        assert told["small_classes"]["parts"] == ["emu: 3"]
        score, confirm = (made.report["splits"][name] for name in ("score", "confirm"))
        assert told["few_images"]["message"].startswith(f"score has {score} images and confirm {confirm}")
        assert "90% is known to within 15 points either way; add images" in told["few_images"]["message"]

    def test_sizes_and_modes(self, archive):
        files = {f"cat/{seed}.png": png(seed, (8 + seed % 3, 5)) for seed in range(30)}
        files |= {f"dog/{seed}.png": png(seed, mode="L") for seed in range(100, 120)}
        files |= {f"dog/{seed}.png": png(seed, mode="RGBA") for seed in range(200, 203)}
        files |= {f"dog/{seed}.gif": encode(picture(seed), "GIF") for seed in range(300, 305)}
        made = index(make_zip(archive, files))
        assert notes(made)["mixed_sizes"]["parts"][0] == "8 x 8: 28"
        assert "4 different sizes, the commonest is 8 x 8" in notes(made)["mixed_sizes"]["message"]
        assert "20 images are grey and 38 in colour" in notes(made)["mixed_modes"]["message"]
        assert notes(made)["converted"]["parts"] == [
            "a palette, taken as colour: 5",
            "colour with transparency, laid on white: 3",
        ]
        assert made.report["modes"] == {"RGB": 30, "L": 20, "P": 5, "RGBA": 3}
        assert made.report["sizes"][0] == {"width": 8, "height": 8, "images": 28}

    def test_copies_are_used_once_and_disputed_images_not_at_all(self, archive):
        files = classes({"cat": 20, "dog": 20})
        copies = {"cat/copy.bmp": encode(picture(3), "BMP"), "cat/again.tif": encode(picture(3), "TIFF")}
        disputed = {"cat/either.png": png(99), "dog/or.png": png(99)}
        made = index(make_zip(archive, files | copies | disputed))
        assert len(made) == 40
        assert notes(made)["duplicates"]["parts"] == ["cat/copy.bmp", "cat/again.tif"]
        assert notes(made)["conflicting_labels"]["parts"] == ["cat/either.png", "dog/or.png"]
        assert made.digest == index(make_zip(archive, files)).digest

    def test_what_the_test_set_has_too_is_not_trained_on(self, archive):
        files = classes({"train/cat": 20, "train/dog": 20})
        made = index(make_zip(archive, files | {"test/cat/1.png": png(1), "test/dog/2.png": png(2000)}))
        assert len(made) == 41
        assert made.dropped == 1
        assert made.report["splits"]["test"] == 2
        assert notes(made)["duplicates"]["parts"] == ["train/cat/1.png"]

    def test_files_beside_images_are_told_and_do_no_harm(self, archive):
        images = classes({"cat": 20, "dog": 20})
        made = index(make_zip(archive, images | {f"{name[:-4]}.txt": b"notes" for name in images}))
        assert len(made) == notes(made)["unreadable"]["count"] == 40

    def test_unreadable_files_are_named_with_their_reasons(self, archive):
        bad = {f"cat/bad{number:02}.png": b"text" for number in range(25)}
        made = index(make_zip(archive, classes({"cat": 30, "dog": 30}) | bad))
        told = notes(made)["unreadable"]
        assert (told["count"], len(told["parts"])) == (25, 20)
        assert told["parts"][0] == "cat/bad00.png: is no PNG, JPEG, BMP, GIF, WebP or TIFF image; save it as one"

    def test_progress_tells_how_many_of_how_many(self, archive):
        seen: list[tuple[str, float, str]] = []
        make_zip(archive, classes({"cat": 20, "dog": 20}))
        index_dataset([archive], "mine", progress=lambda *told: seen.append(told))
        assert seen[-1][:2] == ("index", 1.0)
        assert seen[-1][2].startswith("40 of 40 images, ")


class TestDescription:
    def test_statistics_are_those_of_the_training_images(self, tmp_path):
        images = np.random.default_rng(0).integers(256, size=(90, 5, 7, 3)).astype(np.uint8)
        images[..., 2] //= 4
        made = index(make_npz(tmp_path / "a.npz", images, np.arange(90) % 3))
        info = describe(made)
        trained = images[made.rows.places[made.splits == 0]] / 255
        assert info.mean == pytest.approx(trained.mean(axis=(0, 1, 2)), abs=1e-5)
        assert info.std == pytest.approx(trained.std(axis=(0, 1, 2)), abs=1e-5)
        assert (info.shape, info.images, info.test_images, info.classes) == ((3, 5, 7), 90, 0, 3)
        assert info.held_out == {"calibrate": 9, "score": 15, "confirm": 15}
        assert (info.digest, info.is_resized, info.name) == (made.digest, True, "mine")
        assert dataset_from_json(dataset_to_json(info)) == info

    def test_every_image_counts_alike_whatever_its_size(self, archive):
        small, large = Image.new("L", (2, 2), 0), Image.new("L", (200, 200), 255)
        files = {f"cat/{n}.png": encode(small.resize((2 + n, 2))) for n in range(40)}
        files |= {f"dog/{n}.png": encode(large.resize((200 + n, 200))) for n in range(40)}
        info = describe(index(make_zip(archive, files)))
        assert info.mean == (0.5,)
        assert info.std == (0.5,)

    def test_one_shade_everywhere_can_still_be_divided_by(self, archive):
        files = {f"{n % 2}/{n}.png": encode(Image.new("L", (2 + n, 2), 51)) for n in range(40)}
        info = describe(index(make_zip(archive, files)))
        assert (info.mean, info.std) == ((0.2,), (pytest.approx(1 / 255, abs=1e-6),))


class TestAdding:
    @pytest.fixture
    def old(self, archive: Path) -> Index:
        return index(make_zip(archive, classes({"cat": 40, "dog": 40})))

    def add(self, archive: Path, old: Index, files: dict[str, bytes]) -> Index:
        return index(archive, make_zip(archive.with_name("more.zip"), files), earlier=old)

    def test_new_images_fill_what_is_missing(self, archive, old):
        new = self.add(archive, old, classes({"cat": 20, "dog": 20}, first=1000))
        before, after = split_of(old), split_of(new)
        assert {digest: after[digest] for digest in before} == before
        assert new.report["splits"] == {"train": 68, "calibrate": 12, "score": 20, "confirm": 20, "test": 0}
        assert new.digest != old.digest
        assert set(new.rows.archives.tolist()) == {0, 1}

    def test_only_the_new_archive_is_read(self, archive, old):
        archive.unlink()
        assert len(self.add(archive, old, classes({"cat": 20}, first=1000))) == 100

    def test_new_classes_are_numbered_behind_the_others(self, archive, old):
        new = self.add(archive, old, classes({"ant": 20, "dog": 5, "bee": 20}, first=1000))
        assert new.class_names == ("cat", "dog", "ant", "bee")
        assert notes(new)["new_classes"]["parts"] == ["ant", "bee"]
        assert counts(new) == {"cat": 40, "dog": 45, "ant": 20, "bee": 20}

    def test_copies_of_what_is_there_are_dropped_and_told(self, archive, old):
        files = classes({"cat": 20}, first=1000) | {"cat/copy.png": png(5), "dog/wrong.png": png(6), "test.png": b""}
        new = self.add(archive, old, files)
        assert len(new) == 100
        assert notes(new)["already_there"]["parts"] == ["cat/copy.png"]
        told = [note for note in new.report["notes"] if note["kind"] == "conflicting_labels"]
        assert told[0]["parts"] == ["dog/wrong.png"]
        assert "it keeps the label that it has" in told[0]["message"]

    def test_a_copy_in_an_added_test_set_does_not_leave_training(self, archive, old):
        added = classes({"train/cat": 10}, first=1000) | {"test/cat/0.png": png(0), "test/cat/new.png": png(2000)}
        new = self.add(archive, old, added)
        before, after = split_of(old), split_of(new)
        assert {digest: after[digest] for digest in before} == before
        assert new.report["splits"]["test"] == 1

    def test_moments_of_all_images_count_for_statistics(self, archive, old):
        both = index(make_zip(archive.with_name("a.zip"), classes({"cat": 40, "dog": 40}, first=1000)), archive)
        new = self.add(archive, old, classes({"cat": 40, "dog": 40}, first=1000))
        assert describe(new).mean == pytest.approx(describe(both).mean, abs=0.02)

    def test_nothing_new_is_a_mistake_of_the_caller(self, archive, old):
        with pytest.raises(ValueError, match="1 archives, of which 1 are in the index"):
            index(archive, earlier=old)


class TestStorage:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Index:
        return index(make_npz(tmp_path / "a.npz", numbered(np.arange(90)), np.arange(90) / 7))

    def test_round_trip(self, made, tmp_path):
        save_index(made, tmp_path / "stored")
        loaded = load_index(tmp_path / "stored")
        assert sorted(path.name for path in (tmp_path / "stored").iterdir()) == ["index.npz", "report.json"]
        for name in ("name", "task", "class_names", "archives", "dropped", "report", "digest"):
            assert getattr(loaded, name) == getattr(made, name)
        assert np.array_equal(loaded.edges, made.edges)
        assert np.array_equal(loaded.splits, made.splits)
        for name in ("digests", "labels", "archives", "places", "widths", "heights", "is_colour", "moments"):
            assert np.array_equal(getattr(loaded.rows, name), getattr(made.rows, name))
            assert getattr(loaded.rows, name).dtype == getattr(made.rows, name).dtype

    def test_damage_is_noticed(self, made, tmp_path):
        save_index(made, tmp_path)
        path = tmp_path / "index.npz"
        whole = path.read_bytes()
        middle = len(whole) // 2
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for data in (b"", whole[:middle], changed):
            path.write_bytes(data)
            with pytest.raises(DatasetUnavailableError, match=r"no whole index of a data set.*index it again"):
                load_index(tmp_path)

    def test_splits_that_were_changed_are_noticed(self, made, tmp_path):
        save_index(made, tmp_path)
        with np.load(tmp_path / "index.npz") as arrays:
            changed = dict(arrays) | {"splits": np.zeros_like(made.splits)}
        np.savez(tmp_path / "index.npz", **changed)
        with pytest.raises(DatasetUnavailableError, match="not what was written"):
            load_index(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DatasetUnavailableError, match="no whole index"):
            load_index(tmp_path / "missing")


class TestPacking:
    """What the command line packs is what is read here."""

    def index_packed(self, path: Path) -> Index:
        with pack(path) as packed:
            return index(packed)

    def test_a_folder_of_classes(self, tmp_path):
        for name, data in classes({"cat": 20, "dog": 20}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        assert counts(self.index_packed(tmp_path)) == {"cat": 20, "dog": 20}

    def test_a_table(self, tmp_path):
        (tmp_path / "photos").mkdir()
        for seed in range(40):
            (tmp_path / "photos" / f"{seed}.png").write_bytes(png(seed))
        (tmp_path / "ages.csv").write_text("".join(f"photos/{seed}.png,{seed / 3}\n" for seed in range(40)))
        by_table, by_folder = self.index_packed(tmp_path / "ages.csv"), self.index_packed(tmp_path)
        assert by_table.task is Task.REGRESSION
        assert by_table.digest == by_folder.digest

    def test_idx_files(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(numbered(np.arange(40))))
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(40, dtype=np.uint8) % 2)))
        assert counts(self.index_packed(tmp_path)) == {"0": 20, "1": 20}


def test_a_stored_zip_may_hold_images_uncompressed(archive):
    assert len(index(make_zip(archive, classes({"cat": 20, "dog": 20}), zipfile.ZIP_STORED))) == 40
