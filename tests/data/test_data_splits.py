from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecbm._base.errors import InputError
from sparsecbm.data.splits import (
    SPLITS,
    TEST_SHARE,
    VALIDATION_SHARE,
    canonical_split,
    carve,
    choose_split,
    stratified_subset,
)


@st.composite
def labelled(draw: st.DrawFn, least: int = 3) -> np.ndarray:
    sizes = draw(st.lists(st.integers(least, 40), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)


def official_layouts(n: int) -> list[dict[str, range]]:
    """Ways for a data set of n rows to come in official splits."""
    third, half = n // 3, n // 2
    return [
        {"all": range(n)},
        {"train": range(n)},
        {"train": range(half), "test": range(half, n)},
        {"train": range(half), "val": range(half, n)},
        {"train": range(third), "validation": range(third, 2 * third), "test": range(2 * third, n)},
    ]


@given(labelled(), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_carved_parts_partition_the_rows_with_every_class_in_each(labels: np.ndarray, seed: int) -> None:
    parts = carve(labels, len(labels), seed=seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    for part, share in {"test": TEST_SHARE, "validation": VALIDATION_SHARE}.items():
        for k in np.unique(labels):
            size, taken = (labels == k).sum(), (labels[parts[part]] == k).sum()
            assert taken >= 1
            assert abs(taken - share * size) < 1
    assert set(labels[parts["train"]]) == set(labels)


@given(labelled(least=12), st.integers(0, 1000), st.integers(0, 4))
@settings(max_examples=50)
def test_train_validation_and_test_never_overlap_whatever_is_official(
    labels: np.ndarray, seed: int, layout: int
) -> None:
    labels = np.tile(np.sort(labels), 3)  # every layout's thirds and halves hold enough of every class
    official = official_layouts(len(labels))[layout]
    rows = {split: choose_split(split, official, labels, seed=seed).rows for split in SPLITS}
    for a, b in itertools.combinations(SPLITS, 2):
        assert not set(rows[a].tolist()) & set(rows[b].tolist()), (a, b)
    assert all(len(part) for part in rows.values())
    for name, part in official.items():  # official splits other than the carved one are whole
        if canonical_split(name) in ("validation", "test"):
            assert rows[canonical_split(name)].tolist() == list(part)
    assert set().union(*(set(part.tolist()) for part in rows.values())) == set(range(len(labels)))


def test_seed_decides_the_parts_in_any_process() -> None:
    code = (
        "import numpy as np, hashlib; from sparsecbm.data.splits import carve; "
        "print(hashlib.sha256(carve(np.repeat(np.arange(5), 20), 100, seed=3)['test'].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    labels = np.repeat(np.arange(5), 20)
    assert hashlib.sha256(carve(labels, 100, seed=3)["test"].tobytes()).hexdigest() == other
    assert not np.array_equal(carve(labels, 100, seed=3)["test"], carve(labels, 100, seed=4)["test"])


def test_a_class_with_one_image_is_named() -> None:
    labels = np.array([0] * 9 + [1] + [2] * 5)
    with pytest.raises(InputError, match=r"'owl' \(1 image\)") as error:
        choose_split("train", {"train": range(15)}, labels, ["ant", "owl", "eel"], what="'folder:x'")
    assert "at least 3" in str(error.value)
    assert "'folder:x'" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="at least 2"):
        choose_split("validation", {"train": range(10), "test": range(10, 15)}, labels, ["ant", "owl", "eel"])


def test_a_class_with_one_image_is_fine_where_nothing_is_carved() -> None:
    official = {"train": range(5), "val": range(5, 7), "test": range(7, 9)}
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 0, 1])
    assert choose_split("train", official, labels).rows.tolist() == [0, 1, 2, 3, 4]


def test_pictures_without_labels_are_carved_at_random() -> None:
    parts = {split: choose_split(split, {"all": range(40)}, None).rows for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [28, 4, 8]
    secret = choose_split("test", {"all": range(40)}, np.full(40, -1)).rows
    assert secret.tolist() == parts["test"].tolist()
    with pytest.raises(InputError, match="2 images"):
        choose_split("train", {"all": range(2)}, None)


def test_official_splits_can_be_used_as_another() -> None:
    official = {"train": range(60), "validation": range(60, 90), "test": range(90, 120)}
    labels = np.r_[np.arange(90) % 3, np.full(30, -1)]
    splits = {"test": "validation"}
    rows = {name: choose_split(name, official, labels, splits=splits).rows for name in SPLITS}
    assert rows["test"].tolist() == list(range(60, 90))
    assert len(rows["validation"]) == 6
    assert sorted([*rows["train"], *rows["validation"]]) == list(range(60))


@pytest.mark.parametrize(
    ("split", "official", "splits", "message"),
    [
        ("tset", {"train": range(9), "test": range(9, 12)}, None, "did you mean 'test'"),
        ("train", {"test": range(9)}, None, "no train split"),
        ("train", {"val": range(3), "valid": range(3, 9), "train": range(9, 12)}, None, "both 'val' and 'valid'"),
        ("train", {"train": range(12)}, {"test": "vaildation"}, "unknown split"),
        ("train", {"train": range(12)}, {"tests": "train"}, "did you mean 'test'"),
        ("train", {"train": range(9), "v": range(9, 12)}, {"test": "v", "val": "v"}, "uses one official split twice"),
    ],
)
def test_impossible_splits_are_named(split: str, official: dict, splits: dict | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_split(split, official, np.arange(12) % 3, splits=splits)


def test_other_official_splits_and_all_are_reachable() -> None:
    official = {"train": range(9), "extra": range(9, 20)}
    labels = np.arange(20) % 3
    assert choose_split("extra", official, labels).rows.tolist() == list(range(9, 20))
    assert choose_split("all", official, labels).rows.tolist() == list(range(20))


@given(labelled(least=1), st.integers(1, 120), st.integers(0, 1000))
@settings(max_examples=50)
def test_subset_is_stratified(labels: np.ndarray, limit: int, seed: int) -> None:
    rows = stratified_subset(labels, len(labels), limit, seed=seed)
    assert len(rows) == min(limit, len(labels))
    assert (np.diff(rows) > 0).all()
    sizes = np.bincount(labels)
    counts = np.bincount(labels[rows], minlength=len(sizes))
    if limit >= len(sizes):
        assert (counts >= 1).all()
    assert (counts <= sizes).all()
    if limit < len(labels):  # proportional beyond the one that each class is given
        least = 1 if limit >= len(sizes) else 0
        quota = least + (limit - least * len(sizes)) * (sizes - least) / max(1, (sizes - least).sum())
        assert (np.abs(counts - quota) < 1 + 1e-9).all()


def test_subset_without_labels_is_seeded() -> None:
    a, b, c = (stratified_subset(None, 50, 10, seed=seed) for seed in (1, 1, 2))
    assert a.tolist() == b.tolist() != c.tolist()
