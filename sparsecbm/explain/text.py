"""Ledgers as plain text, for the terminal."""

from __future__ import annotations

import unicodedata

from sparsecbm._base.errors import printable
from sparsecbm.explain.lines import Account

_BLOCKS = " ▏▎▍▌▋▊▉█"


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
        while _columns(source) > room - 1:
            source = source[1:]
        source = "…" + source
    return _fit(f"{source}: {verdict}", width).rstrip()


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not unicodedata.combining(c))


def _fit(text: str, width: int) -> str:
    """Pad or shorten to exactly `width` columns."""
    text = printable(text)
    if _columns(text) > width:
        while text and _columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _columns(text))


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[part] if part else "")
