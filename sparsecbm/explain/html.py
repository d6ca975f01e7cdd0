"""Ledgers as HTML: one Jinja macro, used by notebooks and by the report; everything is escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsecbm._base.errors import printable
from sparsecbm.explain.glossary import plain_words, word_in
from sparsecbm.explain.lines import Account
from sparsecbm.explain.maps.overlay import overlay_uri, said

if TYPE_CHECKING:
    from jinja2 import Environment


class Bar(NamedTuple):
    """A line ready to draw: where its bar starts and how long it is, in percent of the bar column."""

    name: str
    value: float
    left: float
    length: float
    kind: str
    detail: str
    overlay: str | None = None


class Layout(NamedTuple):
    """The bars of one account, where zero lies, in percent of the bar column, and the map of the score."""

    bars: list[Bar]
    zero: float
    account: Account
    overlay: str | None = None

    @property
    def overlays(self) -> list[str | None]:
        """Maps of the bars, and of the score: data URIs, in the order of the table's rows."""
        return [*(bar.overlay for bar in self.bars), self.overlay]


def lay_out(account: Account) -> Layout:
    """Lay out the lines of an account around a common zero; a bias of 0 is left out."""
    lines = [line for line in account.lines if line.kind != "bias" or line.value]
    values = [0.0, *(line.value for line in lines)]
    low, high = -min(values), max(values)
    span = (low + high) or 1.0
    zero = 100.0 * low / span
    bars = [
        Bar(
            name,
            value,
            zero - max(0.0, -value) / span * 100,
            abs(value) / span * 100,
            kind,
            detail if place is None else f"{detail}; {said(place)}",
            None if place is None else overlay_uri(place),
        )
        for name, value, kind, detail, place in lines
    ]
    return Layout(bars, zero, account, None if account.place is None else overlay_uri(account.place))


def short(name: str, limit: int) -> str:
    """A name of at most `limit` characters."""
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"


@cache
def environment() -> Environment:
    """Return the Jinja environment: autoescaping always on, undefined names are errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("sparsecbm.explain"),
        autoescape=True,
        finalize=_readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["signed"] = lambda value: _number(f"{value:+.2f}")
    env.filters["fixed"] = lambda value: _number(f"{value:.2f}")
    env.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f}%"
    env.filters["thousands"] = lambda value: f"{value:,}"
    env.filters["short"] = short
    env.filters["lowest"] = lambda curves: min(0.8, *(int(5 * curve.accuracy.min()) / 5 for curve in curves))
    env.filters["largest"] = lambda array: float(abs(array).max()) or 1.0
    env.globals["glossary"] = plain_words()
    env.globals["word_in"] = word_in
    return env


def _readable(value: Any) -> Any:
    """Text that stays where it stands: no override of direction, no escape; joiners that shape letters are kept."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value, keep="\n\t\u200c\u200d") if plain else value


def _number(text: str) -> str:
    """Typeset a formatted number: a true minus sign, and none before a zero."""
    return "0.00" if text.strip("+-") == "0.00" else text.replace("-", "\N{MINUS SIGN}")


def svg_file(kind: str, drawn: Any, label: str) -> str:
    """Return what the report draws by the macro ``KIND_svg`` as a self-contained SVG document."""
    macros = environment().get_template(f"{kind}.svg.j2").module
    return str(getattr(macros, f"{kind}_svg")(drawn, label, own_style=True)).strip()


def ledger_html(account: Account) -> str:
    """Return a self-contained HTML fragment for notebooks; with maps, the picture stands beside the lines."""
    from sparsecbm.explain.pages.pictures import inline_picture

    picture = None if account.place is None or account.picture is None else inline_picture(account.picture)
    return environment().get_template("fragment.html.j2").render(layout=lay_out(account), picture=picture)
