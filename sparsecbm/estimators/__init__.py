"""The scikit-learn faces of the toolkit."""

from sparsecbm.estimators.sparse_cbm import SparseCBMClassifier

__all__ = ["SparseCBMClassifier"]
