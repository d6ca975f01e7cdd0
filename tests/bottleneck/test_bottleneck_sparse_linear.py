"""The head's product in training where few activations are non-zero: the same sums and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparsecbm.bottleneck import ConceptBottleneck, ConceptBottleneckLayer, _sparse_linear, make_gate, whitening
from sparsecbm.bottleneck._sparse_linear import few_nonzeros, sparse_linear


def few(rows: int, columns: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    kept = torch.rand(rows, columns, generator=generator).topk(k, dim=1).indices[:, : k - 1]
    return torch.zeros_like(dense).scatter_(1, kept, dense.gather(1, kept))


@pytest.mark.parametrize("with_bias", [True, False])
def test_product_and_gradients_are_those_of_the_dense_layer(with_bias) -> None:
    activations = few(30, 40, 4).requires_grad_()
    weight = torch.randn(7, 40, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(7, dtype=torch.float64, requires_grad=True) if with_bias else None
    inputs = [x for x in (activations, weight, bias) if x is not None]
    pull = torch.randn(30, 7, dtype=torch.float64)
    results = []
    for product in (F.linear(activations, weight, bias), sparse_linear(activations, weight, bias, 4)):
        results.append([product.detach(), *torch.autograd.grad(product, inputs, pull)])
    for dense, sparse in zip(*results):
        torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)


def test_gradients_by_finite_differences_of_rows_with_ties_and_zeros() -> None:
    activations = few(5, 8, 3)
    activations[0] = 0.0
    activations[1, :2] = 1.5
    activations[1, 2:] = 0.0
    weight = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda w: sparse_linear(activations, w, None, 3), (weight,))


def test_a_large_model_trains_with_it_and_a_small_one_without(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(1)
    X = F.normalize(torch.randn(60, 10, generator=generator), dim=1)
    concepts = F.normalize(torch.randn(64, 10, generator=generator), dim=1).numpy()
    space = whitening(X.numpy(), 0.3)
    layer = ConceptBottleneckLayer(space, concepts @ space.inverse, np.full(len(concepts), 0.5))
    model = ConceptBottleneck(layer, make_gate("gumbel_top_k", 64, {"max_active_concepts": 4}), 5)
    torch.nn.init.normal_(model.head.weight, generator=generator)
    labels = torch.arange(60) % 5
    noise = model.gate.draw_noise(60, generator)
    gradients = []
    for large in (2**40, 1):
        monkeypatch.setattr(_sparse_linear, "_LARGE", large)
        _, activations, logits = model(X, 0.5, None, noise)
        assert few_nonzeros(activations, model.head.weight, 4) == (large == 1)
        gradients.append(torch.autograd.grad(F.cross_entropy(logits, labels), list(model.parameters())))
    for dense, sparse in zip(*gradients):
        torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-6)
    assert not few_nonzeros(activations, model.head.weight, None)
    assert not few_nonzeros(activations, model.head.weight, 5)  # more than one in 16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not few_nonzeros(activations, model.head.weight, 4)
