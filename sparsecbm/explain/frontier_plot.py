"""Accuracy and meaning against how few concepts decide: one picture to choose a model from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsecbm._base.extras import require
from sparsecbm.explain.nec_plot import dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LIMIT = 0.15
"""Advantage from which on the colour is full."""


def plot_frontier(
    points: Sequence[Mapping[str, Any]], *, model: Mapping[str, Any] | None = None, title: str = ""
) -> Figure:
    """Draw a frontier: a panel a tie, a line for each number of concepts a class, colours for what names are worth.

    Height is accuracy; a dot's colour is what of it the concepts owe to what they mean, in points beyond as many
    meaningless directions; a hollow dot owes them nothing that can be told from zero.

    Parameters
    ----------
    points : sequence of mapping
        Rows of `Frontier.table`: ``tie``, ``nec``, ``active``, ``accuracy``, ``advantage``, ``low``.
    model : mapping, optional
        ``tie``, ``nec``, ``active`` and ``accuracy`` of a model to mark with a star.
    title : str
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window.

    Examples
    --------
    >>> row = {"tie": "exact", "nec": 5, "active": 8, "accuracy": 0.7, "advantage": 0.09, "low": 0.07}
    >>> len(plot_frontier([row, {**row, "active": 16, "accuracy": 0.75}]).axes)
    2
    """
    require("matplotlib", "plots", "a plot")
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter

    ties = list(dict.fromkeys(row["tie"] for row in points))
    counts, budgets = sorted({row["active"] for row in points}), sorted({row["nec"] for row in points})
    figure = Figure(figsize=(2.2 + 3.1 * max(len(ties), 2), 5.0), facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(ties), sharey=True, squeeze=False)[0]
    colours, norm = colormaps["viridis_r"], Normalize(0.0, _LIMIT)
    for axes, tie in zip(panels, ties):
        ends: list[tuple[float, int]] = []
        for nec in budgets:
            rows = sorted(
                (row for row in points if (row["tie"], row["nec"]) == (tie, nec)), key=lambda row: row["active"]
            )
            if not rows:
                continue
            x, y = [row["active"] for row in rows], [row["accuracy"] for row in rows]
            axes.plot(x, y, color="#b9c2c7", linewidth=1.4, zorder=1)
            for row in rows:
                known = row.get("advantage") is not None
                colour = colours(norm(row["advantage"])) if known else "#5c6770"
                worth = known and row["low"] > 0
                axes.plot(
                    row["active"], row["accuracy"], "o", markersize=8, markeredgewidth=1.6, color=colour, zorder=2,
                    markerfacecolor=colour if worth or not known else "white",
                )  # fmt: skip
            ends.append((y[-1], nec))
        for height, nec in _apart(ends, 0.022 * _span(points)):
            axes.annotate(
                f"{nec}", (counts[-1], height), xytext=(9, 0), textcoords="offset points", va="center", fontsize=9.5
            )
        if model is not None and model["tie"] == tie:
            axes.plot(
                model["active"],
                model["accuracy"],
                "*",
                markersize=17,
                color="#c2562c",
                markeredgecolor="white",
                zorder=3,
            )
        axes.set_xscale("log", base=2)
        axes.set_xlim(counts[0] / 1.25, counts[-1] * (1.7 if len(counts) > 1 else 1.3))
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        dress(axes, tie, fontsize=11, fontweight="bold")
        axes.annotate(
            "a class", (counts[-1], max((height for height, _ in ends), default=1.0)), xytext=(4, 14),
            textcoords="offset points", fontsize=8.5, color="#5c6770",
        )  # fmt: skip
    panels[0].set_ylabel("accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.supxlabel("most concepts active in a picture", fontsize=10)
    if any(row.get("advantage") is not None for row in points):
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), shrink=0.85, pad=0.02, extend="max")
        bar.set_label("points owed to what concepts mean (hollow: none shown)", fontsize=9.5)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    # parse_math off: a folder's name may hold dollar signs and must be shown as it is.
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, parse_math=False)
    return figure


def _span(points: Sequence[Mapping[str, Any]]) -> float:
    heights = [row["accuracy"] for row in points]
    return max(max(heights) - min(heights), 0.05)


def _apart(ends: Sequence[tuple[float, int]], least: float) -> list[tuple[float, int]]:
    """Heights of labels, moved up until none covers the one below."""
    placed: list[tuple[float, int]] = []
    for height, nec in sorted(ends):
        if placed:
            height = max(height, placed[-1][0] + 1.9 * least)
        placed.append((height, nec))
    return placed
