"""Losses: formulas against direct sums, and the published defects shown as facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import LOSSES, PUBLISHED_LOSSES
from sparsecbm.bottleneck import PublishedBottleneckLayer, make_gate, make_loss
from sparsecbm.bottleneck.losses import Batch


def make_batch(units: torch.Tensor, labels: torch.Tensor | None = None, **changes) -> Batch:
    n, m = units.shape
    fields = {
        "x": units.detach(),
        "scores": None,
        "units": units,
        "activations": units,
        "labels": torch.zeros(n, dtype=torch.long) if labels is None else labels,
        "layer": torch.nn.Identity(),
        "gate": make_gate("dense", m, {}),
        "generator": torch.Generator().manual_seed(0),
    }
    return Batch(**{**fields, **changes})


def random_units(n: int, m: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_none_is_zero() -> None:
    assert make_loss("none")(make_batch(random_units(4, 3))).tolist() == [0.0] * 4


def test_l1_sums_activations() -> None:
    units = random_units(5, 7)
    torch.testing.assert_close(make_loss("l1")(make_batch(units)), units.abs().sum(1))


def test_published_l1_is_the_weights() -> None:
    layer = PublishedBottleneckLayer(None, 6, 100.0, torch.Generator().manual_seed(0))
    value = make_loss("l1", "published")(make_batch(random_units(3, 6), layer=layer)).mean()
    assert float(value) == pytest.approx(float(layer.weight.abs().sum()) / 6, rel=1e-6)


def test_contrastive_by_direct_sums() -> None:
    units = random_units(8, 5)
    labels = torch.tensor([0, 1, 1, 3, 0, 3, 3, 1])
    relevance = torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = float(make_loss("contrastive", relevance=relevance)(make_batch(units, labels)))
    a = units.detach().numpy()
    logits = (
        (a / np.linalg.norm(a, axis=1, keepdims=True))
        @ (relevance / relevance.norm(dim=1, keepdim=True)).numpy().T
        / 0.1
    )
    rows = np.mean([np.log(np.exp(logits[i]).sum()) - logits[i, k] for i, k in enumerate(labels)])
    columns = []
    for k in (0, 1, 3):  # class 2 is not in the batch
        mine = np.flatnonzero(labels.numpy() == k)
        columns.append(np.log(np.exp(logits[:, k]).sum()) - logits[mine, k].mean())
    assert value == pytest.approx((rows + np.mean(columns)) / 2)


def test_contrastive_knows_classes_not_positions() -> None:
    """The published pairing depends on the order of a batch; ours does not."""
    units, order = random_units(6, 9), torch.tensor([3, 1, 5, 0, 2, 4])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    relevance = torch.rand(3, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = make_loss("contrastive", relevance=relevance), make_loss("contrastive", "published")
    assert float(ours(make_batch(units, labels))) == pytest.approx(float(ours(make_batch(units[order], labels[order]))))
    assert float(theirs(make_batch(units))) != pytest.approx(float(theirs(make_batch(units[order]))), abs=1e-3)


def test_published_contrastive_never_has_concepts_beyond_the_batch_as_positives() -> None:
    units = random_units(4, 10)
    make_loss("contrastive", "published")(make_batch(units)).backward()
    # Pushed down (positive gradient) by both softmaxes, never pulled up: concepts 4 to 9.
    assert bool((units.grad[:, 4:] > 0).all())
    log_softmax = torch.log_softmax
    direct = -(log_softmax(units, 0).diagonal().mean() + log_softmax(units, 1).diagonal().mean()) / 2
    assert float(make_loss("contrastive", "published")(make_batch(units))) == pytest.approx(float(direct))


def test_published_gumbel_pushes_to_the_uniform_distribution() -> None:
    """Its gradient over a row is proportional to softmax - 1/M on average: descent raises the entropy."""
    units = (4.0 * random_units(16, 12).detach()).requires_grad_()
    loss = make_loss("gumbel", "published")
    generator = torch.Generator().manual_seed(5)

    def entropy() -> float:
        p = torch.softmax(units, 1)
        return float(-(p * p.log()).sum(1).mean().detach())

    before = entropy()
    for _ in range(300):
        value = loss(make_batch(units, generator=generator))
        (gradient,) = torch.autograd.grad(value, units)
        with torch.no_grad():
            units -= 20.0 * gradient
    assert entropy() > before + 0.5
    assert np.exp(entropy()) > 0.9 * 12


def test_default_gumbel_counts_expected_active_concepts() -> None:
    gate = make_gate("binary_concrete", 6, {})
    units = random_units(5, 6).float()
    torch.testing.assert_close(
        make_loss("gumbel")(make_batch(units, gate=gate)), torch.sigmoid(gate.logits(units)).sum(1)
    )


@pytest.mark.parametrize("cubed", [False, True])
def test_similarity_by_direct_sums(cubed: bool) -> None:
    units, scores = random_units(9, 4, 0), random_units(9, 4, 1)
    value = make_loss("similarity", "default" if cubed else "published")(make_batch(units, scores=scores))
    power = 3 if cubed else 1
    cosines = []
    for j in range(4):
        u = (units[:, j] - units[:, j].mean()) ** power
        s = (scores[:, j] - scores[:, j].mean()) ** power
        cosines.append(float((u * s).sum() / (u.norm() * s.norm())))
    assert float(value) == pytest.approx(-np.mean(cosines))


def test_every_loss_has_both_forms() -> None:
    assert set(LOSSES) == set(PUBLISHED_LOSSES) == {"gumbel", "contrastive", "l1", "similarity", "none"}


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'gumbel'"):
        make_loss("gumble")
    with pytest.raises(InputError, match="did you mean 'published'"):
        make_loss("l1", "publish")
