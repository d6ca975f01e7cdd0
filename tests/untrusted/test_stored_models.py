"""60 tamperings of a model folder: one clear line each, or predictions within every promise; saves that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sparsecbm import ConceptMatrixSearch, DescriptionClassifier, LinearProbe, SparseCBMClassifier
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.estimators.inference import InferenceModel

K, M, D = 3, 7, 6
Tampering = tuple[str, Callable[[dict[str, Any]], Any], Callable[[dict[str, np.ndarray]], Any]]


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(60) % K
    return {"X": rng.normal(size=(K, D))[y] + 0.3 * rng.normal(size=(60, D)), "y": y, "C": rng.normal(size=(M, D))}


def fitted(data: dict[str, np.ndarray], **options: Any) -> SparseCBMClassifier:
    given = {"max_active_concepts": 2, "concepts_per_class": 2, "max_iter": 5, "random_state": 0, "verbose": False}
    return SparseCBMClassifier(data["C"], **{**given, **options}).fit(data["X"], data["y"])


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "model"
    fitted(data).save(path)
    return path


def nothing(_: Any) -> None:
    return None


def setting(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = to

    return change


def making(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = np.ascontiguousarray(make(arrays[name]))

    return change


def tamperings() -> Iterator[Tampering]:
    """Of descriptions, then of arrays."""
    for keys, values in {
        ("parameters", "max_active_concepts"): (1000, 1, None, True, "2", 2.5, -1, [2]),
        ("parameters", "concepts_per_class"): (1, None, "2"),
        ("parameters", "nonnegative"): (False, "no", 1),
        ("parameters", "temperature"): (1.0, [1.0], [0.1, 1.0]),
        ("parameters", "loss"): ("none", "system", 3),
        ("parameters", "batch_size"): (0, 1e400),
        ("parameters", "random_state"): ({"RandomState": {}}, "now"),
        ("parameters", "log_with"): ("tensorboard",),
        ("gate", "name"): ("dense", "binary_concrete", "os.system"),
        ("gate", "options"): ({}, 3, {"max_active_concepts": 1000, "nonnegative": True}, {"command": "ls"}),
        ("classes", "values"): ([0, 1], [0, 0, 1], ["a", "b", "c"], [0, 1, 2, 3], 3),
        ("classes", "dtype"): ("<U100000000", "O", "<M8[s]", "i1,i1"),
        ("concept_names",): (["a"] * M, ["n" * 20_000, *map(str, range(M - 1))], list(range(M)), None),
        ("feature_names_in",): (["a"], 3),
        ("n_features_in",): (5, 10**30, "6"),
        ("history",): ([], [{}], [{"step": "ten"}]),
        ("metadata",): (3, {"class_names": 3}, {"class_names": ["a"]}),
        ("certificate",): ("good",),
    }.items():
        for value in values:
            yield f"{'.'.join(keys)} = {str(value)[:40]}", setting(*keys, to=value), nothing
    for name, make in (
        ("head.weight", lambda a: a * np.nan),
        ("head.weight", lambda a: a.astype(np.float16)),
        ("head.weight", lambda a: a * 0 + 1),
        ("head.weight", lambda a: a * 1e300),
        ("head.intercept", lambda a: a[:-1]),
        ("head.intercept", lambda a: a + np.inf),
        ("bottleneck.bias", lambda a: a[:1]),
        ("bottleneck.weight", lambda a: a.T),
        ("bottleneck.weight", lambda a: a * np.float32(1e38)),
        ("bottleneck.weight", lambda a: a.astype(np.int32)),
        ("gate.gain", lambda a: a + np.float32(1e30)),
        ("gate.gain", lambda a: a[None]),
        ("scores.scale", lambda a: a * 0),
        ("scores.mean", lambda a: a.astype(bool)),
        ("scores.concept_embeddings", lambda a: a * 9),
    ):
        yield f"array {name}", nothing, making(name, make)
    yield "an array that is missing", nothing, lambda arrays: arrays.pop("bottleneck.bias")
    yield "an array of another gate", nothing, lambda arrays: arrays.update({"gate.log_threshold": np.ones(M, "f4")})


def test_sixty_tamperings(folder: Path, data: dict[str, np.ndarray], tmp_path: Path) -> None:
    good, arrays = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    wrong, count = [], 0
    for count, (name, edit, make) in enumerate(tamperings(), 1):
        here = tmp_path / str(count)
        here.mkdir()
        config, changed = json.loads(json.dumps(good)), dict(arrays)
        edit(config)
        make(changed)
        save_file(changed, here / "model.safetensors")
        config["sha256"] = hashlib.sha256((here / "model.safetensors").read_bytes()).hexdigest()
        (here / "config.json").write_text(json.dumps(config))
        for reader in (SparseCBMClassifier, InferenceModel):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    wrong += [f"{name}: {text}" for text in broken(reader.load(here), data["X"].astype("f4"))]
            except InputError as error:
                if "\n" in str(error) or not 8 <= len(str(error)) <= 500:
                    wrong.append(f"{name}: {str(error)[:600]!r}")
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert count >= 60


def broken(model: Any, X: np.ndarray) -> Iterator[str]:
    """Promises that a model which loads does not keep."""
    A, shares = model.transform(X), model.predict_proba(X)
    if not (np.isfinite(A).all() and np.isfinite(shares).all()):
        yield "numbers that are not finite"
    if model.max_active_concepts is not None and (A != 0).sum(axis=1).max() > model.max_active_concepts:
        yield "too many active concepts"
    limit = getattr(model, "concepts_per_class", None)
    if limit is not None and np.count_nonzero(model.head_weights_) > limit * K:
        yield "too many head weights"
    if getattr(model, "log_with", None) or getattr(model, "log_dir", None):
        yield "it names a tracker"


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": NaN}', '{"a": -Infinity}', '{"a": [1, Infinity]}']
)
def test_keys_that_are_there_twice_and_no_numbers(text: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    good = (folder / "config.json").read_text().rstrip()[:-1]
    (tmp_path / "config.json").write_text(f"{good}, {text[1:]}")
    with pytest.raises(StoredFileError, match="is not valid JSON"):
        SparseCBMClassifier.load(tmp_path)


def test_every_estimator_reads_by_the_same_schema(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    T = {name: data["C"][i : i + 2] for i, name in enumerate("abc")}
    models = {
        "coef": LinearProbe().fit(data["X"], data["y"]),
        "rule.weights": ConceptMatrixSearch(data["C"]).fit(T),
        "descriptions": DescriptionClassifier().fit(T),
    }
    for name, model in models.items():
        for make in (lambda a: a[:-1], lambda a: a * np.nan, lambda a: a.astype(np.float32), lambda a: a > 0):
            model.save(tmp_path / name)
            arrays = load_file(tmp_path / name / "model.safetensors")
            making(name, make)(arrays)
            save_file(arrays, tmp_path / name / "model.safetensors")
            config = json.loads((tmp_path / name / "config.json").read_text())
            config["sha256"] = hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
            (tmp_path / name / "config.json").write_text(json.dumps(config))
            with pytest.raises(StoredFileError, match=name) as caught:
                type(model).load(tmp_path / name)
            assert "\n" not in str(caught.value)


# -- what save leaves -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")
@pytest.mark.parametrize("step", range(1, 12))
def test_a_kill_inside_save_leaves_the_old_model_or_the_new(step: int, data, tmp_path: Path) -> None:
    old, new = fitted(data), fitted(data, random_state=1)
    old.save(tmp_path)
    child = os.fork()
    if child == 0:
        left = iter(range(step - 1))
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (Path, "replace"), (Path, "write_bytes")):
            real = getattr(owner, name)

            def dying(*given: Any, real: Any = real, **named: Any) -> Any:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)

            setattr(owner, name, dying)
        new.save(tmp_path)
        os._exit(0)
    os.waitpid(child, 0)
    found = SparseCBMClassifier.load(tmp_path).logits(data["X"])
    assert any(np.array_equal(found, model.logits(data["X"])) for model in (old, new))
    new.save(tmp_path)
    np.testing.assert_array_equal(SparseCBMClassifier.load(tmp_path).logits(data["X"]), new.logits(data["X"]))
    assert (tmp_path / "config.json").exists()
    assert not (tmp_path / ".model.safetensors.new").exists()


def test_a_refused_save_leaves_the_old_model(data, tmp_path: Path) -> None:
    model = fitted(data)
    for save in (model.save, model.save_pretrained):
        save(tmp_path / "m")
        (tmp_path / "m" / "notes.txt").write_text("mine")
        model.metadata_ = {"sound": object()}
        with pytest.raises(InputError, match="JSON"):
            save(tmp_path / "m")
        model.metadata_ = {}
        SparseCBMClassifier.load(tmp_path / "m")
        assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    model.set_params(max_active_concepts=1)  # not what it was fitted with
    with pytest.raises(InputError, match="cannot be saved"):
        model.set_params(max_active_concepts="2").save(tmp_path / "m")


def test_nothing_that_save_writes_names_a_place_of_this_machine(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = fitted(data, log_dir=tmp_path / "logs")
    model.metadata_ = {"from": tmp_path / "vectors.npz"}
    model.save(tmp_path / "kept")
    assert b"logs" not in (tmp_path / "kept" / "config.json").read_bytes()
    model.metadata_ |= {"images": {"spec": f"folder:{tmp_path}/photos"}, "paths": [f"{tmp_path}/x", "~/y", "./logs"]}
    noted = dict(model.metadata_)
    model.save_pretrained(tmp_path / "published")
    assert model.metadata_ == noted
    places = {str(Path.home()), str(tmp_path), str(Path.cwd()), "logs"}
    for file in (tmp_path / "published").iterdir():
        assert not [place for place in places if place.encode() in file.read_bytes()], file
    found = SparseCBMClassifier.load(tmp_path / "published").metadata_
    assert found["from"] == "vectors.npz"
    assert found["images"] == {"spec": "folder:(not published)"}


def test_everything_that_was_given_and_learned_comes_back(data, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(data["X"], columns=[f"f{i}" for i in range(D)])
    relevance = np.random.default_rng(0).uniform(size=(K, M))
    state = np.random.RandomState(3)
    model = fitted({**data, "X": X}, loss="contrastive", concept_relevance=relevance, random_state=state)
    model.save(tmp_path)
    back = SparseCBMClassifier.load(tmp_path)
    assert back.feature_names_in_.tolist() == list(X.columns)
    assert back.certificate_ == model.certificate_
    assert back.history_ == model.history_
    left_out = ("concept_embeddings", "concept_names", "concept_relevance", "random_state")
    same = {k: v for k, v in model.get_params().items() if k not in left_out}
    assert {k: v for k, v in back.get_params().items() if k not in left_out} == same
    np.testing.assert_array_equal(back.concept_relevance, relevance)
    assert back.random_state.randint(10**6) == model.random_state.randint(10**6)
    with pytest.raises(ValueError, match="feature names"):
        back.predict(X[X.columns[::-1]])


def test_from_pretrained_swallows_nothing(data, tmp_path: Path) -> None:
    fitted(data).save_pretrained(tmp_path / "m")
    for argument in ({"max_active_concepts": 1}, {"bogus": 1}, {"concept_names": ["a"]}):
        with pytest.raises(InputError, match=next(iter(argument))):
            SparseCBMClassifier.from_pretrained(tmp_path / "m", **argument)
    with pytest.raises(InputError, match="private"):
        fitted(data).save_pretrained(tmp_path / "m", private=True)
