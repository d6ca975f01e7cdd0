"""What a sparse autoencoder is: units of a centred row, a sparse code of them, and unit atoms that rebuild the row."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Codes: TypeAlias = tuple[Tensor, Tensor]
"""Values (n, w) and numbers (n, w) of active units, w at most M; a value of 0 is padding."""


class Step(NamedTuple):
    """Loss of each row (n,), and which units were active in any, bool (M,)."""

    loss: Tensor
    fired: Tensor


class Dictionary(nn.Module):
    """Base of the kinds: row ~ centre + code @ atoms, code = select(encoder (row - centre) + bias), never negative.

    One centre, the mean of the data, is taken off before and put back after; atoms have length one. Were it trained, it
    would take one of several things that exclude each other into itself, and no unit would stand for that.

    Parameters
    ----------
    atoms : Tensor of shape (M, d)
        Unit rows to start from; the encoder starts as their transpose.
    centre : Tensor of shape (d,)
    active : int
        Units that a row may use.
    """

    centre: Tensor
    idle: Tensor

    def __init__(self, atoms: Tensor, centre: Tensor, active: int) -> None:
        super().__init__()
        self.active = active
        self.atoms, self.encoder = nn.Parameter(atoms.clone()), nn.Parameter(atoms.clone())
        self.bias = nn.Parameter(torch.zeros(len(atoms)))
        self.register_buffer("centre", centre.clone())
        self.register_buffer("idle", torch.zeros(len(atoms), dtype=torch.int64))

    @property
    def n_concepts(self) -> int:
        """M."""
        return len(self.atoms)

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """Set what depends on the data, before training, from some rows (n, d).

        First atoms overlap, so that units as large as their products would rebuild a row many times over.
        """
        made = self.decode(largest(self.units(x), self.active)) - self.centre
        self.encoder.mul_(((x - self.centre) * made).sum() / made.square().sum().clamp_min(1e-12))

    def units(self, x: Tensor) -> Tensor:
        """Units (n, M) before selection."""
        return F.linear(x - self.centre, self.encoder, self.bias)

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Noise (n, M) of a training batch, or None."""
        return None

    def codes(self, x: Tensor) -> Codes:
        """Codes of rows (n, d) at inference."""
        raise NotImplementedError

    def dense(self, x: Tensor) -> Tensor:
        """Codes (n, M) of rows (n, d) at inference."""
        values, indices = self.codes(x)
        return values.new_zeros(len(x), self.n_concepts).scatter_(1, indices, values)

    def decode(self, codes: Codes) -> Tensor:
        """Rows (n, d) that codes stand for."""
        values, indices = codes
        return F.embedding_bag(indices, self.atoms, per_sample_weights=values, mode="sum") + self.centre

    def forward(self, x: Tensor, noise: Tensor | None, progress: float) -> Step:
        """Loss of rows (n, d); `progress` is the share of training that is over."""
        raise NotImplementedError

    def _step(self, x: Tensor, codes: Codes) -> Step:
        """Squared error of the whole code."""
        return Step((x - self.decode(codes)).square().sum(1), self._fired(codes))

    def _fired(self, codes: Codes) -> Tensor:
        fired = torch.zeros(self.n_concepts, dtype=torch.bool, device=codes[0].device)
        fired[codes[1][codes[0] > 0]] = True
        return fired

    @torch.no_grad()
    def tidy(self) -> None:
        """After a step: atoms of length one."""
        self.atoms.div_(self.atoms.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def revive(self, which: Tensor, directions: Tensor) -> None:
        """Point idle units, int (r,), to other directions, unit rows (r, d)."""
        self.atoms[which] = directions
        self.encoder[which] = directions * self.encoder.norm(dim=1).mean()
        self.bias[which] = 0.0
        self.idle[which] = 0


def largest(units: Tensor, k: int) -> Codes:
    """The k largest units of each row, as far as they are positive."""
    values, indices = units.topk(min(k, units.shape[1]), dim=1)
    return F.relu(values), indices
