"""Pages and terminal lines whose every string is an attack are the same pages, with the attack to read on them."""

from __future__ import annotations

import io
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sparsecbm._base.errors import printable
from sparsecbm.cli import terminal
from sparsecbm.explain import explain
from sparsecbm.explain.cues import find_cues
from sparsecbm.explain.pages.base import Figure
from sparsecbm.explain.pages.report import Report
from sparsecbm.explain.pages.search_page import MethodRow, SearchPage

ATTACKS = [
    "</script><script>boom()</script>",
    "\"><img src=x onerror='boom()'>",
    "' onmouseover='boom()",
    "</title></style></svg><svg onload=boom()>",
    "]]><!--<a href=javascript:boom()>",
    "{{ 7 * 191 }}{% for x in y %}&lt;b&gt;",
]


class Skeleton(HTMLParser):
    """Tags and attributes, but not what they say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen[tag] += 1
        for key, value in attrs:
            self.seen[f"{tag} {key}"] += 1
            if key in ("src", "href"):
                assert (value or "").startswith(("data:", "#"))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def pages(mark: str) -> tuple[str, str]:
    """The report and the search page, every string of them with `mark` in it."""
    rng = np.random.default_rng(0)
    n, m = 60, 12
    activations = np.maximum(rng.normal(size=(n, m)), 0)
    names = [f"concept {j:02d} {mark}" for j in range(m)]
    classes = [f"class {c} {mark}" for c in range(3)]
    sources = [f"p{i:02d} {mark}" for i in range(n)]
    ledgers = explain(activations, rng.normal(size=(3, m)), np.zeros(3), names, classes, sources=sources)
    labels = ledgers.targets.copy()
    labels[:9] = (labels[:9] + 1) % 3
    common = {
        "title": mark,
        "summary": mark,
        "figures": [Figure(mark, mark, mark)],
        "facts": {mark: mark},
        "labels": labels,
        "picture": lambda i: Image.new("RGB", (8, 8)),
    }
    report = Report(
        ledgers,
        controls=[{"name": mark, "accuracy": 0.5, "sd": 0.1, "note": mark}],
        cues=find_cues(ledgers, labels, ledgers, labels),
        edits=[mark],
        concept_auc=dict.fromkeys(names, 0.7),
        **common,
    )
    methods = [MethodRow(mark, 0.5, 1.0, mark, main=True), MethodRow(mark, None, 1.0)]
    return report.render(), SearchPage(ledgers, methods=methods, **common).render()


@pytest.fixture(scope="module")
def plain() -> list[Counter[str]]:
    return [Skeleton(page).seen for page in pages("plain words")]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_string_becomes_markup(plain, attack):
    for page, expected in zip(pages(attack), plain, strict=True):
        made = Skeleton(page)
        assert made.seen == expected
        assert made.text.count(attack) > 50  # there to be read, letter for letter


TERMINAL = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08" * 9, "\u202e"]


@pytest.mark.parametrize("attack", TERMINAL)
def test_no_string_moves_the_cursor(attack, monkeypatch):
    """The console that all commands print to, whatever is printed: text, markup, tables."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    console = terminal.make_console()
    table = Table(title=escape(f"a{attack}b"))
    table.add_column("x")
    table.add_row(f"c{attack}d [red]")
    for what in (f"e{attack}f\n\tg", Text(f"h{attack}i"), table):
        console.print(what)
    assert not {c for c in attack if not c.isprintable()} & set(out.getvalue())
    assert printable(f"a{attack}b\n").isprintable()
    assert printable("é ü 鳥 \n", keep="\n") == "é ü 鳥 \n"


def test_errors_do_not_move_it_either(capsys):
    from sparsecbm.cli.base import _fail

    with pytest.raises(SystemExit):
        _fail("no file 'a\x1b[2Jb'\r\x9bx", 2)
    assert capsys.readouterr().err.rstrip("\n").isprintable()


OVERRIDE = "wren\u202eten\u2066x\u2069\x1b[2J\x85"


def test_no_page_holds_an_override_of_direction_or_an_escape() -> None:
    for page in pages(OVERRIDE):
        assert all(c.isprintable() or c in "\n\t" for c in page)
        assert "wren\N{REPLACEMENT CHARACTER}ten" in page
    for page in pages("न\u200dक"):  # what shapes letters stays
        assert "न\u200dक" in page


def test_the_layout_of_a_long_name_is_linear() -> None:
    """Quadratic, a name of a megabyte took hours."""
    for name in ("a" * 10**6, "\u4e00" * 10**6, "a" + "\u0301" * 10**6):
        ledgers = explain(
            np.ones((1, 2)), np.eye(2), np.zeros(2), [name, "other"], ["wren " + name, "jay"], sources=[name]
        )
        lines = ledgers[0].to_text(width=80).splitlines()
        assert max(map(len, lines)) <= 8 * 81
        assert any("…" in line for line in lines)
