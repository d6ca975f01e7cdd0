"""The report: one file, no request, everything escaped, the numbers those of the ledgers."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import write_json
from sparsecbm.explain import explain
from sparsecbm.explain.cues import find_cues
from sparsecbm.explain.interventions import intervention_curve
from sparsecbm.explain.mistakes import confusions, right_for_absent
from sparsecbm.explain.pages.base import Figure
from sparsecbm.explain.pages.pictures import inline_picture
from sparsecbm.explain.pages.report import Report

CLASSES = ["finch", "<b>jay</b>", "lark"]


class Page(HTMLParser):
    """Collect tags and text; complain about a tag that is closed but was not opened last."""

    VOID = {"meta", "link", "img", "br", "col", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def ledgers(rng):
    n, m = 60, 12
    activations = np.maximum(rng.normal(size=(n, m)), 0)
    activations[:, -1] = 0.0
    names = [f"concept {j}" for j in range(m - 1)] + ['<img src="http://x/">']
    sources = [f"p{i}.png" for i in range(n)]
    return explain(activations, rng.normal(size=(3, m)), np.zeros(3), names, CLASSES, sources=sources)


@pytest.fixture
def labels(ledgers, rng):
    truth = ledgers.targets.copy()
    truth[:9] = (truth[:9] + 1) % 3
    return truth


def page_of(ledgers, labels, **options) -> tuple[str, Page]:
    text = Report(
        ledgers,
        title="T <i>",
        summary="S",
        figures=[Figure("Accuracy", "85%", "note")],
        facts={"Encoder": "bundled"},
        labels=labels,
        picture=lambda i: Image.new("RGB", (64 + 300 * (i % 2), 64), (i, 0, 0)),
        concept_auc={"concept 0": 0.987},
        **options,
    ).render()
    return text, Page(text)


def test_page_stands_alone(ledgers, labels) -> None:
    text, page = page_of(ledgers, labels)
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", text), "something is loaded from outside"
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.all("script")) == 1
    assert "<img src=" not in page.text.replace('<img src="http://x/">', "")
    assert any(attrs.get("http-equiv") == "Content-Security-Policy" for attrs in page.all("meta"))
    assert len(text) < 5_000_000


def test_page_is_accessible(ledgers, labels) -> None:
    text, page = page_of(ledgers, labels)
    assert page.all("html")[0]["lang"] == "en"
    for tag, count in (("main", 1), ("header", 1), ("footer", 1), ("nav", 1), ("h1", 1)):
        assert len(page.all(tag)) == count
    assert all(image.get("alt") for image in page.all("img"))
    assert all("scope" in cell for cell in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids
    for theme in ("prefers-color-scheme: dark", "@media print"):
        assert theme in text


def test_examples_are_what_the_model_computes(ledgers, labels) -> None:
    report = Report(ledgers, title="t", summary="s", labels=labels, examples=10)
    assert report.n_wrong == 9
    assert len(report.wrong) == 5
    assert len(report.correct) == 5
    for example in (*report.correct, *report.wrong):
        i = int(example.ledger.source[1:-4])
        assert example.correct == (ledgers.targets[i] == labels[i])
        assert example.ledger.score == pytest.approx(ledgers.scores[i, ledgers.targets[i]])
        if example.rival is not None:
            difference = ledgers.scores[i, ledgers.targets[i]] - ledgers.scores[i, labels[i]]
            assert example.rival.account.score == pytest.approx(difference)
            assert difference > 0
        shown = sum(row.value for row in example.layout.bars)
        assert shown == pytest.approx(example.ledger.score)


def test_tables_count_correctly(ledgers, labels) -> None:
    report = Report(ledgers, title="t", summary="s", labels=labels, concept_auc={"concept 0": 0.987})
    accuracy = np.average([row.accuracy for row in report.classes], weights=[row.n_images for row in report.classes])
    assert accuracy == pytest.approx((ledgers.targets == labels).mean())
    share = {row.usage.concept: row.usage.share for row in report.concepts}
    np.testing.assert_allclose([share[name] for name in ledgers.concepts], (ledgers.activations != 0).mean(axis=0))
    assert sum(usage.share > 0 for usage in report.usage) == 11
    assert [row.auc for row in report.concepts if row.usage.concept == "concept 0"] == [0.987]


def test_no_labels_no_verdict(ledgers) -> None:
    _, page = page_of(ledgers, None)
    assert "right" not in page.text.split("Explained predictions")[1].split("Classes")[0]
    assert "Wrong, and why" not in page.text


def test_all_right_and_all_wrong(ledgers) -> None:
    right = Report(ledgers, title="t", summary="s", labels=ledgers.targets, examples=8)
    assert (len(right.correct), len(right.wrong)) == (8, 0)
    wrong = Report(ledgers, title="t", summary="s", labels=(ledgers.targets + 1) % 3, examples=8)
    assert (len(wrong.correct), len(wrong.wrong)) == (0, 8)
    Page(wrong.render())


def test_same_seed_same_page(ledgers, labels) -> None:
    assert page_of(ledgers, labels, seed=3)[0] == page_of(ledgers, labels, seed=3)[0]


def test_bad_input(ledgers) -> None:
    with pytest.raises(InputError, match="labels: expected 60 class indices"):
        Report(ledgers, title="t", summary="s", labels=np.full(60, 3))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_pictures_are_inlined(mode) -> None:
    small = inline_picture(Image.new(mode, (64, 48)))
    assert small.pixelated
    assert (small.width, small.height) == (64, 48)
    large = inline_picture(Image.new(mode, (2000, 1000)))
    assert not large.pixelated
    assert (large.width, large.height) == (288, 144)
    for made in (small, large):
        decoded = Image.open(io.BytesIO(base64.b64decode(made.uri.split(",")[1])))
        assert decoded.size == (made.width, made.height)


def test_only_the_page_s_own_script_may_run(ledgers, labels) -> None:
    text, page = page_of(ledgers, labels)
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"\son\w+\s*=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def test_findings_stand_on_the_page(ledgers, labels, rng) -> None:
    cues = find_cues(ledgers, labels, ledgers, labels)
    values = np.where(rng.random(ledgers.activations.shape) < 0.5, 1.0, 0.0)
    curves = [intervention_curve(ledgers, labels, values, order=order) for order in ("greedy", "random")]
    shown = rng.random(ledgers.activations.shape) < 0.7
    controls = [{"name": "Random <words>", "accuracy": 0.4321, "sd": 0.01, "note": "n"}]
    _, page = page_of(
        ledgers,
        labels,
        controls=controls,
        cues=cues,
        curves=curves,
        edits=["suppress lake for every class"],
        truth=(range(12), shown),
    )
    text = " ".join(page.text.split())
    assert "Random <words>" in text
    assert "43.2%" in text
    assert "suppress lake for every class" in text
    assert f"From {curves[0].accuracy[0]:.1%} to {curves[0].accuracy[-1]:.1%}" in text
    for cue in cues.cues:
        assert cue.concept in text
    reasons = right_for_absent(ledgers, labels, shown)
    assert f"{len(reasons)} pictures are right with the help of concepts that they do not show" in text
    first = confusions(ledgers, labels)[0]
    assert f"{first.truth}{first.predicted}{len(first)}" in page.text
    with pytest.raises(InputError, match="is no control"):
        page_of(ledgers, labels, controls=[{"name": "x"}])


def test_examples_say_what_would_turn_them(ledgers, labels) -> None:
    report = Report(ledgers, title="t", summary="s", labels=labels, examples=6)
    for example in (*report.correct, *report.wrong):
        if example.turned is not None:
            assert example.turned.before.target == example.ledger.target != example.turned.after.target


def test_galleries_show_the_most_active_pictures(ledgers, labels) -> None:
    report = Report(
        ledgers, title="t", summary="s", labels=labels, picture=lambda i: Image.new("RGB", (300, 300), (i, 0, 0))
    )
    assert len(report.galleries) == 11
    for gallery in report.galleries:
        column = ledgers.activations[:, ledgers.concepts.index(gallery.concept)]
        assert [one.value for one in gallery.pictures] == sorted(column[column > 0])[::-1][:5]
        assert all(max(one.picture.width, one.picture.height) == 96 for one in gallery.pictures)


def test_controls_of_a_run_are_found_where_they_fit(tmp_path) -> None:
    from sparsecbm.runs.report import stored_controls

    table = [{"name": "Linear probe", "accuracy": 0.9, "sd": None, "note": ""}]
    gap = {"own_recipe": {"accuracy": 0.4, "difference": 0.1, "low": 0.0, "high": 0.2}}
    assert stored_controls(tmp_path, "test", 10) == {}
    write_json(tmp_path / "metrics.json", {"test": {"n_images": 10, "controls": table, "advantage": gap}})
    assert stored_controls(tmp_path, "test", 10) == {"controls": table, "advantage": gap}
    assert stored_controls(tmp_path, "test", 11) == {}
    better = [*table, {"name": "Random words", "accuracy": 0.5, "sd": 0.1, "note": ""}]
    (tmp_path / "evaluation").mkdir()
    thorough = {"rows": better, "advantage": gap, "verdict": "Said."}
    write_json(tmp_path / "evaluation" / "test.json", {"metrics": {"n_images": 10}, "controls": thorough})
    assert stored_controls(tmp_path, "test", 10) == {"controls": better, "advantage": gap, "verdict": "Said."}
