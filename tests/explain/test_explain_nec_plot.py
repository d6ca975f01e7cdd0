"""The plot of accuracy against NEC."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sparsecbm.explain.nec_plot import plot_nec


def test_curves_levels_and_the_model_are_where_the_numbers_are():
    paths = {"ours": [(5, 0.7), (30, 0.8)], "random $words$": [(5, 0.5), (30, 0.6)]}
    figure = plot_nec(paths, levels={"probe": 0.85}, model=(9.0, 0.75), title="a $b$")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["ours", "random $words$", "The model as saved, NEC 9", "probe"]
    for label, points in paths.items():
        np.testing.assert_array_equal(lines[label].get_xydata(), points)
    np.testing.assert_array_equal(lines["The model as saved, NEC 9"].get_xydata(), [(9.0, 0.75)])
    assert set(lines["probe"].get_ydata()) == {0.85}
    low, high = axes.get_ylim()
    assert low < 0.5 < 0.85 < high
    assert list(axes.get_xticks()) == [5, 30]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert Image.open(buffer).size[0] > 500


def test_a_dense_model_is_a_level_and_small_differences_do_not_fill_the_page():
    figure = plot_nec({"ours": [(5, 0.941), (30, 0.942)]}, model=(1608.0, 0.944))
    (axes,) = figure.axes
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["ours", "The model as saved, NEC 1,608"]
    assert np.ptp(axes.get_ylim()) >= 0.045
    assert axes.get_xlim()[1] < 40
