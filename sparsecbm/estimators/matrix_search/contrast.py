"""Nothing but k concepts decides, and they are chosen to tell the leading candidates apart."""

from __future__ import annotations

from sparsecbm.estimators.matrix_search.base import Array
from sparsecbm.estimators.matrix_search.pursuit import SparseCodes
from sparsecbm.estimators.matrix_search.sparse import SparseRule


class ContrastRule(SparseRule):
    """As `SparseRule`, with focused codes: concepts that tell this image's leading candidates apart come first.

    It is still literally true that at most k pairs of concept and activation decide, through a fixed matrix. But the
    dense rule's scores have a say in which concepts they are. Read these codes as the shortest account of *that
    decision*, not as a description of the image made without knowing it; `SparseRule` is the latter.
    """

    name = "contrast"

    def deciding(self, X: Array) -> SparseCodes:
        """Focused codes of at most `max_active_concepts`: these decide."""
        return self.metric_codes.focused(X - self.arrays["origin"], self.options.max_active_concepts)
