"""Parallel tempering of a restricted Boltzmann machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparsecbm.samplers._checks import check_betas, check_count
from sparsecbm.samplers.chains.gibbs import gibbs_sweep
from sparsecbm.samplers.noise import bernoulli, exponential
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine

__all__ = ["ParallelTempering", "swap_log_acceptance"]


def swap_log_acceptance(
    beta_cold: torch.Tensor, beta_hot: torch.Tensor, energy_cold: torch.Tensor, energy_hot: torch.Tensor
) -> torch.Tensor:
    """Return the log of the Metropolis probability of exchanging two replicas, min(0, (b_c - b_h)(E_c - E_h)).

    The energies are the *joint* energies E(v, h). With free energies of one side in their place, the exchange would not
    leave the joint distribution of the replicas invariant, for the tempered free energy is not beta times the free
    energy.
    """
    return ((beta_cold - beta_hot) * (energy_cold - energy_hot)).clamp(max=0.0)


class ParallelTempering:
    """Replicas at rising inverse temperatures, block Gibbs within each and exchanges between neighbours.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
        The model.
    n_chains : int
        Independent ladders.
    betas : sequence of float
        Inverse temperatures, rising strictly from 0 to 1.
    generator : torch.Generator or None
        Source of the initial states (uniform) and of every later draw; None means PyTorch's default generator.

    Attributes
    ----------
    visible : torch.Tensor, shape (n_betas, n_chains, n_visible)
    hidden : torch.Tensor, shape (n_betas, n_chains, n_hidden)
    swap_rate : torch.Tensor, shape (n_betas - 1,)
        Share of accepted exchanges between neighbours so far.

    Raises
    ------
    ValueError
        If the betas do not rise strictly from 0 to 1.

    References
    ----------
    Swendsen & Wang 1986; Desjardins et al. 2010, "Tempered Markov chain Monte Carlo for training of RBMs".
    """

    def __init__(
        self,
        rbm: RestrictedBoltzmannMachine,
        n_chains: int,
        betas: torch.Tensor | Sequence[float],
        *,
        generator: torch.Generator | None,
    ) -> None:
        self.rbm = rbm
        self.generator = generator
        weight = rbm.weight
        self.betas = check_betas(betas).to(weight.device)
        check_count("n_chains", n_chains)
        start = torch.zeros(len(self.betas), n_chains, rbm.n_visible, dtype=weight.dtype, device=weight.device)
        self._ladder = self.betas.to(weight.dtype).view(-1, 1, 1)
        self.visible = bernoulli(start, generator=generator)
        self.hidden = torch.zeros(len(self.betas), n_chains, rbm.n_hidden, dtype=weight.dtype, device=weight.device)
        self._accepted = torch.zeros(len(self.betas) - 1, dtype=torch.float64, device=weight.device)
        self._proposed = torch.zeros_like(self._accepted)
        self._odd = 0

    @property
    def swap_rate(self) -> torch.Tensor:
        """Share of accepted exchanges between neighbours so far; NaN before the first."""
        return self._accepted / self._proposed

    @torch.no_grad()
    def swap(self) -> None:
        """Propose the exchanges of every other pair of neighbours; even and odd pairs take turns."""
        first, self._odd = self._odd, 1 - self._odd
        hot = torch.arange(first, len(self.betas) - 1, 2, device=self.betas.device)
        if not len(hot):
            return
        cold = hot + 1
        energy = self.rbm.energy(self.visible, self.hidden).double()
        log_accept = swap_log_acceptance(
            self.betas[cold].unsqueeze(-1), self.betas[hot].unsqueeze(-1), energy[cold], energy[hot]
        )
        # An Exp(1) draw exceeds -log(p) with probability p.
        noise = exponential(log_accept.shape, generator=self.generator, dtype=torch.float64, device=energy.device)
        accept = noise > -log_accept
        self._accepted[hot] += accept.double().sum(-1)
        self._proposed[hot] += accept.shape[-1]
        for state in (self.visible, self.hidden):
            upper, lower = state[cold], state[hot]
            state[cold] = torch.where(accept.unsqueeze(-1), lower, upper)
            state[hot] = torch.where(accept.unsqueeze(-1), upper, lower)

    def advance(self, sweeps: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Run `sweeps` rounds of one Gibbs sweep and one exchange; return views of the replicas at beta = 1 (v, h)."""
        for _ in range(check_count("sweeps", sweeps, 0)):
            self.visible, self.hidden = gibbs_sweep(self.rbm, self.visible, generator=self.generator, beta=self._ladder)
            self.swap()
        return self.visible[-1], self.hidden[-1]
