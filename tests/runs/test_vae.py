"""`sparsecbm vae CONFIG`: every task end to end, the files it writes, data from folders, mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.config import VaeConfig, build_config, builtin_configs, dump_config, load_config
from sparsecbm.runs import vae_run
from sparsecbm.vae import TrainingOptions, load_pictures, load_vae

SMALL = {
    "data": {"max_train": 120, "max_validation": 40, "max_test": 40},
    "model": {"groups": [6, 6]},
    "training": {"epochs": 2, "evaluate_every": 1},
    "evaluation": {"samples": 50, "pictures": 9},
}


def config(output: Path, **sections):
    merged = {**SMALL, "output": str(output)}
    for name, section in sections.items():
        merged[name] = {**merged.get(name, {}), **section} if isinstance(section, dict) else section
    return build_config(merged, kind=VaeConfig)


def test_gumbolt_end_to_end(tmp_path: Path) -> None:
    result = vae_run(config(tmp_path, model={"prior": "rbm"}, objective={"samples": 2}, evaluation={"samples": 2000}))
    test = result.metrics["test"]
    assert test["effective_sample_size"] >= 150
    assert test["interval"][0] < test["log_likelihood"] < test["interval"][1]
    assert test["log_partition"]["method"] == "enumeration"
    assert json.loads((tmp_path / "metrics.json").read_text()) == result.metrics
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "metrics.json", "config.yaml", "model", "samples.png", "reconstructions.png", "learning_curve.png"
    }  # fmt: skip
    for name in ("samples", "reconstructions", "learning_curve"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 10
    model = load_vae(tmp_path / "model")
    assert model.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 64)
    again = vae_run(load_config(tmp_path / "config.yaml", kind=VaeConfig))
    assert again.metrics["test"] == test  # same configuration, same number, to the last digit


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"task": "structured", "objective": {"estimator": "score_function"}}, "log_likelihood"),
        ({"task": "autoencoder", "objective": {"estimator": "straight_through"}}, "log_likelihood"),
        (
            {"task": "semisupervised", "model": {"hidden": [16], "continuous": 4}, "objective": {"labels": 20}},
            "accuracy",
        ),
        ({"objective": {"name": "density", "prior_temperature": 0.5}, "data": {"binarisation": "dynamic"}}, "elbo"),
        (
            {
                "model": {"latents": "categorical", "categories": 4, "groups": [3], "prior": "categorical"},
                "objective": {"name": "exact"},
            },
            "log_likelihood",
        ),
    ],
)
def test_other_tasks_end_to_end(sections: dict, key: str, tmp_path: Path) -> None:
    metrics = vae_run(config(tmp_path, **sections)).metrics
    assert np.isfinite(metrics["test"][key])
    assert len(metrics["history"]) == 2
    assert (tmp_path / "learning_curve.png").exists()


def test_the_command_and_the_toy(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from sparsecbm.cli import main

    changes = ["data.name=digits", "training.epochs=3", "data.max_train=400"]
    options = [word for key in changes for word in ("--set", key)]
    with pytest.raises(SystemExit) as stopped:
        main(["vae", "vae_toy", "--output", str(tmp_path / "toy"), *options])
    assert stopped.value.code == 0
    assert "version 1" in capsys.readouterr().out
    held = json.loads((tmp_path / "toy" / "metrics.json").read_text())["versions"]
    assert held["exact expectation"]["objective"] == pytest.approx(held["exact expectation"]["elbo"], abs=1e-4)
    assert held["exact expectation"]["gradient"]["spread"] == pytest.approx(0, abs=1e-4)
    assert all(found["elbo"] < found["log_likelihood"] for found in held.values())
    # Ten categories side by side, and the names of the rows beside them.
    assert Image.open(tmp_path / "toy" / "categories.png").size[0] > 10 * 59 + 3
    with pytest.raises(SystemExit) as stopped:
        main(["vae", "vae_digits_gumbolt", "--set", "model.prior=rmb"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "did you mean 'rbm'" in error
    assert error.count("\n") == 1
    small = ["data.max_train=60", "data.max_validation=20", "data.max_test=20", "training.epochs=1"]
    chosen = [word for key in [*small, "evaluation.samples=5", "model.hidden=[]"] for word in ("--set", key)]
    with pytest.raises(SystemExit) as stopped:
        main(["vae", "vae_digits_gumbolt", "--output", str(tmp_path / "run"), *chosen])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert re.search(r"log-likelihood\s+>= -\d+\.\d\d nats", out), out  # five samples support no interval
    assert "support no interval" in out
    assert "95% interval" not in out


def test_built_in_configurations_are_valid_and_read_back(tmp_path: Path) -> None:
    names = builtin_configs("vae")
    assert {"vae_digits_gumbolt", "vae_mnist_gumbolt", "vae_toy"} <= set(names)
    for name in names:
        found = load_config(name, kind=VaeConfig)
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(found), encoding="utf-8")
        assert load_config(path, kind=VaeConfig) == found


def test_training_section_mirrors_the_options() -> None:
    from dataclasses import asdict

    assert build_config({}, kind=VaeConfig).training.model_dump() == asdict(TrainingOptions())


def test_names_mirror_the_registries() -> None:
    from typing import get_args

    from sparsecbm.config.schema import VaeDataConfig, VaeObjectiveConfig
    from sparsecbm.vae import DATA_SETS
    from sparsecbm.vae.data import BINARISATIONS
    from sparsecbm.vae.tasks import ESTIMATORS

    for section, key, registry in (
        (VaeDataConfig, "binarisation", BINARISATIONS),
        (VaeObjectiveConfig, "estimator", ESTIMATORS),
    ):
        assert set(get_args(section.model_fields[key].annotation)) == set(registry), key
    assert set(get_args(VaeDataConfig.model_fields["name"].annotation)) == {*DATA_SETS, "images"}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for model, objective, message in (
        ({"prior": "rbm"}, {"name": "density"}, "prior 'rbm' has no Concrete density, which objective 'density' needs"),
        ({"prior": "rbm", "prior_options": {"learn": False}}, {}, "unknown option of prior 'rbm' 'learn'"),
        ({}, {"prior_temperature": 0.5}, "unknown option of objective 'mass' 'prior_temperature'"),
        ({"prior": "categorical"}, {}, "prior 'categorical' is over categorical latents, got bernoulli"),
    ):
        with pytest.raises(InputError, match=message):
            vae_run(config(tmp_path / "b", model=model, objective=objective))
    with pytest.raises(InputError, match=r"needs model.likelihood=gaussian"):
        vae_run(config(tmp_path / "b", data={"binarisation": "none"}))
    with pytest.raises(InputError, match=r"unknown key 'objective.sample'; did you mean 'objective.samples'"):
        build_config({"objective": {"sample": 5}}, kind=VaeConfig)
    with pytest.raises(StoredFileError, match=r"holds no mnist: expected mnist.npz or mnist/mnist.npz"):
        vae_run(config(tmp_path / "a", data={"name": "mnist", "folder": str(tmp_path)}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.json").write_text("{}")
    with pytest.raises(StoredFileError, match="which no earlier run wrote"):
        vae_run(config(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"unknown binarisation 'stat'"):
        load_pictures("digits", binarisation="stat")


def test_pictures_are_binary_and_splits_apart() -> None:
    static = load_pictures("digits", seed=1)
    assert [len(static.train), len(static.validation), len(static.test)] == [1237, 200, 360]
    assert set(np.unique(static.train)) == {0, 1}
    assert np.array_equal(static.train, load_pictures("digits", seed=1).train)
    assert not np.array_equal(static.train, load_pictures("digits", seed=2).train)
    dynamic = load_pictures("digits", binarisation="dynamic", seed=1)
    assert dynamic.train.max() == 255
    assert np.array_equal(dynamic.test, static.test)
    # A static draw is faithful: its means are the intensities', pixel by pixel, within 5 standard errors.
    gap = static.pixel_means - dynamic.pixel_means
    assert (gap.abs() < 5 * 0.5 / np.sqrt(1237)).all()
    assert len(load_pictures("digits", binarisation="threshold", max_train=7).train) == 7


def test_pictures_of_ones_own_and_of_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(20):
            image = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            image.save(tmp_path / "pictures" / label / f"{i}.png")
    own = {"name": "images", "images": f"folder:{tmp_path / 'pictures'}", "size": 6}
    metrics = vae_run(config(tmp_path / "out", data=own)).metrics
    assert metrics["data"]["train"] > 0
    assert metrics["data"]["test"] > 0
    # Sorted by class, as such files can be; every picture has the grey of its class.
    y_train, y_test = (np.repeat(np.arange(4, dtype=np.uint8), n) for n in (2550, 10))
    x_train, x_test = (np.broadcast_to(50 * y[:, None, None], (len(y), 4, 4)) for y in (y_train, y_test))
    np.savez(tmp_path / "mnist.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    found = load_pictures("mnist", tmp_path, binarisation="dynamic", max_train=100, max_validation=100, max_test=20)
    assert (len(found.train), len(found.validation), len(found.test)) == (100, 100, 20)
    assert np.array_equal(found.train[:, 0], 50 * found.labels["train"])
    assert all(set(y) == {0, 1, 2, 3} for y in found.labels.values())


def test_the_usual_split_of_omniglot(tmp_path: Path) -> None:
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (50, 28, 28))
    flat = pictures.transpose(0, 2, 1).reshape(50, -1).T / 255  # a column a picture, which lies column by column
    savemat(tmp_path / "chardata.mat", {"data": flat[:, :40], "testdata": flat[:, 40:]})
    found = load_pictures("omniglot", tmp_path, binarisation="none")
    assert (len(found.train), len(found.validation), len(found.test)) == (36, 4, 10)
    assert np.array_equal(np.rint(255 * found.test).astype(int), pictures[40:].reshape(10, -1))
    held = {tuple(row) for row in np.rint(255 * np.concatenate([found.train, found.validation])).astype(int)}
    assert held == {tuple(row) for row in pictures[:40].reshape(40, -1)}
    assert "40 / 10" in found.note
    (tmp_path / "chardata.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(StoredFileError, match=r"is not Omniglot's chardata.mat"):
        load_pictures("omniglot", tmp_path)


def test_the_page_runs_and_names_what_exists() -> None:
    import sparsecbm.vae

    page = Path(sparsecbm.vae.__file__).with_name("README.md")
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), {})
    for path in re.findall(r"(?:scripts|tests|notebooks)/[\w./-]+\.\w+", text):
        assert (page.parents[2] / path).exists(), path
    for name in re.findall(r"sparsecbm vae (\w+)", text):
        assert name in builtin_configs("vae"), name


def test_real_mnist_and_omniglot(data_dir: Path) -> None:
    mnist = load_pictures("mnist", data_dir)
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (50_000, 10_000, 10_000)
    assert mnist.shape == (28, 28)
    assert {split: len(y) for split, y in mnist.labels.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert all(np.bincount(y[:1000], minlength=10).min() > 60 for y in mnist.labels.values())  # the file is sorted
    assert 0.12 < mnist.train.mean() < 0.14  # MNIST's mean intensity is 0.1307
    omniglot = load_pictures("omniglot", data_dir)
    assert (len(omniglot.train), len(omniglot.validation), len(omniglot.test)) == (3456, 384, 1000)
    assert "24,345" in omniglot.note
