"""All methods in one picture: what each reaches, and what as many meaningless directions reach in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsecbm.explain.nec_plot import COLOURS, dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 3
"""Budgets drawn: the first, the middle and the last."""


def best_of(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Methods that no other beats in accuracy and in advantage both (rows of one budget).

    Examples
    --------
    >>> rows = [{"method": m, "accuracy": a, "advantage": b} for m, a, b in (("x", 0.8, 0.0), ("y", 0.7, 0.1))]
    >>> sorted(best_of([*rows, {"method": "z", "accuracy": 0.7, "advantage": 0.05}]))
    ['x', 'y']
    """
    worth = {row["method"]: (row["accuracy"], row["advantage"] or 0.0) for row in rows}
    return {
        name
        for name, (a, b) in worth.items()
        if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in worth.values())
    }


def plot_methods(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw a panel a budget, a line a method: a dot where it is, a ring where meaningless directions are.

    A dot is full where no other method beats it in accuracy and in advantage both (the frontier), else pale. Upright
    lines are what needs no budget of concepts.

    Parameters
    ----------
    rows : sequence of mapping
        ``method``, ``nec`` (None: no budget), ``accuracy``, ``meaningless`` and ``advantage`` (or None).
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    asked = sorted({row["nec"] for row in rows if row["nec"] is not None})
    shown = asked if len(asked) <= _MOST else [asked[0], asked[len(asked) // 2], asked[-1]]
    panels = [[row for row in rows if row["nec"] == k] for k in shown]
    order = [row["method"] for row in sorted(panels[0], key=lambda row: row["accuracy"])] if panels else []
    levels = [row for row in rows if row["nec"] is None]
    size = (2.4 + 3.6 * max(len(panels), 1), 1.9 + 0.33 * max(len(order), 3))
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    every = figure.subplots(1, max(len(panels), 1), sharey=True, sharex=True, squeeze=False)[0]
    for axes, found, k in zip(every, panels, shown):
        front = best_of(found)
        for row in found:
            at = order.index(row["method"])
            ends = [row["accuracy"]]
            if row["meaningless"] is not None:
                ends.append(row["meaningless"])
                axes.plot(ends, [at, at], color="#b9c2c7", linewidth=2, zorder=1)
                axes.plot(ends[1], at, "o", markersize=7, markerfacecolor="white", color="#5c6770", zorder=2)
            shade = 1.0 if row["method"] in front else 0.4
            axes.plot(ends[0], at, "o", markersize=9, color=COLOURS[0], alpha=shade, zorder=3)
            axes.annotate(
                f"{100 * row['accuracy']:.1f}", (max(ends), at), xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=8.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        for place, row in enumerate(levels):
            axes.axvline(row["accuracy"], color=COLOURS[1], linewidth=1, linestyle=(0, (2 + 2 * place, 2)), zorder=0)
        dress(axes, f"{k} concepts a class", fontsize=11)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color="#e3e6e8", linewidth=0.8)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(x=0.13)
    every[0].set_yticks(range(len(order)), order)
    lines = ", ".join(f"{row['method']} {100 * row['accuracy']:.1f}" for row in levels)
    legend = (
        "dot: accuracy (full: unbeaten in accuracy and advantage both)\nring: as many meaningless directions instead"
    )
    figure.supxlabel(legend + (f"\nupright lines: {lines}" if lines else ""), fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, parse_math=False)
    return figure
