"""Interventions: exact updates, bit-for-bit undo, counterfactuals against brute force, curves, edits of models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from sparsecbm import SparseCBMClassifier
from sparsecbm._base.errors import InputError
from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.interventions import (
    ConceptTruth,
    Interventions,
    ModelEdits,
    concept_uncertainty,
    counterfactual,
    curves_svg,
    intervention_curve,
    plausible,
)


def random_ledgers(seed: int, n: int = 6, m: int = 5, k: int = 3):
    rng = np.random.default_rng(seed)
    activations = np.maximum(rng.normal(size=(n, m)), 0)
    return explain(
        activations,
        rng.normal(size=(k, m)),
        0.3 * rng.normal(size=k),
        [f"concept {j}" for j in range(m)],
        [f"class {c}" for c in range(k)],
        sources=[f"image {i}" for i in range(n)],
    )


edits_strategy = st.lists(
    st.tuples(
        st.sampled_from(["set", "zero", "replace", "row", "all", "some"]),
        st.integers(0, 5),
        st.integers(0, 4),
        st.floats(-10, 10, width=32),
    ),
    max_size=25,
)


def apply(made: Interventions, what: str, i: int, j: int, value: float) -> None:
    if what == "set":
        made.set(i, j, value)
    elif what == "zero":
        made.zero(f"image {i}", f"concept {j}")
    elif what == "replace":
        made.replace(i, {f"concept {j}": value, f"concept {(j + 2) % 5}": -value})
    elif what == "row":
        made.replace(i, made.activations[(i + 1) % 6])
    elif what == "all":
        made.set(None, j, value)
    else:
        made.set([i, (i + 1) % 6], j, [value, 2 * value])


@settings(max_examples=60)
@given(st.integers(0, 50), edits_strategy)
def test_edits_are_exact_and_undone_bit_for_bit(seed, script) -> None:
    ledgers = random_ledgers(seed)
    made = Interventions(ledgers)
    states = [(made.activations.copy(), made.scores.copy())]
    for step in script:
        apply(made, *step)
        states.append((made.activations.copy(), made.scores.copy()))
        np.testing.assert_allclose(made.scores, made.activations @ ledgers.weights.T + ledgers.bias, atol=1e-9)
    assert len(made) == len(script)
    assert len(made.log) == len(script)
    while made.undo():
        states.pop()
        np.testing.assert_array_equal(made.activations, states[-1][0])
        np.testing.assert_array_equal(made.scores, states[-1][1])
    np.testing.assert_array_equal(made.scores, ledgers.scores)


def test_ten_thousand_edits_agree_with_one_product_and_are_undone_to_the_bit() -> None:
    ledgers = random_ledgers(0, n=1000, m=1608, k=100)
    made = Interventions(ledgers)
    rng = np.random.default_rng(1)
    rows, columns, values = rng.integers(1000, size=10_000), rng.integers(1608, size=10_000), rng.normal(size=10_000)
    for i, j, value in zip(rows.tolist(), columns.tolist(), values.tolist()):
        made.set(i, j, value)
    np.testing.assert_allclose(made.scores, made.activations @ ledgers.weights.T + ledgers.bias, atol=1e-9)
    assert made.reset() == 10_000
    np.testing.assert_array_equal(made.scores, ledgers.scores)
    np.testing.assert_array_equal(made.activations, ledgers.activations)


def test_edited_ledgers_add_up_and_follow_the_prediction() -> None:
    ledgers = random_ledgers(3)
    made = Interventions(ledgers)
    made.set(2, "concept 1", 50.0)
    ledger = made.ledger("image 2")
    assert ledger.target == made.predictions[2] == ledgers.classes[int(ledgers.weights[:, 1].argmax())]
    assert ledger.score == pytest.approx(made.scores[2].max())
    assert [one.target for one in made.ledgers] == made.predictions
    assert made.log[0].after == [[50.0]]
    assert made.accuracy(made.targets) == 1.0
    with pytest.raises(ValueError, match="read-only"):
        made.activations[0, 0] = 1.0


def test_bad_edits_change_nothing() -> None:
    made = Interventions(random_ledgers(0))
    before = made.scores.copy()
    for bad, match in (
        (lambda: made.set(0, "concept 9", 1.0), "did you mean 'concept"),
        (lambda: made.set(9, 0, 1.0), "image 9"),
        (lambda: made.set("imag 2", 0, 1.0), "did you mean 'image 2'"),
        (lambda: made.set(0, 0, float("nan")), "finite"),
        (lambda: made.set([0, 0], 0, 1.0), "named twice"),
        (lambda: made.set(None, 0, [1.0]), "one an image"),
        (lambda: made.replace(0, [1.0]), "one a concept"),
        (lambda: made.replace(0, {"concept 0": np.inf}), "NaN or infinity"),
    ):
        with pytest.raises(InputError, match=match):
            bad()
    np.testing.assert_array_equal(made.scores, before)


# -- counterfactuals ---------------------------------------------------------------------------------------------------


def least_edits(ledgers, i, low, high, target=None) -> int | None:
    """Brute force: subsets by size, every edited concept at one of its bounds (the extremes of a linear program)."""
    row, weights, bias = ledgers.activations[i], ledgers.weights, ledgers.bias
    winner = int((weights @ row + bias).argmax())
    for size in range(len(row) + 1):
        for subset in itertools.combinations(range(len(row)), size):
            for ends in itertools.product((low, high), repeat=size):
                edited = row.copy()
                for j, end in zip(subset, ends):
                    edited[j] = end[j]
                best = int((weights @ edited + bias).argmax())
                if best != winner if target is None else best == target:
                    return size
    return None


@pytest.mark.parametrize("seed", range(12))
def test_counterfactual_is_as_small_as_brute_force(seed) -> None:
    ledgers = random_ledgers(seed, n=5, m=6, k=4)
    low, high = np.minimum(ledgers.activations.min(0), 0), ledgers.activations.max(0)
    for i in range(5):
        found = counterfactual(ledgers, i, any_class=True)
        expected = least_edits(ledgers, i, low, high)
        assert (None if found is None else len(found)) == expected
        if found is None:
            continue
        assert found.optimal
        assert found.after.target != found.before.target == ledgers[i].target
        edited = ledgers.activations[i].copy()
        for edit in found.edits:
            j = ledgers.concepts.index(edit.concept)
            assert low[j] - 1e-12 <= edit.after <= high[j] + 1e-12
            edited[j] = edit.after
        scores = ledgers.weights @ edited + ledgers.bias
        assert ledgers.classes[int(scores.argmax())] == found.after.target
        moved = sum(edit.gain for edit in found.edits)
        assert moved == pytest.approx(
            ledgers._replace(activations=edited[None], targets=np.array([0]), sources=None, truths=None)
            .ledger(0, found.after.target, against=found.before.target)
            .score
            - ledgers.ledger(i, found.after.target, against=found.before.target).score
        )


@pytest.mark.parametrize("seed", range(4))
def test_counterfactual_to_a_given_class_is_as_small_as_brute_force(seed) -> None:
    ledgers = random_ledgers(seed, n=2, m=5, k=3)
    low, high = np.zeros(5), np.full(5, 3.0)
    for i in range(2):
        for target in range(3):
            if target == ledgers.targets[i]:
                with pytest.raises(InputError, match="already"):
                    counterfactual(ledgers, i, target=target)
                continue
            found = counterfactual(ledgers, i, target=target, low=low, high=high, frozen=np.zeros(5))
            # Against several rivals the best value may lie inside the bounds: brute force at the ends is no smaller.
            expected = least_edits(ledgers, i, low, high, target)
            if found is None:
                assert expected is None
            else:
                assert found.optimal
                assert found.after.target == ledgers.classes[target]
                assert expected is None or len(found) <= expected


def test_counterfactual_respects_frozen_concepts_and_bounds() -> None:
    ledgers = random_ledgers(1)
    free = counterfactual(ledgers, 0, any_class=True)
    assert free is not None
    frozen = np.array([name in {edit.concept for edit in free.edits} for name in ledgers.concepts])
    other = counterfactual(ledgers, 0, any_class=True, frozen=frozen)
    assert other is None or not {e.concept for e in other.edits} & {e.concept for e in free.edits}
    assert counterfactual(ledgers, 0, any_class=True, frozen=np.ones(5, bool)) is None
    removals = counterfactual(ledgers, 0, any_class=True, low=0.0, high=ledgers.activations[0])
    assert removals is None or all(edit.after <= edit.before for edit in removals.edits)
    assert free.edits[0].concept in free.to_text()
    with pytest.raises(InputError, match="low <= high"):
        counterfactual(ledgers, 0, low=1.0, high=0.0)


def test_counterfactual_is_toward_the_runner_up_by_what_its_pictures_show() -> None:
    """A heavy concept that no wren ever shows would turn everything into a wren; it is not offered by itself."""
    activations = [[2.0, 0, 0, 0], [1.5, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 1.0, 0.5]]
    weights = [[1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 3.0, 9.0]]
    ledgers = explain(
        activations, weights, [0.0, 0.2, 0.0], ["beak", "crest", "tail", "lobster"], ["jay", "tit", "wren"]
    )
    to_runner_up = counterfactual(ledgers, 0)
    assert to_runner_up.after.target == "tit"
    assert [edit.concept for edit in to_runner_up.edits] == ["beak"]
    assert to_runner_up.edits[0].after == pytest.approx(0.2, abs=1e-4)
    assert to_runner_up.turns == pytest.approx(1 / 3)  # of the other jay and two wrens, the jay
    free = counterfactual(ledgers, 0, any_class=True)
    assert [(edit.concept, free.after.target) for edit in free.edits] == [("lobster", "wren")]
    assert free.turns == 1.0
    assert "turns 100% of all pictures into wren" in free.to_text()
    assert list(plausible(ledgers, 0, "wren")) == [True, False, True, True]
    with pytest.raises(InputError, match="not both"):
        counterfactual(ledgers, 0, target="tit", any_class=True)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_concept_truth_is_the_mean_of_either_kind() -> None:
    activations = np.array([[1.0, 5.0], [3.0, 5.0], [0.0, 5.0]])
    truth = ConceptTruth.fit(activations, np.array([[1, 1], [1, 1], [0, 1]], bool))
    assert truth.present[0] == 2.0
    assert truth.absent[0] == 0.0
    assert truth.known.tolist() == [0]  # the second concept is always there: nothing stands for "not there"
    values = truth.values(np.array([[0, 1]], bool))
    assert values[0, 0] == 0.0
    assert np.isnan(values[0, 1])


def test_uncertainty_is_highest_where_truth_turns(rng) -> None:
    signal = rng.normal(size=(400, 1))
    made = concept_uncertainty(np.array([[-3.0], [0.0], [3.0]]), signal, signal > 0)
    assert made[1, 0] > 0.9
    assert max(made[0, 0], made[2, 0]) < 0.2
    assert (concept_uncertainty(signal, signal, np.ones((400, 1), bool)) == 0).all()


def test_uncertainty_is_that_of_scikit_learns_logistic_regression(rng) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = rng.normal(size=(300, 4)) * [1, 5, 0.1, 1], rng.normal(size=(50, 4)) * [1, 5, 0.1, 1]
    truth = train + rng.normal(size=train.shape) * [0.01, 3, 0.3, 0] > [0, 4, 0.1, 1]  # nearly separated, and separated
    made = concept_uncertainty(test, train, truth)
    for j in range(4):
        scale = train[:, j].std()
        fitted = LogisticRegression(tol=1e-10, max_iter=1000).fit(train[:, [j]] / scale, truth[:, j])
        p = fitted.predict_proba(test[:, [j]] / scale)
        np.testing.assert_allclose(made[:, j], -(p * np.log2(p)).sum(axis=1), atol=1e-5)
    with pytest.raises(InputError, match="the shapes do not fit"):
        concept_uncertainty(test, train, truth[:, :2])


def test_curves_end_where_full_knowledge_ends(rng) -> None:
    ledgers = random_ledgers(0, n=200, m=12, k=5)
    labels = rng.integers(5, size=200)
    values = np.maximum(rng.normal(size=(200, 12)), 0)
    values[:, 3] = np.nan
    edited = np.where(np.isnan(values), ledgers.activations, values)
    end = ((edited @ ledgers.weights.T + ledgers.bias).argmax(1) == labels).mean()
    start = (ledgers.targets == labels).mean()
    for order in ("uncertainty", "greedy", "random"):
        curve = intervention_curve(ledgers, labels, values, order=order, uncertainty=values * 0 + rng.random(12))
        assert len(curve.accuracy) == 12
        assert curve.accuracy[0] == pytest.approx(start)
        assert curve.accuracy[-1] == pytest.approx(end)
        assert len(curve.accuracy) == 12
    greedy = intervention_curve(ledgers, labels, values, order="greedy", steps=3)
    anyhow = intervention_curve(ledgers, labels, values, order="random", steps=3)
    assert (greedy.accuracy[1:] > anyhow.accuracy[1:]).all()
    again = intervention_curve(ledgers, labels, values, order="random", steps=3)
    np.testing.assert_array_equal(again.accuracy, anyhow.accuracy)
    drawn = curves_svg([greedy, anyhow])
    assert drawn.count("<polyline") == 2
    assert drawn.endswith("</svg>")
    for options, match in (({"order": "greedi"}, "did you mean 'greedy'"), ({"order": "uncertainty"}, "needs uncert")):
        with pytest.raises(InputError, match=match):
            intervention_curve(ledgers, labels, values, **options)


# -- edits of a model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = rng.normal(size=(4, 16))[y] + 0.4 * rng.normal(size=(120, 16))
    names = [f"thing {j}" for j in range(30)]
    model = SparseCBMClassifier(rng.normal(size=(30, 16)), names, max_active_concepts=4, max_iter=60, random_state=0)
    return model.fit(X, y), X, y


def test_model_edits_survive_saving_and_are_undone_after_loading(problem, tmp_path) -> None:
    fitted, X, y = problem
    fitted.save(tmp_path / "before")
    model = SparseCBMClassifier.load(tmp_path / "before")
    model.metadata_ = {"class_names": ["a", "b", "c", "d"]}
    weights, scores = model.head_weights_.copy(), model.logits(X)
    edits = ModelEdits(model)
    edits.suppress(["thing 3", "thing 5"])
    edits.suppress("thing 7", classes="b")
    edits.set_weight("thing 1", "c", 0.125)
    activations = model.transform(X).astype(float)
    without = weights.copy()
    without[:, [3, 5]] = 0
    without[1, 7] = 0
    without[2, 1] = 0.125
    np.testing.assert_array_equal(model.head_weights_, without)
    np.testing.assert_allclose(model.logits(X), activations @ without.T + model.head_intercept_)
    for ledger in model.explain(X[:5]):
        assert not {"thing 3", "thing 5"} & {entry.concept for entry in ledger.entries}
    found = edits.measure(X, y, on="here")
    assert found["before"] == (fitted.predict(X) == y).mean()
    assert found["after"] == (model.predict(X) == y).mean()
    assert (found["fixed"] - found["broken"]) / len(y) == pytest.approx(found["after"] - found["before"])

    model.save(tmp_path / "edited")
    loaded = SparseCBMClassifier.load(tmp_path / "edited")
    np.testing.assert_array_equal(loaded.logits(X), model.logits(X))
    again = ModelEdits(loaded)
    assert len(again) == 3
    assert again.measured == edits.measured
    assert "suppress thing 3, thing 5 for every class" in again.to_text()
    assert "thing 7 for b" in again.to_text()
    np.testing.assert_array_equal(again.original_weights(), weights)
    assert again.undo(99) == 3
    np.testing.assert_array_equal(loaded.head_weights_, weights)
    np.testing.assert_array_equal(loaded.logits(X), scores)
    assert "edits" not in loaded.metadata_


def test_bad_model_edits_are_named(problem) -> None:
    fitted, X, y = problem
    edits = ModelEdits(fitted)
    before = fitted.head_weights_.copy()
    for bad, match in (
        (lambda: edits.suppress("thing 33"), "did you mean 'thing"),
        (lambda: edits.suppress("thing 3", "nobody"), "unknown class"),
        (lambda: edits.suppress([]), "at least one concept"),
        (lambda: edits.set_weight("thing 3", "1", np.nan), "finite"),
        (lambda: edits.measure(X, y), "nothing was edited"),
        (lambda: ModelEdits(SparseCBMClassifier()), "expected a fitted model"),
    ):
        with pytest.raises(InputError, match=match):
            bad()
    np.testing.assert_array_equal(fitted.head_weights_, before)


def labelled_ledgers() -> tuple[Ledgers, np.ndarray, np.ndarray, np.ndarray]:
    """Ledgers of probabilities of six concepts, their truth, its activations, and the classes that follow from it."""
    rng = np.random.default_rng(3)
    p = rng.random((60, 6))
    truth, weights = (rng.random((60, 6)) < p).astype(float), rng.normal(size=(4, 6))
    worth = np.repeat([[0.0], [1.0]], 6, axis=1)
    ledgers = explain(p, weights, np.zeros(4), list("abcdef"), list("WXYZ"), presence=p, worth=worth)
    return ledgers, truth, truth, (truth @ weights.T).argmax(1)


@pytest.mark.parametrize("order", ["expected_gain", "flip"])
def test_orders_that_see_no_label_weigh_both_answers(order: str) -> None:
    ledgers, _, values, y = labelled_ledgers()
    costs = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
    curve = intervention_curve(ledgers, y, values, order=order, costs=costs)
    # Brute force, a picture at a time.
    accuracy, cost = np.zeros(7), np.zeros(7)
    for i in range(len(y)):
        scores, left, paid = ledgers.scores[i].copy(), set(range(6)), 0.0
        accuracy[0] += scores.argmax() == y[i]
        for step in range(6):
            promised = {}
            for j in left:
                p, hoped = ledgers.presence[i, j], 0.0
                for answer, chance in ((0.0, 1 - p), (1.0, p)):
                    tried = scores + (answer - p) * ledgers.weights[:, j]
                    rise = softmax(tried).max() - softmax(scores).max()
                    hoped += chance * (rise if order == "expected_gain" else tried.argmax() != scores.argmax())
                promised[j] = (hoped + 1e-9 * (0.5 - abs(p - 0.5))) / costs[j]
            best = max(sorted(left), key=promised.__getitem__)
            left.remove(best)
            paid += costs[best]
            scores = scores + (values[i, best] - ledgers.presence[i, best]) * ledgers.weights[:, best]
            accuracy[step + 1] += scores.argmax() == y[i]
            cost[step + 1] += paid
    np.testing.assert_allclose(curve.accuracy, accuracy / len(y))
    np.testing.assert_allclose(curve.cost, cost / len(y))
    assert curve.accuracy[-1] == 1.0


def test_an_expert_may_be_wrong() -> None:
    ledgers, truth, values, y = labelled_ledgers()
    wrong = intervention_curve(ledgers, y, values, order="uncertainty", noise=1.0).accuracy[-1]
    assert wrong == ((1 - truth) @ ledgers.weights.T).argmax(1).__eq__(y).mean()
    some = intervention_curve(ledgers, y, values, order="uncertainty", noise=0.1).accuracy[-1]
    assert wrong < some < 1
    # Weighed, what is said moves a probability by the odds of being right, and a guess moves it not at all.
    guess = intervention_curve(ledgers, y, values, order="uncertainty", noise=0.5, trusted=False).accuracy
    np.testing.assert_array_equal(guess, np.full(7, guess[0]))
    weighed = intervention_curve(ledgers, y, values, order="uncertainty", noise=0.1, trusted=False, seed=5)
    flips = np.random.default_rng(5).random((60, 6)) < 0.1
    odds = ledgers.presence / (1 - ledgers.presence) * np.where((truth == 1) ^ flips, 9.0, 1 / 9.0)
    expected = ((odds / (1 + odds)) @ ledgers.weights.T).argmax(1) == y
    assert weighed.accuracy[-1] == expected.mean()
    bare = explain(ledgers.activations, ledgers.weights, ledgers.bias, ledgers.concepts, ledgers.classes)
    for options in ({"order": "flip"}, {"order": "random", "noise": 0.5}):
        with pytest.raises(InputError, match="needs presence"):
            intervention_curve(bare, y, values, **options)
    with pytest.raises(InputError, match="costs"):
        intervention_curve(ledgers, y, values, order="random", costs=np.zeros(6))


def test_corrections_are_said_in_probabilities_and_undone() -> None:
    worth = [[0.0, -0.5], [1.0, 2.0]]
    ledgers = explain(
        [[0.03, 0.4]], [[2.0, 1.0], [0.0, 0.5]], [0, 0], ["red crown", "crest"], ["finch", "jay"],
        presence=[[0.03, np.nan]], worth=worth,
    )  # fmt: skip
    assert [line.name for line in ledgers[0].lines().lines] == ["crest", "red crown: 3%", "bias"]
    p, weights = [[0.03, 0.9]], [[2.0, 1.0], [1.0, 3.0]]
    for presence, said in (
        (p, "crest: 90% -> 26% (+"),
        (None, "crest: 0.9 -> 0.2"),
    ):  # activations are probabilities, or not
        whole = explain(p, weights, [0.5, 0], ["red crown", "crest"], ["finch", "jay"], presence=presence, worth=worth)
        assert said in counterfactual(whole, 0).to_text()
    edits = Interventions(ledgers)
    edits.correct(0, "red crown", 1)
    edits.correct(0, "crest", 0.2)
    np.testing.assert_allclose(edits.activations, [[1.0, 0.0]])
    names = [line.name for line in edits.ledger(0).lines().lines]
    assert names == ["red crown: 3% -> corrected to present", "crest: corrected to 20%", "bias"]
    assert edits.ledgers[0].score == pytest.approx(edits.scores[0].max())
    edits.undo(2)
    assert [line.name for line in edits.ledger(0).lines().lines] == ["crest", "red crown: 3%", "bias"]
    with pytest.raises(InputError, match="0, 1, or a probability"):
        edits.correct(0, "crest", 2)
