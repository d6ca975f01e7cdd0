"""300 random small problems over all estimators and options: every promise, in every one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from sparsecbm import (
    ConceptMatrixSearch,
    DescriptionClassifier,
    LinearProbe,
    SparseCBMClassifier,
    SparseDecomposer,
    ZeroShotClassifier,
)
from sparsecbm._base.errors import InputError
from sparsecbm.heads import SparseHead

PROBLEMS = 300
_RULES = ("whitened", "sparse", "contrast", "separating", "cosine", "cubed", "max", "column_normalised")
_LOSSES = ("gumbel", "contrastive", "l1", "similarity", "none")


class Problem:
    """Rows, labels, concepts and class texts, drawn by a seed: few of each, and odd ones among them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.k, self.d, self.m = int(rng.integers(2, 5)), int(rng.integers(1, 9)), int(rng.integers(1, 12))
        self.n = int(rng.integers(2 * self.k, 25))
        self.labels = np.arange(self.n) % self.k
        self.X = rng.normal(size=(self.k, self.d))[self.labels] + 0.3 * rng.normal(size=(self.n, self.d))
        self.C = rng.normal(size=(self.m, self.d))
        self.T = rng.normal(size=(self.k, self.d))
        odd = self.pick(None, None, "twice", "size", "near", "constant", "same classes", "axis")
        if odd == "twice":  # concepts that are there twice, rows too
            self.C[self.m // 2 :] = self.C[0]
            self.X[1::2] = self.X[0]
        elif odd == "size":
            self.X *= 10.0 ** rng.integers(-25, 25, size=(self.n, 1))
            self.C *= 10.0 ** rng.integers(-25, 25)
        elif odd == "near":
            self.X = self.X[:1] + 1e-9 * self.X
        elif odd == "constant":
            self.X[:, 0] = 1.0
        elif odd == "same classes":
            self.T[1] = self.T[0]
        elif odd == "axis":  # exact zeros and ties
            self.C, self.T = np.round(self.C), np.round(self.T)
            for rows in (self.C, self.T):
                rows[~rows.any(axis=1), 0] = 1.0
        names = self.pick(None, ["ant", "bee", "cat", "dog"], [10, 2, 33, 4], [0.0, 2.0, 4.0, 8.0])
        self.names = list(range(self.k)) if names is None else list(names[: self.k])
        self.y = np.array(self.names)[self.labels]
        if not isinstance(self.names[0], float) and self.pick(False, True):
            self.y = self.y.astype(object)
        self.X = self.X.astype(self.pick(np.float64, np.float32))

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def count(self, most: int = 6) -> Any:
        """A limit, or none; now and then a NumPy number."""
        return self.pick(None, int(self.rng.integers(1, most)), self.rng.integers(1, most))


def bottleneck(p: Problem, folder: Path) -> Iterator[str]:
    published = p.pick(False, False, False, True)
    model = SparseCBMClassifier(
        p.pick(p.C, p.C, None),
        loss=p.pick(*_LOSSES),
        variant="published" if published else "default",
        max_active_concepts=None if published else p.count(),
        concepts_per_class=p.count(4),
        min_alignment=p.pick(1.0, 0.9, 0.5),
        nonnegative=p.pick(True, False, np.True_),
        covariance_shrinkage=p.pick(0.0, 0.3, 1.0),
        early_stopping=p.pick(False, np.True_),
        batch_size=p.pick(3, 256),
        max_iter=3,
        random_state=int(p.rng.integers(100)),
        device="cpu",
        verbose=False,
    )
    model.fit(p.X, p.y)
    A, scores = model.transform(p.X), model.logits(p.X)
    if model.max_active_concepts is not None and (A != 0).sum(axis=1).max() > model.max_active_concepts:
        yield "too many active concepts"
    if np.count_nonzero(model.head_weights_) > (model.concepts_per_class or A.shape[1]) * p.k:
        yield "too many head weights"
    if model.nonnegative and model.bottleneck_.gate.name != "dense" and (A < 0).any():
        yield "a negative activation"
    if not np.allclose(scores, A.astype(np.float64) @ model.head_weights_.T + model.head_intercept_, atol=1e-9):
        yield "scores are not the sums of contributions"
    yield from promises(model, p, scores)
    yield from stored(model, p, folder)
    again = clone(SparseCBMClassifier.load(folder)).fit(p.X, p.y)
    if not np.array_equal(again.logits(p.X), scores):
        yield "a loaded model's clone fits to another"


def search(p: Problem, folder: Path) -> Iterator[str]:
    model = ConceptMatrixSearch(
        p.pick(p.C, p.C, None),
        similarity=p.pick(*_RULES),
        ridge=p.pick(1e-6, 0.01, 1.0),
        max_active_concepts=p.pick(1, 3, np.int64(32)),
        max_explained_concepts=p.pick(1, 2, np.int32(32)),
        max_class_concepts=p.count(),
        nonnegative=p.pick(True, False),
        reference_embeddings=p.pick(None, p.X),
    )
    model.fit(p.pick(p.T, dict(zip(p.names, p.T))), p.names, shots=p.pick(None, (p.X, p.y), (p.X, p.y[:, None])))
    scores = model.logits(p.X)
    if (model.transform(p.X) != 0).sum(axis=1).max() > model.max_explained_concepts:
        yield "too many explained concepts"
    ledgers = model.explain(p.X)
    for i, ledger in enumerate(ledgers):
        if not np.isclose(ledger.score, scores[i].max(), rtol=1e-6, atol=1e-6 * max(1.0, np.abs(scores).max())):
            yield f"a ledger adds up to {ledger.score}, not {scores[i].max()}"
            break
    yield from promises(model, p, scores, transductive=model.transductive_)
    yield from stored(model, p, folder)


def texts(p: Problem, folder: Path) -> Iterator[str]:
    scale = p.pick(100, 1.0, np.float32(10))
    if p.pick(True, False):
        model: Any = ZeroShotClassifier(logit_scale=scale).fit(p.T, p.names)
    else:
        rows = {name: p.T[: 1 + i] for i, name in enumerate(p.names)}
        model = DescriptionClassifier(logit_scale=scale).fit(rows)
    yield from promises(model, p, model.logits(p.X))
    yield from stored(model, p, folder)


def probe(p: Problem, folder: Path) -> Iterator[str]:
    model = LinearProbe(C=p.pick(0.1, 10, np.float64(1e-3)), tol=p.pick(1e-4, 1e-6)).fit(p.X, p.y)
    yield from promises(model, p, model.logits(p.X))
    yield from stored(model, p, folder)


def head(p: Problem, folder: Path) -> Iterator[str]:
    k = p.count(4)
    model = SparseHead(
        k,
        counting=p.pick("average", "strict"),
        nonnegative=p.pick(True, False) and k is not None,
        l2=p.pick(0.005, "auto", [0.01, 0.1]),
        scaling=p.pick("global", "column"),
        random_state=0,
    ).fit(p.X, p.y)
    if k is not None and np.count_nonzero(model.coef_) > k * p.k:
        yield "too many weights"
    if model.nonnegative and (model.coef_ < 0).any():
        yield "a negative weight"
    yield from promises(model, p, model._scores(p.X))
    if not np.array_equal(clone(model).fit(p.X, p.y).coef_, model.coef_):
        yield "a clone fits to another"


def decomposer(p: Problem, folder: Path) -> Iterator[str]:
    model = SparseDecomposer(
        p.C,
        alpha=p.pick(0.01, 0.125, 0.9),
        max_concepts=p.count(),
        center=p.pick(True, False),
        suppress=p.pick((), ["concept 0"]) if p.m > 1 else (),
        verbose=False,
    ).fit(p.X)
    found = model.decompose(p.X)
    codes = model.transform(p.X)
    if not (np.isfinite(codes).all() and np.isfinite(found.cosine).all() and np.isfinite(found.gap).all()):
        yield "numbers that are not finite"
    if (codes < 0).any() or (len(model.suppress) and codes[:, 0].any()):
        yield "a negative or suppressed code"
    if model.max_concepts is not None and (codes != 0).sum(axis=1).max() > model.max_concepts:
        yield "too many concepts"
    some = range(0, p.n, 4)
    one = np.concatenate([model.transform(p.X[i : i + 1]) for i in some])
    if not np.allclose(one @ model.dictionary_, codes[some] @ model.dictionary_, atol=1e-4):
        yield "codes depend on the batch"


def promises(model: Any, p: Problem, scores: np.ndarray, transductive: bool = False) -> Iterator[str]:
    """What every classifier keeps: finite numbers, its own classes, probabilities, and no image sees another."""
    shares, classes = model.predict_proba(p.X), model.predict(p.X)
    if not (np.isfinite(scores).all() and np.isfinite(shares).all()):
        yield "numbers that are not finite"
    if not np.allclose(shares.sum(axis=1), 1.0):
        yield "probabilities do not add up to 1"
    if set(classes.tolist()) - set(p.names) or classes.shape != (p.n,):
        yield "a class that nobody named"
    if not transductive:
        alone = np.concatenate([model.predict_proba(p.X[i : i + 1]) for i in range(p.n)])
        if not np.allclose(alone, shares, atol=1e-4):
            yield f"probabilities depend on the batch: by {np.abs(alone - shares).max():.1g}"


def stored(model: Any, p: Problem, folder: Path) -> Iterator[str]:
    model.metadata_ = {"images": np.int64(p.n), "from": Path.cwd() / "here.npy"}
    model.save(folder)
    back = type(model).load(folder)
    if not np.array_equal(back.logits(p.X), model.logits(p.X)) or back.classes_.dtype != model.classes_.dtype:
        yield "a loaded model predicts otherwise"
    if not np.array_equal(back.predict(p.X), model.predict(p.X)):
        yield "a loaded model names otherwise"
    if str(Path.cwd()) in (folder / "config.json").read_text():
        yield "a path of this machine in config.json"


@pytest.mark.parametrize("check", [bottleneck, search, texts, probe, head, decomposer], ids=lambda c: c.__name__)
def test_no_promise_is_broken(check: Any, tmp_path: Path) -> None:
    broken, refused = [], 0
    for seed in range(PROBLEMS // 6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                broken += [f"{seed}: {text}" for text in check(Problem(seed), tmp_path / str(seed))]
            except InputError as error:
                refused += 1
                if "\n" in str(error):
                    broken.append(f"{seed}: {error}")
            except Exception as error:
                broken.append(f"{seed}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    assert not broken, "\n".join(broken)
    assert refused < PROBLEMS // 24
