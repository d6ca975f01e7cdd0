"""Look inside: contribution ledgers, their pictures, and the one-page report.

Everything here is built from arrays (activations, head weights, bias, names), so it serves any model whose class
scores are a linear function of named concept activations.
"""

from sparsecbm.explain.ledger import EVERYTHING_ELSE, Entry, Ledger, Ledgers, explain

__all__ = ["EVERYTHING_ELSE", "Entry", "Ledger", "Ledgers", "explain"]
