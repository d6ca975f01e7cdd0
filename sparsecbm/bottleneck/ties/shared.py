"""One map for all concepts, made without looking at any of them."""

from __future__ import annotations

import numpy as np

from sparsecbm.bottleneck.ties.base import ConceptGeometry, Tie, Tied, tangent, unit_rows

_SHRINKAGE = 0.3


class SharedTie(Tie):
    """Every concept goes through the same inverse within-class covariance, as far as its cone lets it.

    The map turns each score away from what varies within classes (light, pose, background), as linear discriminant
    analysis does; it knows classes but no concept, so it cannot write a class into one.
    """

    name = "shared"
    alignment = 0.98

    def bind(self, geometry: ConceptGeometry) -> Tied:
        scores = geometry.scores(geometry.concepts)
        d = len(geometry.within)
        mean_variance = np.trace(geometry.within) / d or 1.0
        shrunk = (1.0 - _SHRINKAGE) * geometry.within + _SHRINKAGE * mean_variance * np.eye(d)
        turned = unit_rows(np.linalg.solve(shrunk, scores.T).T)
        # The map is positive definite, so no score turns by a right angle or more.
        along = np.einsum("md,md->m", scores, turned)[:, None]
        aside = turned / np.where(along > 0, along, 1.0) - scores
        length = np.linalg.norm(aside, axis=1, keepdims=True)
        aside *= np.minimum(1.0, tangent(self.min_alignment) / np.maximum(length, 1e-12))
        anchors = unit_rows(scores + aside)
        return Tied(anchors, np.zeros(len(anchors)), geometry.separation(anchors))
