"""The cone that ties a unit to its concept: geometry, statistics, folding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck import (
    ConceptBottleneckLayer,
    ConceptGeometry,
    PublishedBottleneckLayer,
    make_tie,
    whitening,
)
from sparsecbm.bottleneck.layer import _Turned


def layer_of(
    X: np.ndarray, C: np.ndarray | None, shrinkage: float = 0.0, alignment: float = 0.9
) -> ConceptBottleneckLayer:
    space, count = whitening(X, shrinkage), np.array([len(X)])
    tied = make_tie("free", alignment).bind(ConceptGeometry.measure(space, C, X.mean(0, keepdims=True), count))
    return ConceptBottleneckLayer(space, tied.anchors, tied.turns)


def correlated(rng: np.random.Generator, n: int = 500, d: int = 12) -> np.ndarray:
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def columnwise_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))


def test_whitening_makes_identity_covariance(rng: np.random.Generator) -> None:
    X = correlated(rng)
    space = whitening(X, 0.0)
    H = (X - space.center) @ space.matrix
    np.testing.assert_allclose(H.T @ H / len(H), np.eye(12), atol=1e-8)
    np.testing.assert_allclose(space.covariance, np.cov(X.T, bias=True), atol=1e-10)
    np.testing.assert_allclose(space.matrix @ space.inverse, np.eye(12), atol=1e-8)


def test_whitening_reads_a_memory_mapped_matrix_in_pieces(
    tmp_path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = correlated(rng).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr("sparsecbm.bottleneck.statistics._ROWS", 64)
    pieces = whitening(np.load(tmp_path / "x.npy", mmap_mode="r"), 0.2)
    monkeypatch.setattr("sparsecbm.bottleneck.statistics._ROWS", 10_000)
    whole = whitening(X, 0.2)
    np.testing.assert_allclose(pieces.matrix, whole.matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, float("nan")])
def test_whitening_names_a_bad_shrinkage(shrinkage: float) -> None:
    with pytest.raises(InputError, match="covariance_shrinkage"):
        whitening(np.eye(3), shrinkage)


@settings(max_examples=30)
@given(
    alignment=st.floats(0.3, 1.0),
    size=st.floats(0.0, 100.0),
    seed=st.integers(0, 2**16),
)
def test_no_update_leaves_the_cone(alignment: float, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, C = correlated(rng), rng.normal(size=(7, 12))
    layer = layer_of(X, C, alignment=alignment)
    with torch.no_grad():
        layer.turn.copy_(torch.from_numpy(size * rng.normal(size=(7, 12))))
    cosines = (layer.directions() * layer.anchors).sum(1)
    assert float(cosines.detach().min()) >= alignment - 1e-5
    # With no shrinkage the cosine *is* the correlation over the training rows.
    with torch.no_grad():
        units = layer(torch.from_numpy(X).float()).numpy()
    np.testing.assert_allclose(columnwise_correlation(units, X @ C.T), cosines.detach().numpy(), atol=1e-4)


def test_gradient_of_the_turn_inside_the_cone_and_at_its_edge(rng: np.random.Generator) -> None:
    anchors = F.normalize(torch.from_numpy(rng.normal(size=(6, 5))), dim=1)
    turn = torch.from_numpy(rng.normal(size=(6, 5)) * np.array([0.01, 0.1, 0.3, 1, 3, 10])[:, None]).requires_grad_()
    most = torch.full((6, 1), 0.4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: _Turned.apply(t, anchors, most), (turn,))
    across = turn - (turn * anchors).sum(1, keepdim=True) * anchors
    expected = F.normalize(anchors + across * (most / across.norm(dim=1, keepdim=True)).clamp(max=1.0), dim=1)
    torch.testing.assert_close(_Turned.apply(turn, anchors, most), expected)


def kept(layer: ConceptBottleneckLayer, X: np.ndarray, top: int) -> np.ndarray:
    """Share of the highest rows of each anchor that its unit ranks highest too."""
    h = (X - layer.center.numpy()) @ layer.matrix.numpy()
    directions = (layer.anchors.numpy(), layer.directions().detach().numpy())
    own, turned = (np.argsort(-(h @ rows.T), axis=0)[:top] for rows in directions)
    return np.array([len(np.intersect1d(a, b)) / top for a, b in zip(own.T, turned.T)])


@settings(max_examples=20)
@given(share=st.floats(0.05, 1.0), n=st.integers(8, 400), seed=st.integers(0, 2**16))
def test_a_unit_is_turned_back_until_it_keeps_its_own_pictures(share: float, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = correlated(rng, n).astype(np.float32)
    layer = layer_of(X, rng.normal(size=(9, 12)), shrinkage=0.2, alignment=0.6)
    layer.min_survival, top = share, min(20, n // 4)
    with torch.no_grad():
        layer.turn.copy_(torch.from_numpy(rng.normal(size=(9, 12)) * np.linspace(0.2, 3, 9)[:, None]))
    before, enough = layer.directions().detach().clone(), kept(layer, X, top) >= share
    layer.narrow(X)
    after = layer.directions().detach()
    assert (kept(layer, X, top) >= share).all()
    np.testing.assert_array_equal(after[enough], before[enough])
    # Back in the plane of unit and anchor, and no further from the anchor than it was.
    was, now = ((rows * layer.anchors).sum(1) for rows in (before, after))
    assert (now >= was - 1e-6).all()
    off = before - was[:, None] * layer.anchors
    off /= off.norm(dim=1, keepdim=True).clamp_min(1e-12)
    rest = after - now[:, None] * layer.anchors - (after * off).sum(1, keepdim=True) * off
    assert rest.norm(dim=1).max() < 1e-5
    layer.narrow(X)
    np.testing.assert_allclose(layer.directions().detach(), after, atol=1e-6)  # it stays as narrow as it is


def test_nothing_is_turned_back_unasked(rng: np.random.Generator) -> None:
    X = correlated(rng)
    layer = layer_of(X, rng.normal(size=(5, 12)), alignment=0.5)
    with torch.no_grad():
        layer.turn.normal_(generator=torch.Generator().manual_seed(0))
    before = layer.directions().detach().clone()
    layer.narrow(X)
    np.testing.assert_array_equal(layer.directions().detach(), before)


def test_untrained_units_are_the_standardised_scores(rng: np.random.Generator) -> None:
    X, C = correlated(rng), rng.normal(size=(5, 12))
    layer = layer_of(X, C)
    psi = X @ C.T
    with torch.no_grad():
        units = layer(torch.from_numpy(X).float()).numpy()
    np.testing.assert_allclose(units, (psi - psi.mean(0)) / psi.std(0), atol=1e-3)


def test_scores_as_input(rng: np.random.Generator) -> None:
    X = correlated(rng)
    layer = layer_of(X, None)
    with torch.no_grad():
        units = layer(torch.from_numpy(X).float()).numpy()
    np.testing.assert_allclose(units, (X - X.mean(0)) / X.std(0), atol=1e-3)


@pytest.mark.parametrize("published", [False, True])
def test_fold_is_the_same_map(published: bool, rng: np.random.Generator) -> None:
    X, C = correlated(rng), rng.normal(size=(9, 12))
    if published:
        layer = PublishedBottleneckLayer(C, 12, 100.0, torch.Generator().manual_seed(0))
    else:
        layer = layer_of(X, C, 0.1, 0.8)
        with torch.no_grad():
            layer.turn.copy_(torch.from_numpy(rng.normal(size=(9, 12))))
    x = torch.from_numpy(X).float()
    weight, bias = layer.fold()
    with torch.no_grad():
        expected = layer(x)
    np.testing.assert_allclose((x @ weight.T + bias).numpy(), expected.numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("alignment", [0.0, 1.2, -1.0])
def test_bad_alignment_is_named(alignment: float) -> None:
    with pytest.raises(InputError, match="min_alignment"):
        make_tie("free", alignment)
