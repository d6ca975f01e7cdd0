"""The frontier: one fit a tie, every budget from it, the same numbers as fitting, resumed where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.estimators import SparseCBMClassifier
from sparsecbm.estimators.frontier import Frontier

DIM, N_CLASSES = 24, 6


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    concepts = rng.normal(size=(60, DIM))
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    y = np.array(list("abcdef"))[np.arange(360) % N_CLASSES]
    own = concepts[: 2 * N_CLASSES].reshape(2, N_CLASSES, DIM).sum(0)
    X = own[np.arange(360) % N_CLASSES] + 1.2 * rng.normal(size=(360, DIM)) / np.sqrt(DIM)
    return X[:180], y[:180], X[180:], y[180:], concepts


def recipe(data, **options):
    return SparseCBMClassifier(data[4], max_iter=40, random_state=0, loss="none", verbose=False, **options)


@pytest.fixture(scope="module")
def found(data):
    return recipe(data).frontier(*data[:4], nec=(1, 3), active=(2, 8), ties=("exact", "earned"))


def test_a_point_is_what_fitting_with_its_budget_gives(data, found):
    for point in (found.find(nec=3, active=2, tie="exact"), found.find(nec=1, active=8, tie="earned")):
        model = recipe(data, tie=point.tie, concepts_per_class=point.nec, max_active_concepts=point.active)
        assert point.accuracy == pytest.approx(model.fit(*data[:2]).score(*data[2:4]))
        assert point.used <= min(point.active, 2 * point.nec * N_CLASSES)


def test_exact_names_survive_and_meaningless_directions_stand_beside(found):
    assert len(found.points) == 8
    assert all(point.survival == 1.0 for point in found.points if point.tie == "exact")
    best = found.find(nec=3, active=8, tie="exact")
    assert best.advantage == pytest.approx(best.accuracy - best.meaningless)
    assert best.low <= best.advantage <= best.high
    assert best.low > 0
    again = Frontier.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found


def test_it_goes_on_where_it_stopped_and_trains_once_a_side(data, tmp_path, monkeypatch):
    fits, fit = [], SparseCBMClassifier.fit

    def counting(self, *args, **options):
        fits.append(self.tie)
        return fit(self, *args, **options)

    monkeypatch.setattr(SparseCBMClassifier, "fit", counting)
    first = recipe(data).frontier(*data[:4], nec=(2,), active=(2, 4), ties=("shared",), checkpoint_dir=tmp_path)
    assert fits == ["shared", "shared"]
    assert recipe(data).frontier(
        *data[:4], nec=(2,), active=(2, 4), ties=("shared",), checkpoint_dir=tmp_path
    ) == first  # fmt: skip
    assert fits == ["shared", "shared"]
    more = recipe(data).frontier(
        *data[:4], nec=(2,), active=(2, 4, 8), ties=("shared",), checkpoint_dir=tmp_path, control=True
    )
    assert more.points[:2] == first.points
    assert len(fits) == 4
    alone = recipe(data).frontier(*data[:4], nec=(2,), active=(4,), control=False)
    assert alone.points[0].meaningless is None
    assert alone.points[0].tie == "earned"


def test_bad_input_is_named(data, found):
    with pytest.raises(InputError, match=r"nec=4.*nec: 1, 3"):
        found.find(nec=4, active=2, tie="exact")
    with pytest.raises(InputError, match="at least 1"):
        recipe(data).frontier(*data[:4], nec=(0,))
    with pytest.raises(InputError, match="no budgets"):
        recipe(data, variant="published").frontier(*data[:4])
    with pytest.raises(InputError, match="no frontier"):
        Frontier.from_json({"points": [{}]})
