"""Concepts found in the data: sparse autoencoders of embeddings, names for their units, and what the names are worth.

`sparsecbm.estimators.SparseAutoencoder` is the scikit-learn face. One file a kind in `kinds/`; their names are lines of
`sparsecbm._base.parts`.
"""

from __future__ import annotations

from sparsecbm._base.parts import DICTIONARIES, DICTIONARY_BASELINES
from sparsecbm.dictionary.kinds.base import Dictionary, Step
from sparsecbm.dictionary.training import DictionaryOptions, DictionaryTrainer, begin

__all__ = [
    "DICTIONARIES",
    "DICTIONARY_BASELINES",
    "Dictionary",
    "DictionaryOptions",
    "DictionaryTrainer",
    "Step",
    "begin",
]
