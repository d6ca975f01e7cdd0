"""Accuracy against concepts per class, with the controls in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsecbm._base.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f7a72", "#c2562c", "#8a6d3b", "#5b6ca8")
"""The model's concepts first, then its controls; apart in lightness too."""

_LEVEL = "#5c6770"


def plot_nec(
    paths: Mapping[str, Sequence[tuple[float, float]]],
    *,
    levels: Mapping[str, float] | None = None,
    model: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw accuracy against NEC: a curve for each concept bank, a level line for what uses no concepts.

    Parameters
    ----------
    paths : mapping of str to sequence of (nec, accuracy)
        Curves by label, the model's own concepts first; accuracies in [0, 1].
    levels : mapping of str to float, optional
        Accuracies of classifiers without concepts.
    model : tuple of (nec, accuracy), optional
        The model as it was saved: a star, or a level line where its NEC lies far outside.
    title : str
        Heading.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window; ``figure.savefig(path)`` writes it.

    Examples
    --------
    >>> figure = plot_nec({"concepts": [(5, 0.7), (30, 0.8)]}, levels={"linear probe": 0.85})
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['concepts', 'linear probe']
    """
    require("matplotlib", "plots", "a plot")
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.6, 4.6), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    markers = "osD^"
    for i, (label, points) in enumerate(paths.items()):
        nec, accuracy = zip(*points)
        axes.plot(
            nec,
            accuracy,
            color=COLOURS[i % len(COLOURS)],
            marker=markers[i % len(markers)],
            markersize=6 if i == 0 else 5,
            linewidth=2.4 if i == 0 else 1.6,
            label=label,
            zorder=3 if i == 0 else 2,
        )
    ticks = sorted({nec for points in paths.values() for nec, _ in points})
    largest = max(ticks, default=30)
    styles = [(0, (6, 2)), (0, (2, 2)), (0, (1, 3))]
    drawn = dict(levels or {})
    if model is not None and model[0] > 1.1 * largest:
        drawn = {f"The model as saved, NEC {model[0]:,.0f}": model[1], **drawn}
    elif model is not None:
        axes.plot(
            *model, linestyle="", marker="*", markersize=16, color=COLOURS[0], markeredgecolor="white", zorder=4,
            label=f"The model as saved, NEC {model[0]:.3g}",
        )  # fmt: skip
    for style, (label, level) in zip(styles * len(drawn), drawn.items()):
        axes.axhline(level, color=_LEVEL, linewidth=1.3, linestyle=style, label=label, zorder=1)
    axes.set_xlabel("concepts per class (NEC, on average)")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, largest * 1.04)
    axes.set_xticks(ticks)
    values = [a for points in paths.values() for _, a in points] + list(drawn.values())
    if model is not None:
        values.append(model[1])
    low, high = min(values), max(values)
    # A difference of a tenth of a point must not fill the page: at least five points are shown.
    margin = max(0.06 * (high - low), (0.05 - (high - low)) / 2)
    axes.set_ylim(max(0.0, low - margin), min(1.005, high + margin))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.08 else 1))
    dress(axes, title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9.5)
    return figure


def dress(axes: Axes, title: str, **font: Any) -> None:
    """Rules across, no frame, a heading on the left; what stands in it is shown as it is, dollar signs too."""
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", parse_math=False, **font)
