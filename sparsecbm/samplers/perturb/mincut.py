"""Exact MAP of attractive binary pairwise models of any treewidth, by a minimum cut."""

from __future__ import annotations

from collections import deque

import torch

from sparsecbm.samplers.perturb.graph import PairwiseModel

__all__ = ["min_cut_map"]


class _FlowNetwork:
    """Maximum flow by Dinic's algorithm (Dinitz 1970) on real capacities."""

    def __init__(self, nodes: int, tolerance: float) -> None:
        self.heads: list[list[int]] = [[] for _ in range(nodes)]
        self.to: list[int] = []
        self.capacity: list[float] = []
        self.tolerance = tolerance

    def add(self, source: int, target: int, forward: float, backward: float = 0.0) -> None:
        for start, end, capacity in ((source, target, forward), (target, source, backward)):
            self.heads[start].append(len(self.to))
            self.to.append(end)
            self.capacity.append(capacity)

    def levels(self, source: int) -> list[int]:
        level = [-1] * len(self.heads)
        level[source] = 0
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for arc in self.heads[node]:
                if self.capacity[arc] > self.tolerance and level[self.to[arc]] < 0:
                    level[self.to[arc]] = level[node] + 1
                    queue.append(self.to[arc])
        return level

    def _augment(self, source: int, sink: int, level: list[int], position: list[int]) -> bool:
        """Push one path's bottleneck along the level graph; False where none is left."""
        path: list[int] = []
        node = source
        while node != sink:
            while position[node] < len(self.heads[node]):
                arc = self.heads[node][position[node]]
                if self.capacity[arc] > self.tolerance and level[self.to[arc]] == level[node] + 1:
                    break
                position[node] += 1
            if position[node] < len(self.heads[node]):
                path.append(self.heads[node][position[node]])
                node = self.to[path[-1]]
            elif path:
                node = self.to[path.pop() ^ 1]
                position[node] += 1
            else:
                return False
        flow = min(self.capacity[arc] for arc in path)
        for arc in path:
            self.capacity[arc] -= flow
            self.capacity[arc ^ 1] += flow
        return True

    def source_side(self, source: int, sink: int) -> list[bool]:
        """Saturate the network and return which nodes the source still reaches."""
        while True:
            level = self.levels(source)
            if level[sink] < 0:
                return [depth >= 0 for depth in level]
            position = [0] * len(self.heads)
            while self._augment(source, sink, level, position):
                pass


def min_cut_map(model: PairwiseModel, unary: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maximum of an attractive binary model and a configuration that attains it.

    Parameters
    ----------
    model : PairwiseModel
        Two states a variable, every edge with theta(0,0) + theta(1,1) >= theta(0,1) + theta(1,0).
    unary : torch.Tensor, optional
        Unary potentials in place of the model's, shape (n, 2).

    Returns
    -------
    tuple of torch.Tensor
        The maximum (scalar) and int64 states (n,).

    Raises
    ------
    ValueError
        If a variable has more than two states, or an edge is repulsive.

    References
    ----------
    Greig, Porteous & Seheult 1989; Kolmogorov & Zabih 2004, "What energy functions can be minimized via graph cuts?".
    """
    if model.n_states != 2:
        raise ValueError(f"min_cut_map needs two states a variable, got {model.n_states}; use PairwiseModel.map")
    unary = model.unary if unary is None else unary
    if unary.shape != model.unary.shape:
        raise ValueError(f"unary must have shape {tuple(model.unary.shape)}, got {tuple(unary.shape)}")
    costs = (-unary.double()).tolist()
    n = model.n_variables
    pull = [cost[1] - cost[0] for cost in costs]  # extra cost of state 1
    weights = []
    for (i, j), table in zip(model.edges.tolist(), model.pairwise.double().tolist(), strict=True):
        # E(x, y) = A + (C - A) x + (D - C) y + (B + C - A - D) (1 - x) y, with E = -theta.
        a, b, c, d = -table[0][0], -table[0][1], -table[1][0], -table[1][1]
        weight = b + c - a - d
        if weight < -1e-12:
            raise ValueError(
                f"min_cut_map needs attractive edges, got a repulsive one between variables {i} and {j};"
                " use PairwiseModel.map"
            )
        pull[i] += c - a
        pull[j] += d - c
        weights.append((i, j, max(weight, 0.0)))
    scale = max([1.0, *map(abs, pull), *(w for *_, w in weights)])
    network = _FlowNetwork(n + 2, tolerance=1e-13 * scale)
    source, sink = n, n + 1
    for i, extra in enumerate(pull):
        # State 1 is the sink's side: cutting source -> i pays for state 1, i -> sink for state 0.
        if extra > 0:
            network.add(source, i, extra)
        elif extra < 0:
            network.add(i, sink, -extra)
    for i, j, weight in weights:
        network.add(i, j, weight)  # paid where i is 0 (source side) and j is 1
    side = network.source_side(source, sink)
    states = torch.tensor([0 if side[i] else 1 for i in range(n)])
    value = PairwiseModel(unary, model.edges, model.pairwise).log_potential(states)
    return value, states
