"""Ledgers as plain text, for the terminal."""

from __future__ import annotations

import itertools
import unicodedata

from sparsecbm._base.errors import printable
from sparsecbm.explain.lines import Account

_BLOCKS = " ▏▎▍▌▋▊▉█"
_MARKS = 8  # that a column may carry


def ledger_text(account: Account, width: int = 80) -> str:
    """Return the ledger in lines of at most `width` columns; see `Ledger.to_text`."""
    width = max(int(width), 40)
    lines = [_head(account, width)]
    *concepts, bias = account.lines
    rows = [(line.name, line.value) for line in (bias, *concepts)]
    numbers = [f"{value:+.3f}" for _, value in rows]
    total = f"{account.score:+.3f}"
    number_width = max(map(len, [*numbers, total]))
    bar_width = max(8, width // 4)
    label = "= score" if account.against is None else "= score difference"
    names = [label, *(name for name, _ in rows)]
    name_width = max(8, min(max(map(_columns, names)), width - bar_width - number_width - 6))
    scale = max((abs(value) for _, value in rows), default=0.0) or 1.0
    for (name, value), number in zip(rows, numbers):
        bar = _bar(abs(value) / scale, bar_width)
        lines.append(f"  {_fit(name, name_width)}  {number:>{number_width}}  {bar}".rstrip())
    lines.append(f"  {_fit(label, name_width)}  {total:>{number_width}}")
    return "\n".join(lines)


def _head(account: Account, width: int) -> str:
    parts = [account.target]
    if account.against is not None:
        parts.append(f" rather than {account.against}")
    if account.probability is not None:
        parts.append(f" ({account.probability:.1%})")
    if account.truth is not None and account.truth != account.target:
        parts.append(f", truly {account.truth}")
    verdict = printable("".join(parts))
    if not account.source:
        return _fit(verdict, width).rstrip()
    # A long file name gives way to the verdict, and keeps its end, which tells files apart.
    source, room = printable(account.source), max(12, width - _columns(verdict) - 2)
    if _columns(source) > room:
        source = "…" + _cut(source[::-1], room - 1)[::-1]
    return _fit(f"{source}: {verdict}", width).rstrip()


def _columns(text: str) -> int:
    return sum(map(_width, text))


def _width(character: str) -> int:
    return 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """The longest beginning of at most `width` columns; of marks that take none, as many as letters could carry."""
    for end, columns in enumerate(itertools.accumulate(map(_width, text))):
        if columns > width or end >= _MARKS * width:
            return text[:end]
    return text


def _fit(text: str, width: int) -> str:
    """Pad or shorten to exactly `width` columns."""
    text = printable(text)
    if _columns(text) > width or len(text) > _MARKS * width:
        text = _cut(text, width - 1) + "…"
    return text + " " * (width - _columns(text))


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[part] if part else "")
