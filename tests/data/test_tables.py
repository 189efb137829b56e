"""Files of other libraries as the data of a recipe: NumPy, webdataset, Parquet, Hugging Face's datasets."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import external, load_data
from decant.pipeline.errors import DataError
from tests.helpers import tables
from tests.helpers.data import everything, read, refusal
from tests.helpers.extras import needs
from tests.helpers.processes import ROOT

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"

FORMS = [
    pytest.param("npy"),
    pytest.param("webdataset"),
    pytest.param("parquet", marks=needs("pyarrow")),
    pytest.param("hf", marks=needs("datasets")),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples_in_their_order(form: str, tmp_path: Path) -> None:
    tables.WRITE[form](tmp_path / "data")
    for part in tables.SIZES:
        data = read(form, tmp_path / "data", part)
        assert np.array_equal(everything(data), tables.images(part))
        assert data.labels.tolist() == tables.labels(part)
        assert data.classes == (tables.NAMES if form == "hf" else ())


@pytest.mark.parametrize("form", FORMS)
def test_the_digest_is_of_the_content(form: str, tmp_path: Path) -> None:
    tables.WRITE[form](tmp_path / "data")
    tables.WRITE["npy"](tmp_path / "arrays")
    assert read(form, tmp_path / "data").digest() == read("npy", tmp_path / "arrays").digest()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_too_large_for_memory_is_read_as_it_is_needed(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.WRITE[form](tmp_path / "data")
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0)
    data = read(form, tmp_path / "data")
    assert data.lazy
    assert np.array_equal(data.raw(np.array([16, 3])), tables.images("train")[[16, 3]])
    assert data.labels.tolist() == tables.labels("train")


@pytest.mark.parametrize("form", FORMS)
def test_a_part_that_is_missing_is_named(form: str, tmp_path: Path) -> None:
    assert refusal(form, tmp_path / "none") == f"data.root: no such folder: {tmp_path / 'none'}"
    (tmp_path / "data").mkdir()
    assert refusal(form, tmp_path / "data").startswith(f"{tmp_path / 'data'}: ")
    assert "train" in refusal(form, tmp_path / "data")


@pytest.mark.parametrize("form", FORMS)
def test_another_part_may_be_what_is_measured_on(form: str, tmp_path: Path) -> None:
    tables.WRITE[form](tmp_path / "data")
    for path in sorted((tmp_path / "data").iterdir()):
        if path.name.startswith("test"):
            path.rename(path.with_name(path.name.replace("test", "val")))
    assert len(read(form, tmp_path / "data", "test")) == tables.SIZES["test"]
    named = DataSettings(name=form, root=str(tmp_path / "data"), test="val")
    assert len(load_data(named, ViewsSettings(), "test")) == tables.SIZES["test"]


def shard(folder: Path, *members: tuple[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    tables.write_tar(folder / "train.tar", members)
    return folder


def sample(key: str, label: str = "0", ending: str = "png") -> list[tuple[str, bytes]]:
    return [(f"{key}.{ending}", tables.png(tables.images("train")[0])), (f"{key}.cls", label.encode())]


class TestShards:
    def test_labels_may_be_names_of_classes_in_the_order_of_the_alphabet(self, tmp_path: Path) -> None:
        shard(tmp_path, *sample("a", "cow"), *sample("b", "ant"), *sample("c", "cow"))
        tables.write_tar(tmp_path / "test.tar", sample("d", "cow"))
        data, test = (read("webdataset", tmp_path, part) for part in ("train", "test"))
        assert (data.classes, data.labels.tolist(), test.labels.tolist()) == (("ant", "cow"), [1, 0, 1], [1])

    def test_the_endings_may_be_named(self, tmp_path: Path) -> None:
        image = tables.png(tables.images("train")[0])
        members = [
            (f"{key}.{end}", what) for key in "ab" for end, what in (("seg.png", image), ("png", image))
        ]
        shard(tmp_path, *sorted([*members, ("a.id", b"0"), ("b.id", b"1")]))
        assert refusal("webdataset", tmp_path).endswith(
            'which member is the label? it has id, png, seg.png; set data.keys = ["jpg", "cls"] or the like'
        )
        settings = DataSettings(name="webdataset", root=str(tmp_path), keys=("seg.png", "id"))
        assert load_data(settings, ViewsSettings(), "train").labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            (
                [*sample("a"), *sample("b"), *sample("a")],
                "a: comes twice; every sample needs a key of its own",
            ),
            ([*sample("a"), *sample("a")], "a.png: comes twice"),
            (sample("a")[1:], "sample a: which member is the image? it has cls; set data.keys"),
            (sample("a")[:1], "sample a: which member is the label? it has png; set data.keys"),
            (
                [*sample("a"), *sample("b", ending="jpg")[:1], *sample("b")],
                "which member is the image? it has jpg, png",
            ),
            (
                sample("a.v0") + sample("a.v1"),
                "a key ends at the first dot of a name, as in webdataset, which leaves a here",
            ),
            (sample("a", ""), "a: its label is empty"),
            (sample("a", "x" * 2000), "a label of 2,000 bytes is no class id"),
            ([sample("a")[0], ("a.cls", b"\xff\xfe")], "a: its label is no text"),
            ([("a.png", b"no image"), ("a.cls", b"0")], "a.png: not a readable image"),
            ([("a.png", b""), ("a.cls", b"0")], "a.png: not a readable image (an empty file)"),
        ],
    )
    def test_what_is_no_sample_is_named(self, tmp_path: Path, members: Any, said: str) -> None:
        assert said in refusal("webdataset", shard(tmp_path, *members))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
    def test_links_and_devices_are_refused(self, tmp_path: Path, kind: bytes) -> None:
        with tarfile.open(tmp_path / "train.tar", "w") as tar:
            entry = tarfile.TarInfo("a.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
        assert "a.png: is a link or a device, and plain files are read" in refusal("webdataset", tmp_path)

    def test_a_shard_that_is_cut_off_is_refused_wherever_it_is_cut(self, tmp_path: Path) -> None:
        shard(tmp_path, *sample("a"), *sample("b"))
        whole = (tmp_path / "train.tar").read_bytes()
        (end,) = [tar.offset for tar in opened(tmp_path / "train.tar")]
        for cut in range(0, end, 128):
            (tmp_path / "train.tar").write_bytes(whole[:cut])
            assert f"{tmp_path / 'train.tar'}: " in refusal("webdataset", tmp_path), cut

    def test_a_compressed_shard_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "train.tar", "w:gz"):
            pass
        assert "compressed ones must be unpacked: gunzip" in refusal("webdataset", tmp_path)

    def test_a_shard_that_changes_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import pickle

        tables.write_shards(tmp_path / "data")
        monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0)
        data = pickle.loads(pickle.dumps(read("webdataset", tmp_path / "data")))
        tables.write_tar(tmp_path / "data/train-000.tar", sample("a"))
        with pytest.raises(
            DataError, match=r"train-000.tar: was changed while it was read; run the command again"
        ):
            data.raw(np.array([0]))

    def test_a_member_with_a_hostile_name_is_no_path(self, tmp_path: Path) -> None:
        shard(tmp_path / "data", *sample("../../out"), *sample("/abs/b", "1"))
        assert read("webdataset", tmp_path / "data").labels.tolist() == [0, 1]
        assert [path.name for path in tmp_path.iterdir()] == ["data"], "nothing is unpacked"


def opened(path: Path) -> Iterator[Any]:
    with tarfile.open(path) as tar:
        tar.getmembers()
        yield tar


class TestArrays:
    def test_other_usual_names_are_taken(self, tmp_path: Path) -> None:
        np.save(tmp_path / "X_train.npy", np.zeros((4, 3), "f4"))
        np.save(tmp_path / "y_train.npy", np.arange(4) % 2)
        assert read("npy", tmp_path).labels.tolist() == [0, 1, 0, 1]

    def test_what_could_be_two_files_is_refused(self, tmp_path: Path) -> None:
        tables.write_npy(tmp_path / "data")
        np.save(tmp_path / "data/train_x.npy", np.zeros((4, 3), "f4"))
        assert "several files could be the inputs: train_images.npy, train_x.npy" in refusal(
            "npy", tmp_path / "data"
        )

    def test_other_numbers_of_inputs_and_labels_are_refused(self, tmp_path: Path) -> None:
        tables.write_npy(tmp_path / "data")
        np.save(tmp_path / "data/train_labels.npy", np.arange(3))
        assert refusal("npy", tmp_path / "data").endswith("train: 17 inputs, and 3 labels")

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        tables.write_npy(tmp_path / "data")
        np.save(tmp_path / "data/train_labels.npy", np.array([{}] * 17), allow_pickle=True)
        assert "train_labels.npy: cannot be read as a table" in refusal("npy", tmp_path / "data")

    def test_channels_may_come_last(self, tmp_path: Path) -> None:
        tables.write_npy(tmp_path / "data")
        np.save(tmp_path / "data/train_images.npy", tables.images("train").transpose(0, 2, 3, 1))
        assert 'set data.axes = "HWC"' in refusal("npy", tmp_path / "data")
        settings = DataSettings(name="npy", root=str(tmp_path / "data"), axes="HWC")
        assert np.array_equal(
            everything(load_data(settings, ViewsSettings(), "train")), tables.images("train")
        )


class TestParquet:
    pytestmark = needs("pyarrow")

    def write(self, folder: Path, **columns: Any) -> Path:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
        return folder

    def test_columns_that_cannot_be_told_are_asked_for(self, tmp_path: Path) -> None:
        image = [tables.png(tables.images("train")[0])] * 2
        self.write(tmp_path, image=image, mask=image, coarse=[0, 1], fine=[1, 0])
        assert refusal("parquet", tmp_path).endswith(
            'which column is the input? image, mask could be; set data.keys = ["image", "fine"]'
        )
        settings = DataSettings(name="parquet", root=str(tmp_path), keys=("image", "coarse"))
        assert load_data(settings, ViewsSettings(), "train").labels.tolist() == [0, 1]
        other = settings.model_copy(update={"keys": ("image", "lable")})
        with pytest.raises(DataError, match="has no column 'lable'; it has image, mask, coarse, fine"):
            load_data(other, ViewsSettings(), "train")

    def test_labels_may_be_names(self, tmp_path: Path) -> None:
        image = [tables.png(tables.images("train")[0])] * 3
        data = read("parquet", self.write(tmp_path, jpg=image, label=["cow", "ant", "cow"]))
        assert (data.classes, data.labels.tolist()) == (("ant", "cow"), [1, 0, 1])

    def test_an_image_in_another_file_is_not_opened(self, tmp_path: Path) -> None:
        beside = [{"bytes": None, "path": "/etc/passwd"}] * 2
        import pyarrow

        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        self.write(tmp_path, image=pyarrow.array(beside, kind), label=[0, 1])
        assert "has no bytes of an image; files beside the table are not opened" in refusal(
            "parquet", tmp_path
        )

    def test_what_is_no_parquet_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
        assert "train.parquet: cannot be read as Parquet" in refusal("parquet", tmp_path)


class TestHuggingFace:
    pytestmark = needs("datasets")

    def test_a_folder_that_the_library_reads_is_a_dataset_by_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        tables.write_hugging_face(tmp_path / "saved")
        for part, found in datasets.load_from_disk(str(tmp_path / "saved")).items():
            (tmp_path / "mine").mkdir(exist_ok=True)
            found.to_parquet(str(tmp_path / f"mine/{part}.parquet"))
        monkeypatch.chdir(tmp_path)
        data = read("hf:mine")
        assert (data.name, data.classes) == ("hf:mine", tables.NAMES)
        assert np.array_equal(everything(data), tables.images("train"))
        assert read("parquet", tmp_path / "mine").classes == tables.NAMES

    def test_what_was_filtered_before_it_was_saved_is_what_is_read(self, tmp_path: Path) -> None:
        import datasets

        tables.write_hugging_face(tmp_path / "saved")
        whole = datasets.load_from_disk(str(tmp_path / "saved"))
        whole.filter(lambda row: row["label"] != 1).with_format("torch").save_to_disk(str(tmp_path / "few"))
        kept = np.array(tables.labels("train")) != 1
        assert np.array_equal(everything(read("hf", tmp_path / "few")), tables.images("train")[kept])

    @pytest.mark.parametrize("where", ["bytes", "path"])
    def test_no_program_interprets_an_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        """Pillow has PostScript drawn by Ghostscript, which runs what the image says; also of a column of lists."""
        import datasets

        (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (tmp_path / "gs").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        (tmp_path / "page.png").write_bytes(POSTSCRIPT)
        stored = {"bytes": POSTSCRIPT if where == "bytes" else None, "path": str(tmp_path / "page.png")}
        table = {"image": [stored] * 4, "label": [0, 1, 0, 1]}
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
        part = datasets.Dataset.from_dict(table, features=features)
        datasets.DatasetDict(train=part).save_to_disk(str(tmp_path / "pages"))
        assert re.search(
            r"row 0: not a readable image|page\.png: not a readable", refusal("hf", tmp_path / "pages")
        )
        assert not (tmp_path / "ran").exists()

    def test_nothing_is_fetched_for_an_image_without_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import datasets
        import pyarrow
        from pyarrow import parquet

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
        stored = {"bytes": None, "path": "http://127.0.0.1:9/a.png"}
        rows = {"image": [stored] * 4, "label": [0, 1, 0, 1]}
        (tmp_path / "mine").mkdir()
        parquet.write_table(
            pyarrow.Table.from_pydict(rows, schema=features.arrow_schema), tmp_path / "mine/train.parquet"
        )
        assert refusal("hf:mine") == (
            "hf:mine: train: row 0: has no bytes of an image, and names no file on this disk; nothing is fetched"
        )

    def test_no_script_and_no_pickle_of_a_dataset_is_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As versions of the library before 4 do, or ask on the terminal whether to."""
        import datasets

        given: list[object] = []

        def load_dataset(path: str, *config: str, trust_remote_code: bool | None = None) -> None:
            given.append(trust_remote_code)
            raise ValueError("it has a script")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert "cannot be loaded (ValueError: it has a script" in refusal("hf:somebody/scripted")
        assert "reads pickles, which may hold code" in refusal("hf:pandas")
        assert given == [False]

    @pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "dataset_info.json"])
    def test_nothing_waits_for_a_pipe_among_its_files(self, tmp_path: Path, name: str) -> None:
        tables.write_hugging_face(tmp_path / "saved")
        (tmp_path / "saved/train" / name).unlink()
        os.mkfifo(tmp_path / "saved/train" / name)
        code = "from tests.helpers.data import refusal; import sys; print(refusal('hf', sys.argv[1]))"  # may hang
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "saved")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        assert "a pipe, where a file is expected" in done.stdout, done.stderr

    def test_images_keep_their_mode_and_stand_upright(self, tmp_path: Path) -> None:
        """As the library decodes them."""
        import datasets

        image = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10)
        exif, content = Image.Exif(), io.BytesIO()
        exif[0x0112] = 6
        image.save(content, "PNG", exif=exif)
        stored = [{"bytes": content.getvalue(), "path": None}] * 4
        for mode in (None, "L"):
            features = datasets.Features(image=datasets.Image(mode=mode), label=datasets.Value("int64"))
            part = datasets.Dataset.from_dict({"image": stored, "label": [0, 1, 0, 1]}, features=features)
            datasets.DatasetDict(train=part).save_to_disk(str(tmp_path / f"{mode}"))
            decoded = np.asarray(part[0]["image"])
            expected = decoded[None] if mode else decoded.transpose(2, 0, 1)
            assert np.array_equal(everything(read("hf", tmp_path / f"{mode}"))[0], expected)

    def test_what_cannot_be_told_is_asked_for(self, tmp_path: Path) -> None:
        import datasets

        tables.write_hugging_face(tmp_path / "saved")
        whole = datasets.load_from_disk(str(tmp_path / "saved"))
        both = whole.map(lambda row: {"coarse": row["label"]}).cast_column(
            "coarse", whole["train"].features["label"]
        )
        both.save_to_disk(str(tmp_path / "both"))
        assert refusal("hf", tmp_path / "both").endswith(
            'which column is the label? label, coarse could be; set data.keys = ["image", "label"]'
        )
        whole["train"].save_to_disk(str(tmp_path / "alone"))
        assert "is one dataset without parts: save a DatasetDict" in refusal("hf", tmp_path / "alone")
        texts = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}))
        texts.save_to_disk(str(tmp_path / "texts"))
        settings = DataSettings(name="hf", root=str(tmp_path / "texts"), keys=("text", "label"))
        with pytest.raises(
            DataError, match=r"column text: is of string, and images or arrays are read; of texts write"
        ):
            load_data(settings, ViewsSettings(), "train")

    def test_a_name_that_cannot_be_loaded_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert refusal("hf:./nowhere") == "data.name 'hf:./nowhere': there is no such folder"
        (tmp_path / "empty").mkdir()
        assert refusal("hf:./empty").startswith("hf:./empty: cannot be loaded (")
        assert refusal("hf:") == "data.name 'hf:': expected hf:NAME or hf:NAME:CONFIG"


def stream(root: str, split: str) -> Iterator[Any]:
    """A function that returns what has no index."""
    return iter([])


def test_a_function_that_returns_a_stream_is_told_of_attach() -> None:
    said = refusal(f"{__name__}:stream")
    assert (
        "a list_iterator has an order of its own and no index, and a recipe needs both; decant.attach joins"
        in said
    )


def test_settings_of_other_sources_are_refused() -> None:
    for name, wrong in (
        ("imagefolder", {"keys": ("a", "b")}),
        ("webdataset", {"axes": "HWC"}),
        ("digits", {"axes": "HWC"}),
    ):
        with pytest.raises(ValueError, match="is of a dataset of your own"):
            DataSettings(name=name, **wrong)


def test_a_png_of_a_table_is_read_as_one_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder/train/0").mkdir(parents=True)
    (tmp_path / "folder/train/1").mkdir()
    for index, image in enumerate(tables.images("train")[:4]):
        (tmp_path / f"folder/train/{index // 2}/{index}.png").write_bytes(tables.png(image))
    members = [
        one
        for index, image in enumerate(tables.images("train")[:4])
        for one in ((f"{index}.png", tables.png(image)), (f"{index}.cls", str(index // 2).encode()))
    ]
    tables.write_tar(tmp_path / "train.tar", members)
    folder, shards = (
        load_data(DataSettings(name=name, root=str(root)), ViewsSettings(size=4), "train")
        for name, root in (("imagefolder", tmp_path / "folder"), ("webdataset", tmp_path))
    )
    assert np.array_equal(everything(folder), everything(shards))
