"""Datasets of users' own, through the real command where that matters: items, labels and arrays of every form are taken
or refused by name, and what is doubtful is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import external as external_data
from decant.pipeline.data import load_data
from decant.pipeline.data.samples import LabelledData
from decant.pipeline.errors import DataError
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.commands import decant, doubts, refused, succeed

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 7)).astype(np.uint8)
NAMES = ["cat", "dog", "fox"]


class Items(list[Any]):
    """A dataset that is a list; what else a dataset may have is set on it."""


DATASETS: dict[str, Callable[[str], Items]] = {}


def parts(root: str, split: str) -> Items:
    """The dataset that a test puts there, by its name."""
    return DATASETS[root](split)


def load(
    monkeypatch: pytest.MonkeyPatch, items: list[Any], split: str = "train", **more: Any
) -> LabelledData:
    """The items through `data.name = "…:parts"`; keys of the settings in `more`, others are set on the dataset."""
    forget_what_was_said()
    given = {key: more.pop(key) for key in ("keys", "axes", "test") if key in more}
    dataset = Items(items)
    dataset.__dict__.update(more)
    monkeypatch.setitem(DATASETS, "here", lambda split: dataset)
    return load_data(DataSettings(name=f"{__name__}:parts", root="here", **given), ViewsSettings(), split)


def why(monkeypatch: pytest.MonkeyPatch, items: list[Any], **more: Any) -> str:
    """Why the items are refused: one line."""
    with pytest.raises(DataError) as caught:
        load(monkeypatch, items, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{__name__}:parts: train: ")


def labelled(label: Callable[[int], Any]) -> list[Any]:
    return [(image, label(index)) for index, image in enumerate(PIXELS)]


# Items


def test_dictionaries_and_longer_tuples_are_refused_with_the_keys_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = labelled(lambda index: index % 3)
    dicts = [{"path": "p", "image": image, "label": label} for image, label in pairs]
    triples = [(index, image, label) for index, (image, label) in enumerate(pairs)]
    assert why(monkeypatch, dicts) == (
        "sample 0: items must be (input, label), found a dictionary of path, image, label; "
        'set data.keys = ["image", "label"]'
    )
    assert "found 3 values (int, ndarray, int); set data.keys = [0, 1]" in why(monkeypatch, triples)
    assert "found a dictionary of a, b; set data.keys" in why(monkeypatch, [{"a": 1, "b": 2}])
    assert "found ndarray of shape (2, 4)" in why(monkeypatch, [np.zeros((2, 4), np.uint8)])
    assert "found str" in why(monkeypatch, ["ab"])
    plain = load(monkeypatch, pairs)
    for items, keys in ((dicts, ("image", "label")), (triples, (1, 2))):
        found = load(monkeypatch, items, keys=keys)
        assert found.digest() == plain.digest()
    assert 'data.keys = ["image", "lable"]: the item is' in why(
        monkeypatch, dicts, keys=("image", "lable")
    ).replace("'", '"')


class LabelFirst(NamedTuple):
    label: Any
    image: Any


class Sample:
    image = None


def test_named_tuples_are_read_by_name_and_inputs_alone_have_no_label(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The label was taken for the input; of one value the message gave no way out."""
    pairs = labelled(lambda index: index % 3)
    named = [LabelFirst(label, image) for image, label in pairs]
    plain = load(monkeypatch, pairs).digest()
    assert load(monkeypatch, named).digest() == plain
    assert load(monkeypatch, named, keys=("image", "label")).digest() == plain
    alone = load(monkeypatch, [(image,) for image, _ in pairs], classes=NAMES)
    assert alone.digest() == load(monkeypatch, labelled(lambda index: None), classes=NAMES).digest()
    assert "found Sample; give a tuple of the two, or vars(sample) with data.keys" in why(
        monkeypatch, [Sample()]
    )
    assert "without labels give (input,)" in why(monkeypatch, [image for image, _ in pairs])


def test_class_names_are_those_of_the_features_of_a_dataset_of_dictionaries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the library `datasets` has them: images of Pillow, and a feature with `names`."""
    feature = type("ClassLabel", (), {"names": NAMES})()
    items = [
        {"img": Image.fromarray(image.transpose(1, 2, 0)), "fine_label": index % 3}
        for index, image in enumerate(PIXELS)
    ]
    found = load(
        monkeypatch, items, keys=("img", "fine_label"), features={"img": object(), "fine_label": feature}
    )
    assert found.classes == tuple(NAMES)
    assert np.array_equal(found.raw(np.arange(12)), PIXELS)


# Labels

CLASSES: dict[str, Callable[[int], Any]] = {
    "int": int,
    "int32": np.int32,
    "uint8": np.uint8,
    "an array of no axis": np.array,
    "an array of one": lambda label: np.array([label]),
    "a tensor": torch.tensor,
    "a tensor of one": lambda label: torch.tensor([label]),
    "a list of one": lambda label: [label],
    "int16 tensor": lambda label: torch.tensor(label, dtype=torch.int16),
    "a name": lambda label: NAMES[label],
    "a numpy name": lambda label: np.str_(NAMES[label]),
    "one-hot integers": lambda label: np.eye(3, dtype=np.int64)[label],
    "one-hot floats": lambda label: np.eye(3, dtype=np.float32)[label],
    "one-hot tensor": lambda label: torch.eye(3)[label],
    "one-hot list": lambda label: [float(label == place) for place in range(3)],
    "one-hot truth values": lambda label: np.eye(3, dtype=bool)[label],
}


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["held", "read as needed"])
@pytest.mark.parametrize("form", CLASSES)
def test_a_label_of_any_form_is_a_class(
    form: str, limit: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(external_data, "MAX_ARRAY_BYTES", limit)
    found = load(monkeypatch, labelled(lambda index: CLASSES[form](index % 3)), classes=NAMES)
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [0, 1, 2] * 4)
    assert np.array_equal(found.raw(np.arange(12)), PIXELS), "read again, with the same labels"
    said = capsys.readouterr().err
    assert said.count("labels are one-hot rows of 3, and are taken as their classes") == form.startswith(
        "one-hot"
    )
    assert said.count("\n") == form.startswith("one-hot")


@pytest.mark.parametrize("truth", [bool, np.bool_, torch.tensor, lambda value: np.array([value])])
def test_truth_values_are_two_classes(truth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, labelled(lambda index: truth(index % 2 == 1))).labels.tolist() == [0, 1] * 6


def test_one_hot_rows_say_how_many_classes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, labelled(lambda index: np.eye(4)[index % 3]))
    assert found.classes == ("0", "1", "2", "3")
    assert "labels are one-hot rows of 4, and there are 3 classes" in why(
        monkeypatch, labelled(lambda index: np.eye(4)[index % 3]), classes=NAMES
    )


def test_rows_that_are_not_one_hot_stay_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in (lambda index: [float(index), 1.0], lambda index: [0.0, 1.0] if index else [0.5, 0.5]):
        assert load(monkeypatch, labelled(row)).labels.dtype == np.float32


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (
            lambda index: np.array([1, 1, index % 2]),
            "label [1, 1, 0]: a row of 3 integers that is not one-hot",
        ),
        (lambda index: [0, 0, 0], "label [0, 0, 0]: a row of 3 integers that is not one-hot"),
        (lambda index: "cow", "label 'cow': is not the name of one class; known: cat, dog, fox"),
        (lambda index: b"cat", "label b'cat': expected an integer, a class name, a float"),
        (lambda index: np.eye(3)[None, 0], "found ndarray of shape (1, 3)"),
        (lambda index: {"a": 1}, "found dict of shape ()"),
        (lambda index: 3 if index else 0, "label 3 of 3 classes; labels count from 0"),
        (lambda index: 2, "every label is 2 (fox); with one class there is nothing to learn"),
        (lambda index: -100 if index else 0, "label -100; labels count from 0, −1 is none: write −1 or None"),
        (lambda index: 10**30, "sample 0: label 1000000000000000000000000000000: no class has such a number"),
    ],
)
def test_labels_that_cannot_be_classes_are_refused(
    label: Callable[[int], Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says in why(monkeypatch, labelled(label), classes=NAMES)


def test_a_number_far_beyond_the_samples_is_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    far = labelled(lambda index: 10**9 if index == 5 else index % 3)
    assert "label 1000000000: at most 16,777,216 classes, counted from 0" in why(monkeypatch, far)
    near = labelled(lambda index: 10**6 if index == 5 else index % 3)
    assert "labels go up to 1,000,000, of 4 different ones in 12 samples" in why(monkeypatch, near)
    of_many = labelled(lambda index: 999 if index == 5 else index % 3)
    assert load(monkeypatch, of_many).labels.max() == 999
    named = load(
        monkeypatch, labelled(lambda index: 1200 - index), classes=[str(label) for label in range(2000)]
    )
    assert named.labels[0] == 1200


@pytest.mark.parametrize(
    "classes", [{0: "cat", 1: "dog", 2: "fox"}, {"dog": 1, "cat": 0, "fox": 2}, np.array(NAMES), iter(NAMES)]
)
def test_class_names_may_have_numbers(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, labelled(lambda index: index % 3), classes=classes).classes == tuple(NAMES)


@pytest.mark.parametrize("classes", [3, "cat"])
def test_class_names_that_are_none_are_refused(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = why(monkeypatch, labelled(lambda index: index % 3), classes=classes)
    assert said.endswith(f"classes: expected a list of names, found {type(classes).__name__}")


def test_a_name_needs_names_to_be_found_among(monkeypatch: pytest.MonkeyPatch) -> None:
    names = labelled(lambda index: NAMES[index % 3])
    assert "label 'cat': a text needs class names to be found among: give the dataset `classes`" in why(
        monkeypatch, names
    )
    assert "label 'cat': is not the name of one class" in why(
        monkeypatch, names, classes=["cat", "cat", "dog", "fox"]
    )


@pytest.mark.parametrize(
    ("label", "classes", "says"),
    [
        (lambda index: 1 + index % 3, None, "labels go from 1 to 3, and count from 0: class 0 has no sample"),
        (
            lambda index: 2 * (index % 3),
            None,
            "labels go from 0 to 4, and none is 1, 3; number the classes from 0",
        ),
        (
            lambda index: 10 + index % 2,
            None,
            "labels go from 10 to 11, and none is 0, 1, 2, 3, 4, … (10 classes)",
        ),
        (lambda index: index % 2, NAMES, "no sample of class 2 (fox), of 3 classes"),
        (lambda index: index % 3, None, ""),
        (
            lambda index: index % 3,
            ["cat", "dog", "Cat "],
            "the classes 'cat' and 'Cat ' differ in capitals, spaces",
        ),
        (lambda index: index % 3, NAMES, ""),
    ],
)
def test_labels_that_leave_classes_out_are_doubted(
    label: Any, classes: Any, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(monkeypatch, labelled(label), **({} if classes is None else {"classes": classes}))
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == bool(says)
    load(monkeypatch, labelled(label), "test", **({} if classes is None else {"classes": classes}))
    assert capsys.readouterr().err == "", "a test part may lack a class"


def floats(split: str) -> Items:
    return Items(labelled(lambda index: float(index % 3)) * (2 if split == "train" else 1))


def other_order(split: str) -> Items:
    items = Items(labelled(lambda index: index % 3)[: 12 if split == "train" else 9])
    items.classes = NAMES if split == "train" else NAMES[1:] + NAMES[:1]  # type: ignore[attr-defined]
    return items


def other_floats(split: str) -> Items:
    return Items(
        (image if split == "train" else image / 255, label) for image, label in labelled(lambda i: i % 3)
    )


def fewer(split: str) -> Items:
    items = Items(labelled(lambda index: index % (3 if split == "train" else 2)))
    items.classes = NAMES if split == "train" else NAMES[:2]  # type: ignore[attr-defined]
    return items


def spelt(name: str) -> Callable[[str], Items]:
    """The test part has another spelling of `café`."""

    def parts(split: str) -> Items:
        items = Items(labelled(lambda index: index % 2)[: 12 if split == "train" else 9])
        items.classes = ["café" if split == "train" else name, "dog"]  # type: ignore[attr-defined]
        return items

    return parts


def splits(monkeypatch: pytest.MonkeyPatch, dataset: Callable[[str], Items], *words: str) -> Splits:
    forget_what_was_said()
    monkeypatch.setitem(DATASETS, "here", dataset)
    return Splits.load(
        load_recipe("digits", [f"data.name={__name__}:parts", "data.root=here", *words]).settings
    )


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (floats, "whose values are whole numbers (0, 1, 2; classes are integers, which data.task = "),
        (
            other_order,
            "the same classes in another order, so that their labels mean different classes: train cat, dog, ",
        ),
        (
            other_floats,
            "train inputs are uint8, test inputs float32: uint8 images are scaled to 0 to 1, and floats",
        ),
        (fewer, "the train and test parts have different classes: test lacks fox"),
        (spelt("Café "), "'café' and 'Café ' differ in capitals or spaces alone: give both folders one name"),
        (spelt("cafe\N{COMBINING ACUTE ACCENT}"), "are one name in two forms of Unicode (NFC and NFD, which"),
    ],
)
def test_parts_that_do_not_fit_are_refused(dataset: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="parts") as caught:
        splits(monkeypatch, dataset)
    assert says in str(caught.value)


def test_a_regression_on_whole_numbers_is_one_where_the_recipe_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert splits(monkeypatch, floats, "student.objective=regression").test.data.labels.dtype == np.float32


def test_a_test_part_that_is_the_training_part_is_doubted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other = (labelled(lambda index: index % 3) for _ in range(2))
    splits(monkeypatch, lambda split: Items(same))
    assert "the test part is the training part, sample for sample" in capsys.readouterr().err
    splits(monkeypatch, lambda split: Items(other if split == "train" else other[::-1]))
    assert "12 of 12 images of the test part are in the training part too" in capsys.readouterr().err


@pytest.mark.parametrize(("common", "doubted"), [(3, True), (1, True), (0, False)])
def test_images_in_both_parts_are_counted(
    common: int, doubted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = labelled(lambda index: index % 3)
    splits(monkeypatch, lambda split: Items(items[:6] if split == "train" else items[6 - common : 12]))
    said = capsys.readouterr().err
    expected = (
        f"{common} of {6 + common} images of the test part are in the training part too, pixel for pixel"
    )
    assert (expected in said) if doubted else said == ""


def test_that_a_test_part_has_no_labels_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = labelled(lambda index: index % 3)
    splits(
        monkeypatch, lambda split: Items(items[:6] if split == "train" else [(x, None) for x, _ in items[6:]])
    )
    assert "no sample of the test part has a label, so no accuracy is measured" in capsys.readouterr().err


def test_a_dataset_with_random_transforms_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Random(Items):
        def __getitem__(self, index: Any) -> Any:
            image, label = super().__getitem__(index)
            return image if torch.rand(()) < 0.5 else image[..., ::-1], label

    monkeypatch.setitem(DATASETS, "here", lambda split: Random(labelled(lambda index: index % 3)))
    with pytest.raises(DataError, match=r"is another input each time it is read.*views\.augment"):
        load_data(DataSettings(name=f"{__name__}:parts", root="here"), ViewsSettings(), "train")


def test_a_function_is_given_the_part_that_the_recipe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def told(split: str) -> Items:
        asked.append(split)
        return Items(labelled(lambda index: index % 3)[len(asked) :])

    splits(monkeypatch, told, "data.test=validation")
    assert asked == ["train", "validation"]


# Inputs


def given(inputs: Any) -> list[Any]:
    return [(value, index % 2) for index, value in enumerate(inputs)]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (
            PIXELS.transpose(0, 2, 3, 1),
            'shape (6, 7, 3) seems to be (H, W, C), and inputs are (C, H, W): set data.axes = "HWC"',
        ),
        (PIXELS.transpose(0, 2, 3, 1) / 255, "shape (6, 7, 3) seems to be (H, W, C)"),
        (PIXELS.astype(np.int64), "found int64; give pixels of 0 to 255 as uint8"),
        (PIXELS > 100, "found bool; give pixels of 0 to 255 as uint8"),
        (["a/b.png"] * 4, "found str a/b.png: open the image in the dataset, as with PIL"),
        ([None] * 4, "images, uint8 or float arrays, found NoneType"),
        ([0.5] * 4, "images, uint8 or float arrays, found a single number"),
        (
            [np.ma.masked_less(image / 255, 0.3) for image in PIXELS],
            "found a masked array: give what is to stand",
        ),
        (
            [PIXELS[0], PIXELS[1][:1]],
            "sample 1: uint8 (1, 6, 7), where the first is uint8 (3, 6, 7); all must be "
            "alike (views.channels brings",
        ),
        (np.full((4, 3, 2, 2), np.nan), "sample 0: its input has NaN or infinity"),
        (np.array([[0.0], [1.0], [np.inf]]), "sample 2: its input has NaN or infinity"),
    ],
)
def test_inputs_that_cannot_be_right_are_refused(
    inputs: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says in why(monkeypatch, given(inputs))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (PIXELS.astype(np.float32), "float images of values from 0 to 255, which seem to be pixels"),
        ((PIXELS / 255).astype(np.uint8), "no pixel is above 1, and uint8 images go to 255"),
        (PIXELS / 255, ""),
        (PIXELS / 128 - 1, ""),
        (PIXELS.reshape(12, -1).astype(np.float32), ""),
        (PIXELS, ""),
    ],
)
def test_inputs_of_a_doubtful_range_are_said(
    inputs: Any, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(monkeypatch, given(inputs))
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == bool(says)


@pytest.mark.parametrize("form", ["with gradients", "bfloat16", "channels last"])
def test_tensors_of_any_form_are_taken_by_their_values(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(PIXELS) / 256  # which bfloat16 holds
    forms = {
        "with gradients": images.clone().requires_grad_(),
        "bfloat16": images.bfloat16(),
        "channels last": images.to(memory_format=torch.channels_last),
    }
    assert np.array_equal(load(monkeypatch, given(forms[form])).raw(np.arange(12)), images.numpy())


def test_channels_that_come_last_are_taken_where_the_recipe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    last = load(monkeypatch, given(PIXELS.transpose(0, 2, 3, 1)), axes="HWC")
    assert last.digest() == load(monkeypatch, given(PIXELS)).digest()
    assert load(monkeypatch, given(PIXELS.transpose(0, 2, 3, 1)), axes="CHW").input_shape == (6, 7, 3)
    assert load(monkeypatch, given(PIXELS[:, 0]), axes="HWC").input_shape == (1, 6, 7), "grey, as MNIST's"


# Through the command

MINE = """
import numpy as np
import torch
class Dicts:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index):
        random = np.random.default_rng(index)
        return {"image": random.integers(0, 256, (3, 8, 8), dtype=np.uint8), "label": index % 3}
def data(root, split): return torch.utils.data.Subset(Dicts(39), range(30) if split == "train" else range(30, 39))
"""


def test_the_command_says_what_items_it_found_and_takes_the_keys(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    words = ["--set", "data.name=mine:data", "--set", "teacher.network=linear", "--set", "teacher.epochs=1"]
    said = refused(decant("teacher", *words, "--set", "teacher.warmup_epochs=0", cwd=tmp_path))
    assert said == (
        "decant: mine:data: train: sample 0: items must be (input, label), found a dictionary of image, label; "
        'set data.keys = ["image", "label"]'
    )
    keys = ("--set", 'data.keys=["image", "label"]')
    done = decant("teacher", *words, "--set", "teacher.warmup_epochs=0", *keys, cwd=tmp_path)
    succeed(done)
    assert doubts(done) == ""


def test_keys_belong_to_a_dataset_of_ones_own(tmp_path: Path) -> None:
    said = refused(decant("teacher", "--set", 'data.keys=["a", "b"]', cwd=tmp_path))
    assert "data.keys: is of a dataset of your own" in said
    assert "data.test: digits has one test part" in refused(
        decant("teacher", "--set", "data.test=val", cwd=tmp_path)
    )
