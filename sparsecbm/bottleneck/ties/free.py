"""Every unit may turn equally far, wherever the classes pull it."""

from __future__ import annotations

import numpy as np

from sparsecbm.bottleneck.ties.base import ConceptGeometry, Tie, Tied, tangent


class FreeTie(Tie):
    """One cone for all units. A readable-looking probe: at .9 meaningless directions decide as well as concepts do."""

    name = "free"
    alignment = 0.9

    def bind(self, geometry: ConceptGeometry) -> Tied:
        anchors = geometry.scores(geometry.concepts)
        turns = np.full(len(anchors), tangent(self.min_alignment))
        return Tied(anchors, turns, geometry.separation(anchors), self.min_survival)
