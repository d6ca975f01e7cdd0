"""Ledgers as plain text, for the terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

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
    place = account.place
    parts = [] if place is None else [("  in the picture", place.placed), ("  without a place", place.rest)]
    names = [label, *(name for name, _ in (*rows, *parts))]
    name_width = max(8, min(max(map(cell_len, names)), width - bar_width - number_width - 6))
    scale = max((abs(value) for _, value in rows), default=0.0) or 1.0
    for (name, value), number in zip(rows, numbers):
        bar = _bar(abs(value) / scale, bar_width)
        lines.append(f"  {_fit(name, name_width)}  {number:>{number_width}}  {bar}".rstrip())
    lines.append(f"  {_fit(label, name_width)}  {total:>{number_width}}")
    lines += [f"  {_fit(name, name_width)}  {value:>+{number_width}.3f}" for name, value in parts]
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
    source, room = printable(account.source), max(12, width - cell_len(verdict) - 2)
    if cell_len(source) > room:
        source = "…" + set_cell_size(source[::-1], room - 1)[::-1]
    return _fit(f"{source}: {verdict}", width).rstrip()


def _fit(text: str, width: int) -> str:
    """Pad or shorten to exactly `width` columns; of marks that take none, as many as letters could carry."""
    text = printable(text)
    if cell_len(text) > width or len(text) > _MARKS * width:
        text = set_cell_size(text[: _MARKS * width], width - 1).rstrip() + "…"
    return set_cell_size(text, width)


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[part] if part else "")
