"""Ledgers: exact sums, every view of them, and what they refuse."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsecbm._base.errors import InputError
from sparsecbm.explain import Ledger, explain

NAMES = ["red crown", "long tail", "crest", "lake"]
CLASSES = ["finch", "jay", "lark"]
FINITE = st.floats(-100, 100, allow_nan=False, width=32)


@pytest.fixture
def ledgers(rng):
    activations = rng.normal(size=(5, 4)) * (rng.random((5, 4)) > 0.4)
    return explain(activations, rng.normal(size=(3, 4)), [0.1, -0.2, 0.3], NAMES, CLASSES, sources=list("abcde"))


@settings(max_examples=60)
@given(
    arrays(np.float64, (3, 4), elements=FINITE),
    arrays(np.float64, (3, 4), elements=FINITE),
    arrays(np.float64, 3, elements=FINITE),
)
def test_every_ledger_adds_up_to_its_score(activations, weights, bias) -> None:
    ledgers = explain(activations, weights, bias, NAMES, CLASSES)
    scores = activations @ weights.T + bias
    for i in range(3):
        for a in range(3):
            ledger = ledgers.ledger(i, a)
            assert ledger.score == pytest.approx(scores[i, a], rel=1e-9, abs=1e-6)
            assert ledger.bias + sum(entry.contribution for entry in ledger.entries) == pytest.approx(
                ledger.score, abs=1e-6
            )
            count, rest = ledger.rest(2)
            assert len(ledger.top(2)) + count == len(ledger.entries)
            assert ledger.bias + sum(e.contribution for e in ledger.top(2)) + rest == pytest.approx(
                ledger.score, abs=1e-6
            )
            for b in range(3):
                pair = ledgers.ledger(i, a, against=b)
                assert pair.score == pytest.approx(scores[i, a] - scores[i, b], rel=1e-9, abs=1e-6)


def test_default_target_is_the_prediction_and_probabilities_are_softmax(ledgers) -> None:
    scores = ledgers.scores
    assert [ledger.target for ledger in ledgers] == [CLASSES[k] for k in scores.argmax(axis=1)]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ledgers.probabilities, expected, rtol=1e-12)
    assert ledgers[0].probability == pytest.approx(expected[0].max())


def test_mean_ledger_explains_the_mean_score(ledgers) -> None:
    assert ledgers.mean("jay").score == pytest.approx(ledgers.scores[:, 1].mean())
    assert ledgers.mean("jay", against="lark").score == pytest.approx(
        (ledgers.scores[:, 1] - ledgers.scores[:, 2]).mean()
    )


def test_pair_and_class_views(ledgers) -> None:
    pairs = ledgers.pair("finch", "jay")
    assert len(pairs) == 5
    assert [p.score for p in pairs] == pytest.approx((ledgers.scores[:, 0] - ledgers.scores[:, 1]).tolist())
    assert pairs[0].probability is None
    assert pairs[0].question == "why finch and not jay"
    assert {ledger.target for ledger in ledgers.for_class(2)} == {"lark"}


def test_entries_are_sorted_by_size_and_leave_out_inactive_concepts() -> None:
    ledger = Ledger(tuple(NAMES), np.array([1.0, 0.0, 2.0, 1.0]), np.array([0.5, 9.0, -3.0, 0.5]), 0.0, "finch")
    assert [entry.concept for entry in ledger.entries] == ["crest", "red crown", "lake"]
    assert ledger.n_active == 3


def test_frame_adds_up(ledgers) -> None:
    frame = ledgers[1].to_frame()
    assert frame["contribution"].sum() == pytest.approx(ledgers[1].score)
    long = ledgers.to_frame()
    sums = long.groupby("image")["contribution"].sum()
    assert sums["b"] == pytest.approx(ledgers[1].score)


def test_frame_without_pandas_says_what_to_install(ledgers, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        ledgers[0].to_frame()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_text_fits_the_width_and_shows_sums(width) -> None:
    names = ["x" * 200, "鳥" * 60, "plain", "tab\tand\x1b[31mred"]
    ledger = Ledger(tuple(names), np.ones(4), np.array([2.0, -1.5, 1.0, 0.5]), 0.25, "a class", source="p.png")
    text = ledger.to_text(k=3, width=width)
    assert "\x1b" not in text
    assert "\t" not in text
    assert "1 other concept" in text
    assert "+2.250" in text.splitlines()[-1]
    wide = [sum(2 if "\u2e80" < c < "\uffef" else 1 for c in line) for line in text.splitlines()]
    assert max(wide) <= width


def test_a_long_file_name_gives_way_to_the_verdict() -> None:
    source = "/" + "deep/" * 40 + "bird.png"
    ledger = Ledger(("a",), np.ones(1), np.ones(1), 0.0, "some finch", probability=0.5, source=source, truth="a jay")
    head = ledger.to_text(width=60).splitlines()[0]
    assert head.startswith("…")
    assert head.endswith("/bird.png: some finch (50.0%), truly a jay")
    assert len(head) <= 60


def test_html_is_escaped_and_complete() -> None:
    evil = '<script>alert("x")</script>'
    ledger = Ledger((evil, "b"), np.array([1.0, 2.0]), np.array([1.0, -1.0]), 0.5, evil, source=evil, truth=evil + "2")
    page = ledger._repr_html_()
    assert "<script" not in page
    assert page.count(html.escape(evil).replace("&quot;", "&#34;")) >= 3
    numbers = [float(n.replace("\N{MINUS SIGN}", "-")) for n in re.findall(r'class="number">([^<]+)<', page)]
    assert numbers[-1] == pytest.approx(-0.5)
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1])


def test_bars_lie_inside_and_start_at_zero(ledgers) -> None:
    from sparsecbm.explain.html import lay_out

    for ledger in ledgers:
        layout = lay_out(ledger.lines(2))
        for row in layout.bars:
            assert row.left >= -1e-9
            assert row.left + row.length <= 100 + 1e-9
            edge = row.left if row.value >= 0 else row.left + row.length
            assert edge == pytest.approx(layout.zero)


def test_plot_shows_every_line_even_with_dollar_signs() -> None:
    import matplotlib.pyplot as plt

    ledger = Ledger(("$x_1$ and $\\frac", "b"), np.ones(2), np.array([1.0, -2.0]), 0.1, "$a", probability=0.5)
    ax = ledger.plot(k=5)
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "$x_1$ and $\\frac", "bias"]
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([-2.0, 1.0, 0.1])
    plt.close(ax.figure)


def test_explained_prediction_draws_any_shape(ledgers, tmp_path) -> None:
    from PIL import Image

    from sparsecbm.explain.plots import plot_explained_prediction

    for size in ((64, 64), (300, 120), (90, 400)):
        path = tmp_path / f"{size[0]}.png"
        plot_explained_prediction(Image.new("RGB", size, "teal"), ledgers[0].lines(8)).savefig(path, dpi=40)
        assert Image.open(path).size == (400, 168)


def test_bad_input_is_named(ledgers) -> None:
    good = (np.ones((2, 4)), np.ones((3, 4)), np.zeros(3), NAMES, CLASSES)
    with pytest.raises(InputError, match="do not fit"):
        explain(np.ones((2, 5)), *good[1:])
    with pytest.raises(InputError, match="do not fit"):
        explain(*good[:2], np.zeros(2), NAMES, CLASSES)
    with pytest.raises(InputError, match="NaN or infinity"):
        explain(np.full((2, 4), np.nan), *good[1:])
    with pytest.raises(InputError, match="sources: 1 given for 2 images"):
        explain(*good, sources=["a"])
    with pytest.raises(InputError, match="did you mean 'finch'"):
        explain(*good, targets=["fnich", "jay"])
    with pytest.raises(InputError, match="class index 7"):
        ledgers.ledger(0, 7)
    with pytest.raises(InputError, match="k=-1"):
        ledgers[0].top(-1)
    with pytest.raises(IndexError):
        ledgers[5]


def test_sequence_protocol_and_names(ledgers) -> None:
    assert len(ledgers) == 5
    assert ledgers[-1].source == "e"
    assert [ledger.source for ledger in ledgers[1:3]] == ["b", "c"]
    assert "5 images" in repr(ledgers)
    assert "score" in repr(ledgers[0])
    assert ledgers._repr_html_().count("<table") == 5
