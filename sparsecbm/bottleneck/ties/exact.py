"""Units are the concept scores."""

from __future__ import annotations

import numpy as np

from sparsecbm.bottleneck.ties.base import ConceptGeometry, Tie, Tied


class ExactTie(Tie):
    """No unit turns: unit j is concept score j, standardised. The names are what they say, whatever it costs."""

    name = "exact"

    def bind(self, geometry: ConceptGeometry) -> Tied:
        anchors = geometry.scores(geometry.concepts)
        return Tied(anchors, np.zeros(len(anchors)), geometry.separation(anchors))
