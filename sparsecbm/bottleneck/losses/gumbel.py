"""The Gumbel losses: learned selection of concepts; and as published, which spreads instead of selecting."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss
from sparsecbm.samplers import noise as sampler_noise


class GumbelLoss(ConceptLoss):
    """Stochastic selection of concepts, annealed to the hard one.

    With ``max_active_concepts`` the budget is the constraint: Gumbel top-k draws that many concepts and the loss adds
    nothing. Without it, binary-Concrete gates choose how many, and the loss is the expected number of active concepts
    an image (the l0 surrogate of Louizos et al. 2018, arXiv 1712.01312, eq. 12, with unstretched gates).
    """

    name = "gumbel"
    default_weight = 3e-3

    def gate_name(self, max_active_concepts: int | None) -> str:
        return "binary_concrete" if max_active_concepts is None else "gumbel_top_k"

    def __call__(self, batch: Batch) -> Tensor:
        if batch.gate.name != "binary_concrete":
            return batch.units.new_zeros(len(batch.units))
        return batch.gate.expected_active(batch.units)


class PublishedGumbelLoss(ConceptLoss):
    """The authors' formula: minus the mean log of a Gumbel-Softmax sample over *all* entries, over rows and columns.

    The gradient with respect to a row is proportional to softmax - 1/M, so the minimum is the *uniform* distribution
    over concepts: it makes the units denser (see the test that shows it). Kept as a labelled baseline.

    Parameters
    ----------
    temperature : float
        Positive, 1 in the authors' code. (Their ``hard=True`` is log 0: the loss is infinite. Not offered.)
    """

    name = "gumbel"
    whole_batch = True

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, batch: Batch) -> Tensor:
        terms = []
        for dim in (0, 1):
            noise = sampler_noise.gumbel(
                tuple(batch.units.shape), generator=batch.generator, device=batch.generator.device
            ).to(batch.units.device)
            terms.append(-F.log_softmax((batch.units + noise) / self.temperature, dim=dim).mean())
        return (terms[0] + terms[1]) / 2
