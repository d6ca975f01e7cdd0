"""Tiny random machines and the enumeration of their joint states, for the tests of this folder."""

from __future__ import annotations

import torch
from scipy import stats

from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine, binary_states


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_rbm(n_visible: int, n_hidden: int, scale: float = 1.0, seed: int = 0) -> RestrictedBoltzmannMachine:
    source = generator(seed)
    return RestrictedBoltzmannMachine.from_parameters(
        scale * torch.randn(n_visible, n_hidden, dtype=torch.float64, generator=source),
        torch.randn(n_visible, dtype=torch.float64, generator=source),
        torch.randn(n_hidden, dtype=torch.float64, generator=source),
    )


def joint_states(rbm: RestrictedBoltzmannMachine) -> tuple[torch.Tensor, torch.Tensor]:
    units = rbm.n_visible + rbm.n_hidden
    states = binary_states(0, 1 << units, units, dtype=torch.float64, device=None)
    return states[:, : rbm.n_visible], states[:, rbm.n_visible :]


def joint_probabilities(rbm: RestrictedBoltzmannMachine, beta: float = 1.0) -> torch.Tensor:
    return (-beta * rbm.energy(*joint_states(rbm))).softmax(0).detach()


def chi_square(seen: torch.Tensor, expected: torch.Tensor) -> float:
    """P-value of counts; cells that expect fewer than 5 are pooled, a pool below 5 joins the smallest other cell."""
    order = expected.double().argsort(descending=True)
    seen, expected = seen.double()[order], expected.double()[order]
    keep = max(int((expected >= 5).sum()), 1)
    if expected[keep:].sum() < 5:
        keep -= 1
    observed = torch.cat([seen[:keep], seen[keep:].sum()[None]])
    predicted = torch.cat([expected[:keep], expected[keep:].sum()[None]])
    return float(stats.chisquare(observed.numpy(), predicted.numpy()).pvalue)
