"""A concept may turn as far as its own evidence exceeds chance, and as it keeps its own pictures."""

from __future__ import annotations

import numpy as np

from sparsecbm._base.directions import matched_directions
from sparsecbm.bottleneck.ties.base import ConceptGeometry, Tie, Tied, tangent

_NARROW = 0.998
"""Alignment of a concept without evidence."""

_CHANCE, _PLAIN = 1.0, 1.5
"""Evidence from which a concept may turn further, and from which as far as any may."""


class EarnedTie(Tie):
    """Cones as wide as the evidence: E_j = max over classes k of t_kj / (largest t_k. of M matched directions).

    t is how far a class stands out along the concept's score, its mean over the deviation within classes. The tangent
    of the cone grows linearly with E_j, from that of alignment .998 where E_j <= 1 (what chance reaches) to that of
    `min_alignment` where E_j >= 1.5. Whatever it earned, a unit is turned back until it keeps `min_survival` of the
    pictures that its concept ranks highest (`ConceptBottleneckLayer.narrow`).
    """

    name = "earned"
    alignment = 0.93
    survival = 0.75
    earned = True

    def bind(self, geometry: ConceptGeometry) -> Tied:
        anchors = geometry.scores(geometry.concepts)
        separation = geometry.separation(anchors)
        evidence = self.evidence(geometry, separation)
        widest = tangent(self.min_alignment)
        least = min(tangent(_NARROW), widest)
        share = np.clip((evidence - _CHANCE) / (_PLAIN - _CHANCE), 0.0, 1.0)
        return Tied(anchors, least + (widest - least) * share, separation, self.min_survival)

    @staticmethod
    def evidence(geometry: ConceptGeometry, separation: np.ndarray) -> np.ndarray:
        """E of each concept, shape (M,)."""
        rows = np.eye(len(geometry.space.center)) if geometry.concepts is None else geometry.concepts
        drawn = matched_directions(rows, np.random.default_rng([geometry.seed, 3]))
        chance = geometry.separation(geometry.scores(drawn)).max(axis=1)
        return (separation / np.where(chance > 0, chance, np.inf)[:, None]).max(axis=0)
