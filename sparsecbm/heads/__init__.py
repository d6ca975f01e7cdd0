"""Sparse linear heads: regularisation path, exact NEC, certificates."""

from __future__ import annotations

from sparsecbm.heads.nec import anec, counting_rules, nec
from sparsecbm.heads.selection import SELECTIONS
from sparsecbm.heads.solver.elastic_net import MultinomialResult, l1_max, multinomial_logistic, multinomial_path
from sparsecbm.heads.solver.softmax_sparse import stays_sparse
from sparsecbm.heads.sparse_head import HeadPath, SparseHead

__all__ = [
    "SELECTIONS",
    "HeadPath",
    "MultinomialResult",
    "SparseHead",
    "anec",
    "counting_rules",
    "l1_max",
    "multinomial_logistic",
    "multinomial_path",
    "nec",
    "stays_sparse",
]
