"""Pairwise graphical models of small treewidth: exact maximum and exact partition function by variable elimination."""

from __future__ import annotations

import torch

from sparsecbm.samplers._checks import check_count, check_finite
from sparsecbm.samplers.noise import compute_dtype, uniform

__all__ = ["MAX_TABLE", "PairwiseModel", "grid_model"]

MAX_TABLE = 1 << 20
"""Most entries of one elimination table (per batch element)."""


class PairwiseModel:
    """Log-potential over n variables of K states: ``phi(x) = sum_i unary[i, x_i] + sum_e pairwise[e, x_i, x_j]``.

    Parameters
    ----------
    unary : torch.Tensor
        Shape (n, K), finite.
    edges : torch.Tensor
        int64, shape (E, 2): pairs i != j, each at most once.
    pairwise : torch.Tensor
        Shape (E, K, K), finite; the first index belongs to the edge's first variable.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, or an edge is a loop or out of range.

    Notes
    -----
    Variables are eliminated in the order of their numbers, so number a grid along its *longer* side: an a x b grid
    (row by row, b columns) takes tables of K^(b + 1). Exact for any sign of the couplings.

    Examples
    --------
    >>> model = PairwiseModel(torch.zeros(2, 2), torch.tensor([[0, 1]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    >>> round(model.log_partition().item(), 4), model.map()[0].item()  # log(2 e + 2)
    (2.0064, 1.0)
    """

    def __init__(self, unary: torch.Tensor, edges: torch.Tensor, pairwise: torch.Tensor) -> None:
        n_edges = len(edges)
        if unary.dim() != 2 or edges.shape != (n_edges, 2) or pairwise.shape != (n_edges, *[unary.shape[1]] * 2):
            raise ValueError(
                "unary, edges and pairwise must have shapes (n, K), (E, 2) and (E, K, K), got "
                f"{tuple(unary.shape)}, {tuple(edges.shape)} and {tuple(pairwise.shape)}"
            )
        check_finite("unary", unary)
        check_finite("pairwise", pairwise)
        pairs = [tuple(sorted(edge)) for edge in edges.tolist()]
        for i, j in pairs:
            if i == j or not 0 <= i < len(unary) or not 0 <= j < len(unary):
                raise ValueError(f"edges must join two different variables of 0 to {len(unary) - 1}, got ({i}, {j})")
        if len(set(pairs)) != len(pairs):
            raise ValueError("edges must be distinct pairs; add up the potentials of a repeated one")
        wide = compute_dtype(unary.dtype)
        self.unary, self.edges, self.pairwise = unary.to(wide), edges, pairwise.to(wide)
        self._tables = []
        for (i, j), edge, table in zip(pairs, edges.tolist(), self.pairwise, strict=True):
            self._tables.append((i, j, table if edge[0] == i else table.T))
        self._order = self._plan()

    @property
    def n_variables(self) -> int:
        """Number of variables n."""
        return self.unary.shape[0]

    @property
    def n_states(self) -> int:
        """States of each variable K."""
        return self.unary.shape[1]

    def _plan(self) -> list[list[int]]:
        """For each variable, the later variables that its elimination joins; raises if a table is too large."""
        neighbours: list[set[int]] = [set() for _ in range(self.n_variables)]
        for i, j, _ in self._tables:
            neighbours[i].add(j)
            neighbours[j].add(i)
        plan = []
        for i in range(self.n_variables):
            later = sorted(neighbours[i])
            if self.n_states ** (len(later) + 1) > MAX_TABLE:
                raise ValueError(
                    f"eliminating variable {i} joins {len(later)} others, a table of {self.n_states}^{len(later) + 1}"
                    f" entries (at most {MAX_TABLE}); renumber the variables, or use min_cut_map for attractive models"
                )
            for j in later:
                neighbours[j] |= set(later)
                neighbours[j] -= {i, j}
            plan.append(later)
        return plan

    def log_potential(self, states: torch.Tensor) -> torch.Tensor:
        """Return phi(x) of integer states, shape (..., n) -> (...)."""
        n = self.n_variables
        if states.shape[-1:] != (n,):
            raise ValueError(f"states must have {n} variables in their last dimension, got shape {tuple(states.shape)}")
        total = self.unary[torch.arange(n, device=states.device), states].sum(-1)
        if len(self.edges):
            first, second = states[..., self.edges[:, 0]], states[..., self.edges[:, 1]]
            total = total + self.pairwise[torch.arange(len(self.edges), device=states.device), first, second].sum(-1)
        return total

    def _eliminate(self, unary: torch.Tensor, maximise: bool) -> torch.Tensor:
        """Reduce every variable in turn, by max or by logsumexp; unary has shape (batch, n, K) and broadcasts."""
        batch, n, k = unary.shape[0], self.n_variables, self.n_states
        # A factor is (variables in rising order, table of shape (batch or 1, K, ..., K)).
        factors: list[tuple[list[int], torch.Tensor]] = [([i], unary[:, i]) for i in range(n)]
        factors += [([i, j], table.to(unary).unsqueeze(0)) for i, j, table in self._tables]
        constant = unary.new_zeros(batch)
        for i, later in enumerate(self._order):
            joined = [f for f in factors if f[0][0] == i]
            factors = [f for f in factors if f[0][0] != i]
            scope = [i, *later]
            total: torch.Tensor | None = None
            for variables, table in joined:
                shape = [table.shape[0]] + [k if v in variables else 1 for v in scope]
                view = table.reshape(shape)
                total = view if total is None else total + view
            assert total is not None  # a variable has its unary factor at least
            reduced = total.amax(1) if maximise else total.logsumexp(1)
            if later:
                factors.append((later, reduced.expand(reduced.shape[0], *[k] * len(later))))
            else:
                constant = constant + reduced
        return constant

    def _batched(self, unary: torch.Tensor | None) -> torch.Tensor:
        if unary is None:
            return self.unary.unsqueeze(0)
        if unary.dim() != 3 or unary.shape[1:] != self.unary.shape:
            raise ValueError(f"unary must have shape (batch, n, K) = (batch, {self.n_variables}, {self.n_states})")
        return unary

    def max_value(self, unary: torch.Tensor | None = None) -> torch.Tensor:
        """Return max_x phi(x), with `unary` (batch, n, K) in place of the model's, shape (batch,)."""
        return self._eliminate(self._batched(unary), maximise=True)

    def log_partition(self, unary: torch.Tensor | None = None) -> torch.Tensor:
        """Return log sum_x exp(phi(x)), with `unary` (batch, n, K) in place of the model's, shape (batch,)."""
        return self._eliminate(self._batched(unary), maximise=False)

    def map(self, unary: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the maximum (batch,) and where it is, int64 states (batch, n).

        The maximiser is read off the gradient of the maximum with respect to the unary potentials: one in the chosen
        state of each variable. With ties, the model's answer is still a maximiser only if they are broken, so do not
        rely on it.
        """
        with torch.enable_grad():
            inputs = self._batched(unary).detach().requires_grad_()
            values = self._eliminate(inputs, maximise=True)
            (chosen,) = torch.autograd.grad(values.sum(), inputs)
        return values.detach(), chosen.argmax(-1)


def grid_model(
    rows: int,
    columns: int,
    *,
    field: float,
    coupling: float,
    attractive: bool,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float64,
) -> PairwiseModel:
    """Return a random binary (spin) grid, as in Balog et al. 2017, section 5: fields U[-f, f], couplings U[0, c] or
    U[-c, c].

    Spins s_i in {-1, 1} are the states {0, 1}: ``phi = sum_i h_i s_i + sum_ij J_ij s_i s_j``.

    Parameters
    ----------
    rows, columns : int
        Size; variable i sits at row i // columns.
    field, coupling : float
        Half-ranges f and c.
    attractive : bool
        Couplings in [0, c] (every one attractive) or in [-c, c] (mixed).
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    dtype : torch.dtype, default=torch.float64
        Type of the potentials.
    """
    rows, columns = check_count("rows", rows), check_count("columns", columns)
    index = torch.arange(rows * columns).view(rows, columns)
    across = torch.stack([index[:, :-1].reshape(-1), index[:, 1:].reshape(-1)], -1)
    down = torch.stack([index[:-1].reshape(-1), index[1:].reshape(-1)], -1)
    edges = torch.cat([across, down])
    fields = field * (2 * uniform(rows * columns, generator=generator, dtype=dtype) - 1)
    couplings = uniform(len(edges), generator=generator, dtype=dtype)
    couplings = coupling * (couplings if attractive else 2 * couplings - 1)
    spins = torch.tensor([-1.0, 1.0], dtype=dtype)
    return PairwiseModel(fields.unsqueeze(-1) * spins, edges, couplings.view(-1, 1, 1) * (spins.unsqueeze(-1) * spins))
