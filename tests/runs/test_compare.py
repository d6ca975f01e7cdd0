"""`compare_run` and its command: the same protocol for all, kept fits, a table, a picture and a page."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sparsecbm import SparseCBMClassifier, runs
from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import METHODS
from sparsecbm.cli import main
from sparsecbm.config.reading import build_config
from sparsecbm.estimators.methods import LabelFreeCBM
from sparsecbm.explain.compare_plot import plot_methods
from sparsecbm.runs.compare import KEPT


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(30, 16)).astype(np.float32)
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    arrays = {"class_names": np.array(["ant", "bee", "cat", "dog"])}
    for split, n in (("train", 80), ("test", 60)):
        labels = np.arange(n) % 4
        rows = concepts[labels] + 0.2 * rng.normal(size=(n, 16))
        arrays[f"{split}_images"] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        arrays[f"{split}_labels"] = labels
    np.savez(folder / "v.npz", **arrays)
    np.savez(folder / "c.npz", embeddings=concepts, names=np.array([f"sign {j}" for j in range(30)]))
    np.savez(folder / "k.npz", embeddings=concepts[:4], names=arrays["class_names"])
    files = {key: str(folder / f"{key[0]}.npz") for key in ("concepts",)}
    return {
        "embeddings": {"path": str(folder / "v.npz"), "classes": str(folder / "k.npz"), **files},
        "output": str(folder / "out"),
    }


def test_methods_are_measured_alike_and_kept(values: dict) -> None:
    METHODS.register("short", partial(SparseCBMClassifier, max_active_concepts=8, max_iter=20))
    asked = ["label_free", "post_hoc", "labo", "short", "linear_probe", "zero_shot", "nearest_mean"]
    first = runs.compare_run(build_config(values), methods=asked, nec=[2, 1], seeds=2)
    rows = {(row["method"], row["nec"]): row for row in first.rows}
    assert len(rows) == 4 * 2 + 3
    with np.load(values["embeddings"]["path"]) as v, np.load(values["embeddings"]["concepts"]) as c:
        X, y, X_test, y_test, C = (
            *(v[k] for k in ("train_images", "train_labels", "test_images", "test_labels")),
            c["embeddings"],
        )
    model = LabelFreeCBM(C, concepts_per_class=2).fit(X, y)
    row = rows["label_free", 2]
    assert row["accuracy"] == pytest.approx(model.score(X_test, y_test))
    assert row["weights"] == np.count_nonzero(model.head_weights_) / 4
    assert row["survival"] == 1.0
    drawn = [
        LabelFreeCBM(matched_directions(C, np.random.default_rng(seed)), concepts_per_class=2).fit(X, y)
        for seed in (0, 1)
    ]
    meaningless = np.mean([other.score(X_test, y_test) for other in drawn])
    assert row["meaningless"] == pytest.approx(meaningless, abs=0.02)
    assert row["advantage"] == pytest.approx(row["accuracy"] - row["meaningless"])
    assert row["low"] <= row["advantage"] <= row["high"]
    assert row["anec"] == pytest.approx((row["accuracy"] + rows["label_free", 1]["accuracy"]) / 2)
    assert rows["zero_shot", None]["accuracy"] > 0.9
    assert rows["label_free", 1]["plausibility"] > 0.8  # class k is told by concept k, whose text is its own
    assert rows["linear_probe", None]["advantage"] is None

    output = Path(values["output"])
    kept = {path: path.stat().st_mtime_ns for path in (output / KEPT).iterdir()}
    named = {path.name.partition(".")[0] for path in kept}
    assert {"labo-0", "labo-1", "post_hoc-0", "post_hoc-0-drawn", "post_hoc-1-drawn"} <= named
    assert "post_hoc-1" not in named  # nothing in it is drawn: one fit serves every seed
    again = runs.compare_run(build_config(values), methods=[*asked, "descriptions"], nec=[1, 2], seeds=2)
    assert again.rows == first.rows  # seconds and all: nothing was fitted again
    assert {path: path.stat().st_mtime_ns for path in (output / KEPT).iterdir()} == kept
    assert again.skipped == {"descriptions": "it needs a concept file that says whose concepts it has"}
    assert json.loads((output / "compare.json").read_text())["rows"][0]["method"] == first.rows[0]["method"]
    assert Image.open(output / "compare.png").size[0] > 700
    page = (output / "compare.html").read_text()
    assert "label_free" in page
    assert "http" not in page.split("<main")[1]


def test_every_method_is_drawn_once_in_each_panel() -> None:
    rows = [
        {"method": m, "nec": k, "accuracy": 0.5 + 0.1 * i, "meaningless": 0.4, "advantage": 0.1 + 0.1 * i}
        for k in (5, 30)
        for i, m in enumerate("abc")
    ]
    figure = plot_methods([*rows, {"method": "p", "nec": None, "accuracy": 0.9, "meaningless": None}], title="$x")
    assert len(figure.axes) == 2
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["50.0", "60.0", "70.0"]


def test_an_unknown_method_is_said_and_the_command_prints_a_table(values: dict, tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match="label_free"):
        runs.compare_run(build_config(values), methods=["labelfree"])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "c.yaml"), "--methods", "label_free,labo", "--nec", "1,2", "--seeds", "2"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "label_free" in printed
    assert "compare.html" in printed
