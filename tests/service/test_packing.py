import os
import zipfile
from pathlib import Path

import pytest

from service import label_table
from service.label_table import LabelTableError, parse_label_table
from service.packing import PackingError, pack

PNG = b"\x89PNG\r\n\x1a\n and so on"
JPEG = b"\xff\xd8\xff\xe0 and so on"
BMP = b"BM and so on" + bytes(1000)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(path: Path) -> dict[str, bytes]:
    """What is in the archive that is handed over."""
    with pack(path) as archive, zipfile.ZipFile(archive) as members:
        assert members.testzip() is None
        return {member.filename: members.read(member) for member in members.infolist()}


class TestFolders:
    def test_class_folders_without_what_systems_leave_there(self, tmp_path):
        files = {"cat/1.png": PNG, "cat/more/2.jpg": JPEG, "dog/3.bmp": BMP}
        noise = {".git/config": b"x", "cat/.hidden.png": PNG, "__MACOSX/cat/1.png": PNG, "dog/Thumbs.db": b"x"}
        write(tmp_path / "photos", files | noise | {"README.txt": b"no image", "dog/clip.mp4": b"film"})
        assert packed(tmp_path / "photos") == files

    def test_links_are_not_followed(self, tmp_path):
        write(tmp_path, {"elsewhere/secret.png": PNG, "photos/cat/1.png": PNG})
        (tmp_path / "photos" / "cat" / "link.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
        (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos")
        assert set(packed(tmp_path / "photos")) == {"cat/1.png"}

    def test_what_is_compressed_is_stored_and_the_rest_is_deflated(self, tmp_path):
        write(tmp_path, {"cat/1.png": PNG, "dog/2.bmp": BMP})
        with pack(tmp_path) as archive, zipfile.ZipFile(archive) as members:
            methods = {member.filename: member.compress_type for member in members.infolist()}
        assert methods == {"cat/1.png": zipfile.ZIP_STORED, "dog/2.bmp": zipfile.ZIP_DEFLATED}

    def test_a_damaged_image_is_packed_so_that_it_is_reported(self, tmp_path):
        write(tmp_path, {"cat/1.png": PNG, "cat/empty.png": b"", "cat/no-ending": JPEG})
        assert set(packed(tmp_path)) == {"cat/1.png", "cat/empty.png", "cat/no-ending"}

    def test_the_same_files_make_the_same_archive_and_it_is_gone_afterwards(self, tmp_path):
        write(tmp_path, {"b/2.png": PNG, "a/1.png": JPEG})
        with pack(tmp_path) as archive:
            first = archive.read_bytes()
        os.utime(tmp_path / "a" / "1.png", (0, 0))
        with pack(tmp_path) as again:
            assert again.read_bytes() == first
        assert not archive.exists()
        assert not again.exists()

    def test_progress_counts_files(self, tmp_path):
        write(tmp_path, {f"cat/{number}.png": PNG for number in range(5)})
        seen: list[tuple[int, int]] = []
        with pack(tmp_path, lambda done, total: seen.append((done, total))):
            assert seen == [(done, 5) for done in range(6)]

    def test_idx_files(self, tmp_path):
        names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", "t10k-images.idx3-ubyte")
        files = dict.fromkeys(names, bytes(100))
        write(tmp_path, files | {"README": b"text"})
        assert packed(tmp_path) == files


class TestTables:
    def test_the_table_and_the_images_that_it_names(self, tmp_path):
        table = b"path,label\nphotos/1.png,cat\nphotos\\2.jpg,dog\nmissing.png,dog\n"
        files = {"labels.csv": table, "photos/1.png": PNG, "photos/2.jpg": JPEG}
        write(tmp_path, files | {"photos/other.png": PNG})
        assert packed(tmp_path / "labels.csv") == files
        assert packed(tmp_path) == files

    def test_two_tables_are_none(self, tmp_path):
        write(tmp_path, {"a.csv": b"1.png,x", "b.csv": b"1.png,x", "cat/1.png": PNG})
        assert set(packed(tmp_path)) == {"cat/1.png"}

    @pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "C:\\secret.png", "photos/../../secret.png"])
    def test_a_table_cannot_name_what_lies_elsewhere(self, tmp_path, path):
        write(tmp_path, {"secret.png": PNG, "data/1.png": PNG, "data/labels.csv": f"1.png,cat\n{path},dog\n".encode()})
        with pytest.raises(PackingError, match=r"labels\.csv, line 2: .* leads elsewhere; name images by their place"):
            packed(tmp_path / "data" / "labels.csv")

    def test_nor_by_way_of_a_link(self, tmp_path):
        write(tmp_path, {"secret.png": PNG, "data/1.png": PNG, "data/labels.csv": b"1.png,cat\nlink.png,dog\n"})
        (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
        assert set(packed(tmp_path / "data")) == {"labels.csv", "1.png"}

    def test_a_table_without_images_beside_it(self, tmp_path):
        write(tmp_path, {"labels.csv": b"1.png,cat\n2.png,dog\n"})
        with pytest.raises(PackingError, match=r"none of the 2 files that .* names is an image .* hand over"):
            packed(tmp_path / "labels.csv")


class TestArchives:
    @pytest.mark.parametrize("name", ["data.zip", "data.npz"])
    def test_an_archive_is_handed_over_itself(self, tmp_path, name):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("cat/1.png", PNG)
        with pack(tmp_path / name) as path:
            assert path == tmp_path / name
        assert path.exists()

    @pytest.mark.parametrize(("name", "data"), [("data.zip", b"no zip"), ("photo.png", PNG), ("empty", b"")])
    def test_another_file_is_not(self, tmp_path, name, data):
        write(tmp_path, {name: data})
        with pytest.raises(PackingError, match=f"{name} is no zip file and no .npz; hand over a folder"):
            packed(tmp_path / name)


class TestRefusals:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(PackingError, match=r"nothing at .*missing; hand over a folder"):
            packed(tmp_path / "missing")

    @pytest.mark.parametrize("files", [{}, {"notes.txt": b"text"}, {"cat/empty.png": b""}])
    def test_no_images(self, tmp_path, files):
        write(tmp_path, files)
        with pytest.raises(PackingError, match=r"no images in .*; hand over a folder"):
            packed(tmp_path)

    def test_unreadable_files_are_all_named(self, tmp_path, monkeypatch):
        write(tmp_path, {f"cat/{number}.png": PNG for number in range(6)})
        opened = Path.open

        def refusing(self: Path, *arguments: str) -> object:
            if self.stem in "01234":
                raise PermissionError(13, "Permission denied")
            return opened(self, *arguments)

        monkeypatch.setattr(Path, "open", refusing)
        with pytest.raises(PackingError) as caught:
            packed(tmp_path)
        lines = str(caught.value).splitlines()
        assert len(lines) == 4
        assert lines[0].endswith("0.png cannot be read: Permission denied; change its permissions or move it away")
        assert lines[3] == "and 2 more"

    def test_an_unreadable_folder(self, tmp_path, monkeypatch):
        write(tmp_path, {"cat/1.png": PNG, "dog/2.png": PNG})
        scandir = os.scandir

        def refusing(folder: Path) -> object:
            if folder.name == "dog":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refusing)
        with pytest.raises(PackingError, match="dog cannot be read: Permission denied; change its permissions"):
            packed(tmp_path)

    def test_a_name_that_is_no_text(self, tmp_path):
        write(tmp_path, {"cat/1.png": PNG})
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.png")).write_bytes(PNG)
        with pytest.raises(PackingError, match=r"udcff\.png' has a name that is not UTF-8; rename it"):
            packed(tmp_path)


class TestLabelTable:
    def labels(self, text: str) -> list[tuple[int, str, str]]:
        return [(row.line, row.path, row.label) for row in parse_label_table(text.encode()).rows]

    @pytest.mark.parametrize(
        "text",
        [
            "a/1.png,cat\nb.png,dog\n",
            "path,label\na/1.png,cat\nb.png,dog",
            "\ufeffPath , Label\r\n./a\\1.png, cat\r\nb.png,dog",
        ],
    )
    def test_with_and_without_a_header(self, text):
        assert [row[1:] for row in self.labels(text)] == [("a/1.png", "cat"), ("b.png", "dog")]

    def test_columns_are_found_by_name_and_empty_lines_passed_over(self):
        assert self.labels("id,label,path\n\n7,cat,1.png\n") == [(3, "1.png", "cat")]

    @pytest.mark.parametrize(
        ("text", "holds_values"),
        [
            ("1.png,1\n2.png,2", False),
            ("1.png,1.0\n2.png,2.0", False),
            ("1.png,1\n2.png,2.5", True),
            ("1.png,-1e-3\n2.png,2", True),
            ("1.png,1.5\n2.png,two", False),
            ("path,value\n1.png,1\n2.png,2", True),
        ],
    )
    def test_values_are_told_from_classes(self, text, holds_values):
        assert parse_label_table(text.encode()).holds_values is holds_values

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "line 1: there are no rows; write one line for each image"),
            (b"path,label\n", "line 1: there are no rows"),
            (b"1.png\n", "line 1: has 1 columns; write the path, a comma and the label"),
            (b"1.png;cat\n", "line 1: has 1 columns"),
            (b"1.png,a\n2.png,a,b\n", "line 2: has 3 columns"),
            (b"1.png,a\n2.png,\n", "line 2: 2.png has no label; write one"),
            (b",a\n", "line 1: '' leads elsewhere"),
            (b"1.png,a\n./1.png,b\n", "line 2: ./1.png stands in line 1 already; keep one"),
            (b"path,value\n1.png,two\n", "line 2: 'two' is no number that can be learned; write a finite number"),
            (b"1.png,1.5\n2.png,nan\n", "line 2: 'nan' is no number"),
            (b"1.png,1.5\n2.png,1e39\n", "line 2: '1e39' is no number"),
            (
                b"filename,price\n1.png,1.5\n2.png,2.5\n",
                "line 1: calls the columns 'filename' and 'price'; call them path",
            ),
            (b"1.png,a\n\xff.png,b\n", "line 2: is not UTF-8; save the table as UTF-8"),
            (b'1.png,a\n"2.png,b\n', "cannot be read .*; quote cells"),
        ],
    )
    def test_faults_name_their_line_and_the_remedy(self, data, message):
        with pytest.raises(LabelTableError, match=message):
            parse_label_table(data)

    def test_a_table_may_not_be_endless(self, monkeypatch):
        monkeypatch.setattr(label_table, "MOST_ROWS", 3)
        assert len(self.labels("path,label\n1,a\n2,b\n3,c\n")) == 3
        with pytest.raises(
            LabelTableError, match="line 5: is one too many; make several data sets, or tables of up to 3"
        ):
            self.labels("path,label\n1,a\n2,b\n3,c\n4,d\n5,e\n")

    def test_all_faults_are_found_at_once(self):
        with pytest.raises(LabelTableError) as caught:
            parse_label_table(b"1.png\n2.png,\n../3.png,a\n")
        assert [fault.line for fault in caught.value.faults] == [1, 2, 3]
