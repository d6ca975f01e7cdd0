"""Runs whose labels are tables: several classes a picture, and concepts of vectors made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsecbm import config, runs
from sparsecbm._base.errors import InputError
from sparsecbm.config.reading import build_config, load_config
from sparsecbm.inputs.data import prepare
from sparsecbm.inputs.model_data import open_split
from sparsecbm.inputs.models import load_model
from sparsecbm.runs.predict import NO_CLASS, predictions

N, D, M, K = 240, 16, 8, 3
CONCEPTS = [f"Part {j}" for j in range(M)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of classes that do not exclude each other, of classes that do, and what their rows show."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    C = rng.random((N, M)) < 0.4
    rows = np.linalg.qr(rng.normal(size=(D, M)))[0].T
    X = (C - 0.4) @ rows + 0.1 * rng.normal(size=(N, D))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    many, one = C[:, :K].astype(int), C[:, :2] @ [1, 2]
    half = {"train_images": X[::2], "test_images": X[1::2]}
    for name, y, names in (("many", many, list("abc")), ("one", one, list("wxyz"))):
        np.savez(folder / f"{name}.npz", **half, train_labels=y[::2], test_labels=y[1::2], class_names=names)
    np.savez(folder / "concepts.npz", embeddings=rows, names=CONCEPTS)
    lines = [",".join(["row", *(name.lower() for name in CONCEPTS)])]
    lines += [",".join([f"{('train', 'test')[i % 2]}/{i // 2}", *map(str, C[i].astype(int))]) for i in range(N)]
    (folder / "parts.csv").write_text("\n".join(lines))
    return folder


def recipe(files: Path, name: str, output: Path, **more: object) -> config.RunConfig:
    embeddings = {"path": str(files / f"{name}.npz"), "concepts": str(files / "concepts.npz"), **more}
    model = {"max_iter": 60, "concepts_per_class": 3}
    return build_config({"embeddings": embeddings, "model": model, "output": str(output / "out")})


def test_several_classes_a_picture_go_through_every_command(files: Path, tmp_path: Path) -> None:
    trained = runs.train_run(recipe(files, "many", tmp_path))
    test = trained.metrics["test"]
    assert test["map"] > 0.9 > test["meaningless"]
    again = runs.evaluate_run(trained.output, output=tmp_path / "evaluation")
    assert again.metrics["map"] == test["map"]
    assert "No controls" in again.notes[0]
    assert again.metrics["meaningless"] == test["meaningless"]
    rows = (tmp_path / "evaluation" / "test-confusion.csv").read_text().split("\n")
    assert rows[0] == "class,there,said,both"
    assert "Mean average precision" in trained.report.read_text()
    stored = load_model(trained.output, inference=True)
    held = open_split(stored)
    (block,) = predictions(stored, held.ids, held.vectors, 3, 0.0)
    proba = stored.classifier.predict_proba(held.vectors)
    noted = [made.note == NO_CLASS for made in block if made.n_active]
    assert noted == (proba.max(axis=1) < 0.5)[[made.n_active > 0 for made in block]].tolist()
    says = [{k for k, p in enumerate(row) if p >= 0.5} for row, made in zip(proba, block) if made.n_active]
    assert [{"abc".index(name) for name in made.said} for made in block if made.n_active] == says
    assert max(map(len, says)) > 1
    page = trained.report.read_text()
    assert "says which of 3 classes are there" in page
    assert "Turned into <b>not " in page
    assert page.count('<p class="source">also ') > 0
    with pytest.raises(InputError, match="needs one class a picture"):
        prepare(recipe(files, "many", tmp_path))
    with pytest.raises(InputError, match="the labels do not match"):
        runs.evaluate_run(trained.output, embeddings=_unnamed(files, tmp_path))


def _unnamed(files: Path, folder: Path) -> Path:
    with np.load(files / "one.npz") as held:
        np.savez(folder / "unnamed.npz", **{key: held[key] for key in held.files if key != "class_names"})
    return folder / "unnamed.npz"


def test_concepts_of_vectors_made_elsewhere(files: Path, tmp_path: Path) -> None:
    trained = runs.train_run(recipe(files, "one", tmp_path, concept_labels=str(files / "parts.csv")))
    found = trained.metrics["test"]
    assert len(found["concepts"]["each"]) == M
    assert found["concept_auc"]["units"] > 0.95
    assert load_model(trained.output).classifier.label_counts_.sum() == M * N // 2
    again = runs.evaluate_run(trained.output, controls=False).metrics
    assert again == {key: found[key] for key in again}
    (tmp_path / "wrong.csv").write_text("row,part 1\nnowhere,1\n")
    with pytest.raises(InputError, match="name no picture and no class"):
        runs.train_run(recipe(files, "one", tmp_path, concept_labels=str(tmp_path / "wrong.csv")))


def test_paths_of_labels_are_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("images: {concept_labels: a.csv, class_labels: [b, c]}\n")
    images = load_config(tmp_path / "c.yaml").images
    assert images.concept_labels == str(tmp_path / "a.csv")
    assert images.class_labels == ["b", "c"]
