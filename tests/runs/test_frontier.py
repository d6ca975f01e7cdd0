"""`frontier_run` and its command: a table, a picture, the point that was picked, and a report that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparsecbm import runs
from sparsecbm._base.errors import InputError
from sparsecbm.config.reading import build_config
from sparsecbm.explain.frontier_plot import plot_frontier
from sparsecbm.runs.frontier import parse_pick


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("frontier")
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(30, 16)).astype(np.float32)
    arrays = {"class_names": np.array(["ant", "bee", "cat", "dog"])}
    for split, n in (("train", 80), ("test", 60)):
        labels = np.arange(n) % 4
        rows = concepts[labels] + 0.8 * rng.normal(size=(n, 16))
        arrays[f"{split}_images"] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        arrays[f"{split}_labels"] = labels
    np.savez(folder / "v.npz", **arrays)
    np.savez(folder / "c.npz", embeddings=concepts, names=np.array([f"sign {j}" for j in range(30)]))
    return {
        "embeddings": {"path": str(folder / "v.npz"), "concepts": str(folder / "c.npz")},
        "model": {"max_iter": 20, "loss": "none", "tie": "exact"},
        "evaluation": {"baseline": False, "control": False, "examples": 1},
        "output": str(folder / "out"),
    }


def test_a_point_is_chosen_from_a_picture_trained_and_shown(values: dict) -> None:
    first = runs.frontier_run(build_config(values), nec=[1, 2], active=[2, 4])
    output = Path(values["output"])
    assert first.split == "test"
    assert first.trained is None
    stored = json.loads((output / "frontier.json").read_text())
    assert [(row["tie"], row["nec"], row["active"]) for row in stored["points"]] == [
        ("exact", 1, 2), ("exact", 1, 4), ("exact", 2, 2), ("exact", 2, 4),
    ]  # fmt: skip
    assert stored["points"][0]["advantage"] == pytest.approx(
        stored["points"][0]["accuracy"] - stored["points"][0]["meaningless"]
    )
    from PIL import Image

    assert Image.open(first.plot).size[0] > 900
    picked = runs.frontier_run(build_config(values), nec=[1, 2], active=[2, 4], pick="nec=2,active=4")
    assert picked.frontier == first.frontier
    assert picked.trained is not None
    point = picked.frontier.find(nec=2, active=4, tie="exact")
    assert picked.trained.metrics["test"]["accuracy"] == pytest.approx(point.accuracy)
    model = runs.load_model(output).classifier
    assert (model.concepts_per_class, model.max_active_concepts, model.tie) == (2, 4, "exact")
    page = picked.trained.report.read_text()
    assert "Where this model stands" in page
    assert "This model: 2 concepts a class, 4 active in a picture, tie exact" in page


def test_a_pick_is_read_or_named(values: dict) -> None:
    config = build_config(values)
    assert parse_pick("nec=5, active=8,tie=shared", config) == {"nec": 5, "active": 8, "tie": "shared"}
    with pytest.raises(InputError, match="'nec=0' is none"):
        parse_pick("nec=0,active=8", config)
    with pytest.raises(InputError, match="says nothing of active"):
        parse_pick("nec=5", config)


def test_the_picture_has_a_panel_a_tie_and_tells_what_owes_nothing() -> None:
    row = {"tie": "exact", "nec": 5, "active": 8, "accuracy": 0.7, "advantage": 0.09, "low": 0.07}
    rows = [row, {**row, "active": 16, "low": -0.01}, {**row, "tie": "free", "advantage": None, "low": None}]
    figure = plot_frontier(rows, model=row)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["exact", "free"]
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]
    assert sum(line.get_marker() == "*" for line in figure.axes[0].get_lines()) == 1
