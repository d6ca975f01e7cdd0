"""SparseCBMClassifier: scikit-learn's own checks, promises on sparsity and meaning, storage, bad input."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsecbm import SparseCBMClassifier
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.estimators.inference import InferenceModel

D, M, K = 24, 60, 5


@pytest.fixture(scope="module")
def problem() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(300) % K
    X = rng.normal(size=(K, D))[y] + rng.normal(scale=0.7, size=(300, D))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    C = rng.normal(size=(M, D))
    return {
        "X": X[:200],
        "y": y[:200],
        "X_test": X[200:],
        "y_test": y[200:],
        "C": C / np.linalg.norm(C, axis=1)[:, None],
    }


@pytest.fixture(scope="module")
def fitted(problem: dict[str, np.ndarray]) -> SparseCBMClassifier:
    names = [f"thing {j}" for j in range(M)]
    model = SparseCBMClassifier(problem["C"], names, max_active_concepts=6, max_iter=120, random_state=0)
    return model.fit(problem["X"], problem["y"])


# Batches are drawn by row, so a picture that is there twice is not quite one that counts double.
UNLIKE = dict.fromkeys(
    ["check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"], "batches"
)


@parametrize_with_checks([SparseCBMClassifier(max_iter=200)], expected_failed_checks=lambda _: UNLIKE)
def test_scikit_learn_estimator_checks(estimator, check) -> None:
    check(estimator)


def test_active_concepts_are_limited_and_the_rest_is_exactly_zero(fitted, problem) -> None:
    A = fitted.transform(problem["X_test"])
    assert A.shape == (100, M)
    assert A.dtype == np.float32
    assert int((A != 0).sum(1).max()) <= 6
    assert (A >= 0).all()
    assert fitted.score(problem["X_test"], problem["y_test"]) > 0.85


def test_the_score_is_the_sum_of_contributions(fitted, problem) -> None:
    X = problem["X_test"]
    scores = fitted.decision_function(X)
    np.testing.assert_allclose(
        scores, fitted.transform(X).astype(float) @ fitted.head_weights_.T + fitted.head_intercept_, atol=1e-9
    )
    for i, ledger in enumerate(fitted.explain(X)):
        assert ledger.score == pytest.approx(scores[i].max(), abs=1e-6)
        assert ledger.n_active <= 6


def test_units_keep_their_concepts_meaning(fitted, problem) -> None:
    u, p = fitted.units(problem["X"]), fitted.concept_scores(problem["X"])
    u, p = u - u.mean(0), p - p.mean(0)
    correlation = (u * p).sum(0) / np.linalg.norm(u, axis=0) / np.linalg.norm(p, axis=0)
    assert correlation.min() > 0.85  # min_alignment=0.9 holds over the shrunk covariance
    frozen = clone(fitted).set_params(min_alignment=1.0, max_iter=30).fit(problem["X"], problem["y"])
    u = frozen.units(problem["X"])
    u = u - u.mean(0)
    np.testing.assert_allclose((u * p).sum(0) / np.linalg.norm(u, axis=0) / np.linalg.norm(p, axis=0), 1.0, atol=1e-4)


def test_scores_are_standardised_with_training_statistics_only(fitted, problem) -> None:
    psi = problem["X"] @ problem["C"].T
    expected = (problem["X_test"] @ problem["C"].T - psi.mean(0)) / psi.std(0)
    np.testing.assert_allclose(fitted.concept_scores(problem["X_test"]), expected, atol=1e-4)
    # One image's scores do not depend on the others it came with.
    np.testing.assert_allclose(fitted.concept_scores(problem["X_test"][:1]), expected[:1], atol=1e-4)


@pytest.mark.parametrize("variant", ["default", "published"])
@pytest.mark.parametrize("loss", ["gumbel", "contrastive", "l1", "similarity", "none"])
def test_every_loss_trains_the_head_and_repeats(loss: str, variant: str, problem) -> None:
    model = SparseCBMClassifier(problem["C"], loss=loss, variant=variant, max_iter=150, random_state=1)
    a = clone(model).fit(problem["X"], problem["y"])
    b = clone(model).fit(problem["X"], problem["y"])
    np.testing.assert_array_equal(a.decision_function(problem["X_test"]), b.decision_function(problem["X_test"]))
    assert np.abs(a.head_weights_).sum() > 0
    assert a.score(problem["X_test"], problem["y_test"]) > 0.6
    share = (a.transform(problem["X_test"]) == 0).mean()
    if variant == "published":
        assert share == 0.0  # the published models have no exact zero anywhere
        assert (a.head_intercept_ == 0).all()
    elif loss in ("gumbel", "l1"):
        assert share > 0.3


@pytest.mark.parametrize("loss", ["gumbel", "contrastive", "l1", "similarity", "none"])
def test_limits_hold_jointly_with_every_loss(loss: str, problem) -> None:
    model = SparseCBMClassifier(
        problem["C"], loss=loss, max_active_concepts=7, concepts_per_class=4, max_iter=60, random_state=0
    ).fit(problem["X"], problem["y"])
    assert int((model.transform(problem["X_test"]) != 0).sum(1).max()) <= 7
    assert np.count_nonzero(model.head_weights_) <= 4 * K


def test_relevance_can_be_given(problem) -> None:
    relevance = np.random.default_rng(0).uniform(size=(K, M))
    fit = {"max_iter": 20, "random_state": 0}
    given = SparseCBMClassifier(problem["C"], loss="contrastive", concept_relevance=relevance, **fit)
    default = SparseCBMClassifier(problem["C"], loss="contrastive", **fit)
    a, b = given.fit(problem["X"], problem["y"]), default.fit(problem["X"], problem["y"])
    assert not np.allclose(a.head_weights_, b.head_weights_)
    with pytest.raises(InputError, match=r"concept_relevance has shape \(2, 3\)"):
        given.set_params(concept_relevance=np.ones((2, 3))).fit(problem["X"], problem["y"])


def test_memory_mapped_embeddings_train_the_same(problem, tmp_path: Path) -> None:
    X = problem["X"].astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    np.save(tmp_path / "x.npy", X)
    model = SparseCBMClassifier(problem["C"], max_active_concepts=6, max_iter=20, random_state=0)
    a = clone(model).fit(X, problem["y"])
    b = clone(model).fit(np.load(tmp_path / "x.npy", mmap_mode="r"), problem["y"])
    np.testing.assert_array_equal(a.head_weights_, b.head_weights_)


def test_early_stopping_holds_out_its_own_validation(problem) -> None:
    model = SparseCBMClassifier(problem["C"], early_stopping=True, n_iter_no_change=2, max_iter=400, random_state=0)
    model.fit(problem["X"], problem["y"])
    assert "val_accuracy" in model.history_[-1]
    assert len(model.history_) < 20


# -- storage ----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_in_a_new_process_predicts_bit_for_bit(fitted, problem, forking: Path, tmp_path: Path) -> None:
    fitted.metadata_ = {"encoder": "bundled"}
    fitted.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    np.save(tmp_path / "x.npy", problem["X_test"])
    code = (
        "import sys, numpy as np\nfrom sparsecbm import SparseCBMClassifier\n"
        "model = SparseCBMClassifier.load(sys.argv[1] + '/model')\n"
        "assert model.metadata_ == {'encoder': 'bundled'} and model.concept_names_[3] == 'thing 3'\n"
        "X = np.load(sys.argv[1] + '/x.npy')\n"
        "np.savez(sys.argv[1] + '/out.npz', scores=model.decision_function(X), classes=model.predict(X), "
        "units=model.units(X), psi=model.concept_scores(X))\n"
    )
    subprocess.run([str(forking / "python"), "-c", code, str(tmp_path)], check=True)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(out["scores"], fitted.decision_function(problem["X_test"]))
    np.testing.assert_array_equal(out["classes"], fitted.predict(problem["X_test"]))
    np.testing.assert_array_equal(out["units"], fitted.units(problem["X_test"]))
    np.testing.assert_array_equal(out["psi"], fitted.concept_scores(problem["X_test"]))


@pytest.mark.parametrize("loss", ["gumbel", "l1", "none"])
def test_every_gate_survives_storage_and_strings_stay_classes(loss: str, problem, tmp_path: Path) -> None:
    labels = np.array(["ant", "bee", "cat", "dog", "eel"])[problem["y"]]
    model = SparseCBMClassifier(problem["C"], loss=loss, max_iter=20, random_state=0).fit(problem["X"], labels)
    model.save(tmp_path)
    back = SparseCBMClassifier.load(tmp_path)
    np.testing.assert_array_equal(back.predict(problem["X_test"]), model.predict(problem["X_test"]))
    assert back.classes_.tolist() == ["ant", "bee", "cat", "dog", "eel"]
    refitted = clone(back).set_params(random_state=0).fit(problem["X"], labels)
    np.testing.assert_allclose(refitted.head_weights_, model.head_weights_, atol=1e-5)


def test_hub_mixin_saves_and_loads(fitted, problem, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "hub")
    back = SparseCBMClassifier.from_pretrained(str(tmp_path / "hub"))
    np.testing.assert_array_equal(
        back.decision_function(problem["X_test"]), fitted.decision_function(problem["X_test"])
    )
    assert {p.name for p in (tmp_path / "hub").iterdir()} == {"README.md", "config.json", "model.safetensors"}


def tamper_byte(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))


def edit_config(**changes):
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def foreign_arrays(folder: Path) -> None:
    """Arrays of another model, with a checksum that fits: shapes must be looked at, too."""
    from sparsecbm._base.files import sha256_file

    arrays = load_file(folder / "model.safetensors")
    arrays["head.weight"] = arrays["head.weight"][:, :-1].copy()
    save_file(arrays, folder / "model.safetensors")
    edit_config(sha256=sha256_file(folder / "model.safetensors"))(folder)


def overflow(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(re.sub(r'"n_features_in": \d+', '"n_features_in": 1e999', text))


@pytest.mark.parametrize("reader", [SparseCBMClassifier, InferenceModel])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "clip"}'), "does not describe a sparsecbm"),
        (tamper_byte, "checksum"),
        (edit_config(format_version=99), "format version 99"),
        (edit_config(concept_names=["one"]), "do not fit"),
        (edit_config(gate={"name": "exec", "options": {}}), "unknown gate"),
        (edit_config(parameters={"loss": "gumbel", "surprise": 1}), "does not hold together"),
        (overflow, "does not hold together"),
        (foreign_arrays, "do not fit"),
    ],
)
def test_a_damaged_model_folder_is_named(damage, message: str, reader: type, fitted, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(StoredFileError, match=message):
        reader.load(tmp_path / "m")


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(StoredFileError, match="no model at"):
        SparseCBMClassifier.load(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_loses_nothing(fitted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoredFileError, match="cannot write"):
        fitted.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# -- bad input --------------------------------------------------------------------------------------------------------


def changed(problem, **changes):
    return {**{k: problem[k] for k in ("X", "y", "C")}, **changes}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "gumbell"}, "unknown loss 'gumbell'.*did you mean 'gumbel'"),
        ({"variant": "publish"}, "did you mean 'published'"),
        ({"max_active_concepts": 0}, "max_active_concepts=0"),
        ({"variant": "published", "max_active_concepts": 3}, "published models have no hard limit"),
        ({"min_alignment": 2.0}, "min_alignment=2.0"),
        ({"device": "quantum"}, "device 'quantum'"),
        ({"covariance_shrinkage": -1.0}, "covariance_shrinkage"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"concept_names": ["one"]}, "1 names for 60 concepts"),
        ({"concept_names": ["a"] * M}, "'a' is there more than once"),
    ],
)
def test_bad_parameters_are_named(parameters: dict, message: str, problem) -> None:
    with pytest.raises(InputError, match=message):
        SparseCBMClassifier(problem["C"], **{"max_iter": 5, **parameters}).fit(problem["X"], problem["y"])


def test_dimensions_that_differ(problem) -> None:
    with pytest.raises(InputError, match="have 7 dimensions but the images' embeddings have 24"):
        SparseCBMClassifier(problem["C"][:, :7]).fit(problem["X"], problem["y"])


@settings(max_examples=10)
@given(row=st.integers(0, 199), value=st.sampled_from([np.nan, np.inf, 0.0]))
def test_nan_and_zero_vectors(row: int, value: float) -> None:
    rng = np.random.default_rng(1)
    X, C = rng.normal(size=(200, 6)), rng.normal(size=(9, 6))
    X[row] = value
    with pytest.raises(ValueError, match=r"NaN|infinity|zero vector"):
        SparseCBMClassifier(C, max_iter=2).fit(X, np.arange(200) % 2)
    concepts = C.copy()
    concepts[row % 9] = value
    with pytest.raises(InputError, match=r"concept_embeddings: row \d+"):
        SparseCBMClassifier(concepts, max_iter=2).fit(rng.normal(size=(200, 6)), np.arange(200) % 2)


def test_a_class_with_one_image(problem) -> None:
    y = problem["y"].copy()
    y[0] = 99
    model = SparseCBMClassifier(problem["C"], max_iter=5, random_state=0)
    assert 99 in model.fit(problem["X"], y).classes_
    with pytest.raises(InputError, match="class 99 has one image"):
        model.set_params(early_stopping=True).fit(problem["X"], y)


def test_one_class_and_validation_mismatches(problem) -> None:
    model = SparseCBMClassifier(problem["C"], max_iter=5)
    with pytest.raises(InputError, match="one class"):
        model.fit(problem["X"], np.zeros(200))
    with pytest.raises(InputError, match="go together"):
        model.fit(problem["X"], problem["y"], problem["X_test"])
    with pytest.raises(InputError, match=r"y_val: 5[0-4] .* is not among the classes"):
        model.fit(problem["X"], problem["y"], problem["X_test"], problem["y_test"] + 50)


# -- deciding by few concepts ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named() -> dict[str, np.ndarray]:
    """Classes made of six of 200 concepts each, and nothing else."""
    rng = np.random.default_rng(3)
    C = rng.normal(size=(200, 32))
    C /= np.linalg.norm(C, axis=1, keepdims=True)
    y = np.arange(600) % 8
    signature = np.zeros((8, 200))
    for k in range(8):
        signature[k, rng.choice(40, 6, replace=False)] = 1.0
    X = signature[y] @ C + 0.35 * rng.normal(size=(600, 32))
    return {"X": X[:300], "y": y[:300], "X_test": X[300:], "y_test": y[300:], "C": C}


def budgeted(named: dict[str, np.ndarray], **options: object) -> SparseCBMClassifier:
    settings = {"concepts_per_class": 5, "max_active_concepts": 8, "max_iter": 80, "random_state": 0, **options}
    return SparseCBMClassifier(named["C"], **settings).fit(named["X"], named["y"])


@pytest.mark.parametrize("tie", ["earned", "exact", "shared", "free"])
def test_only_concepts_that_decide_are_active(tie: str, named) -> None:
    model = budgeted(named, tie=tie)
    A = model.transform(named["X_test"])
    assert (A != 0).sum(1).max() <= 8
    assert (model.head_weights_ != 0).sum() <= 5 * 8
    assert not A[:, (model.head_weights_ == 0).all(0)].any()
    assert model.score(named["X_test"], named["y_test"]) > 0.8
    assert np.isfinite(model.cone_widths_).all()
    # What takes no part stays the concept's own score (of its anchor, where one map is shared).
    outside = model.cone_widths_ == 0 if tie in ("earned", "free") else np.ones(200, bool)
    u, psi = model.units(named["X_test"])[:, outside], model.concept_scores(named["X_test"])[:, outside]
    correlation = [np.corrcoef(u[:, j], psi[:, j])[0, 1] for j in range(outside.sum())]
    assert min(correlation) > (0.9 if tie == "shared" else 0.99999)


def test_refit_is_what_fit_would_have_made(named) -> None:
    model = budgeted(named, max_active_concepts=16)
    before = model.decision_function(named["X_test"])
    narrow = model.refit(named["X"], named["y"], concepts_per_class=2, max_active_concepts=4)
    direct = budgeted(named, concepts_per_class=2, max_active_concepts=4)
    np.testing.assert_array_equal(narrow.decision_function(named["X_test"]), direct.decision_function(named["X_test"]))
    assert (narrow.transform(named["X_test"]) != 0).sum(1).max() <= 4
    assert narrow.max_active_concepts == 4
    assert model.max_active_concepts == 16
    np.testing.assert_array_equal(model.decision_function(named["X_test"]), before)


def test_refit_names_what_it_cannot_do(named, tmp_path: Path) -> None:
    model = budgeted(named, max_active_concepts=None)
    with pytest.raises(InputError, match=r"max_active_concepts=4.*fitted without"):
        model.refit(named["X"], named["y"], max_active_concepts=4)
    model.save(tmp_path / "model")
    with pytest.raises(InputError, match="it was loaded"):
        SparseCBMClassifier.load(tmp_path / "model").refit(named["X"], named["y"], concepts_per_class=2)


def test_a_control_takes_the_freedom_that_concepts_earned(named, tmp_path: Path) -> None:
    model = budgeted(named)
    given = model.freedoms()
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        SparseCBMClassifier.load(tmp_path / "model").freedoms()["cone_widths"], given["cone_widths"]
    )
    assert list(given) == ["cone_widths"]
    assert budgeted(named, tie="free").freedoms() == budgeted(named, tie="exact").freedoms() == {}
    control = clone(model).set_params(concept_embeddings=np.random.default_rng(1).normal(size=(200, 32)), **given)
    control.fit(named["X"], named["y"])
    ours, theirs = (np.sort(m.cone_widths_[m.cone_widths_ > 0]) for m in (model, control))
    np.testing.assert_allclose(np.quantile(theirs, [0, 0.5, 1]), np.quantile(ours, [0, 0.5, 1]), atol=0.5)
    alone = clone(control).set_params(cone_widths=None).fit(named["X"], named["y"])
    assert alone.cone_widths_.sum() < control.cone_widths_.sum()  # meaningless directions earn less by themselves


def test_weights_that_only_speak_for_a_class(named) -> None:
    model = budgeted(named, nonnegative_head=True)
    assert model.head_weights_.min() >= 0
    assert model.score(named["X_test"], named["y_test"]) > 0.6
    with pytest.raises(InputError, match="nonnegative_head=True needs concepts_per_class"):
        budgeted(named, nonnegative_head=True, concepts_per_class=None)


@pytest.mark.parametrize("widths", [[[1.0]], [-1.0], [90.0], [float("nan")]])
def test_bad_cone_widths_are_named(widths: list, named) -> None:
    with pytest.raises(InputError, match="cone_widths"):
        budgeted(named, cone_widths=widths)


def test_a_resumed_fit_goes_through_half_time_once(named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecbm.bottleneck.training import Trainer

    whole = budgeted(named)
    step, calls = Trainer._optimizer_step, []

    def stop(self, X, y):
        calls.append(self._step)
        if len(calls) == 60:  # after half time, between two checkpoints
            raise KeyboardInterrupt
        return step(self, X, y)

    options = {"concepts_per_class": 5, "max_active_concepts": 8, "max_iter": 80, "random_state": 0}
    model = SparseCBMClassifier(named["C"], **options)
    monkeypatch.setattr(Trainer, "_optimizer_step", stop)
    with pytest.raises(KeyboardInterrupt):
        clone(model).fit(named["X"], named["y"], checkpoint_dir=tmp_path)
    monkeypatch.setattr(Trainer, "_optimizer_step", step)
    resumed = clone(model).fit(named["X"], named["y"], checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(resumed.decision_function(named["X_test"]), whole.decision_function(named["X_test"]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gate": "binary_concrete", "max_active_concepts": 3}, "knows no limit: expected max_active_concepts=None"),
        ({"gate": "top_k"}, "needs max_active_concepts"),
        ({"gate": "top_q"}, r"unknown gate 'top_q'.*did you mean 'top_k'"),
        ({"gate": "top_k", "variant": "published"}, "the published models have none"),
    ],
)
def test_a_gate_that_does_not_fit_is_refused(options, match, rng) -> None:
    X, concepts = rng.normal(size=(40, 8)), rng.normal(size=(6, 8))
    with pytest.raises(InputError, match=match):
        SparseCBMClassifier(concepts, max_iter=2, random_state=0, **options).fit(X, np.arange(40) % 2)


def test_a_gate_can_be_chosen(rng) -> None:
    X, concepts = rng.normal(size=(40, 8)), rng.normal(size=(6, 8))
    model = SparseCBMClassifier(concepts, gate="soft_threshold", max_active_concepts=2, max_iter=5, random_state=0)
    assert model.fit(X, np.arange(40) % 2).bottleneck_.gate.name == "soft_threshold"
    assert (model.transform(X) != 0).sum(1).max() <= 2
