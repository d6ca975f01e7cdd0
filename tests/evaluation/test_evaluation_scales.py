"""Measures of directions do not depend on the scale of what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError
from sparsecbm.evaluation.meaning import name_alignment, plausibility


def test_alignment_of_any_scale():
    rng = np.random.default_rng(0)
    units, scores = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    expected = name_alignment(units, scores).per_unit
    np.testing.assert_allclose(expected, np.diag(np.corrcoef(units.T, scores.T)[:4, 4:]), atol=1e-12)
    np.testing.assert_allclose(name_alignment(units * 1e-200, scores * 1e200).per_unit, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_directions_and_plausibility_of_any_scale(scale):
    rng = np.random.default_rng(0)
    concepts, classes = rng.normal(size=(6, 5)), rng.normal(size=(2, 5))
    drawn = [matched_directions(held, np.random.default_rng(1)) for held in (concepts, concepts * scale)]
    np.testing.assert_allclose(drawn[1], drawn[0], atol=1e-6)
    A, W = np.abs(rng.normal(size=(3, 6))), np.abs(rng.normal(size=(2, 6)))
    expected = plausibility(A, W, [0, 1, 0], classes, concepts)
    assert plausibility(A, W, [0, 1, 0], classes * scale, concepts * scale) == pytest.approx(expected)
    concepts[2] = 0
    with pytest.raises(InputError, match="concept_embeddings: row 2 is a zero vector"):
        matched_directions(concepts, rng)
    with pytest.raises(InputError, match="concept_embeddings: row 2 is a zero vector"):
        plausibility(A, W, [0, 1, 0], classes, concepts)
