"""The page of a search says what the labels say."""

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.explain import explain
from sparsecbm.explain.pages.report import Report
from sparsecbm.explain.pages.search_page import SearchPage

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def ledgers():
    rng = np.random.default_rng(0)
    concepts = [f"concept {j}" for j in range(6)]
    return explain(np.maximum(rng.normal(size=(9, 6)), 0), rng.normal(size=(3, 6)), np.zeros(3), concepts, CLASSES)


def test_a_wrong_picture_names_its_true_class_and_why_that_lost(ledgers) -> None:
    labels = (ledgers.targets + np.array([1] + 8 * [0])) % 3
    page = SearchPage(ledgers, title="t", summary="s", methods=[], labels=labels)
    assert len(page.right) == 8
    (wrong,) = page.wrong
    true, given = CLASSES[labels[0]], CLASSES[ledgers.targets[0]]
    assert wrong.ledger.truth == true
    assert wrong.alt == f"image 0, predicted {given}, truly {true}"
    assert (wrong.rival.account.target, wrong.rival.account.against) == (given, true)
    assert f"✗ truly {true}" in page.render()
    # The same picture, as the report of a model shows it.
    (reported,) = Report(ledgers, title="t", summary="s", figures=[], labels=labels).wrong
    assert (reported.ledger.to_text(), reported.alt) == (wrong.ledger.to_text(), wrong.alt)


def test_without_labels_nothing_is_right_or_wrong(ledgers) -> None:
    page = SearchPage(ledgers, title="t", summary="s", methods=[])
    assert len(page.right) == 9
    assert not page.wrong
    assert all(example.correct is None and example.rival is None for example in page.right)


def test_labels_out_of_range_are_refused(ledgers) -> None:
    with pytest.raises(InputError, match=r"labels: expected 9 class indices in 0\.\.2"):
        SearchPage(ledgers, title="t", summary="s", methods=[], labels=np.full(9, 3))
