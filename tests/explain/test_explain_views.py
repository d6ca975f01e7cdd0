"""Global views: their numbers, and that they draw."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.explain import explain, views
from sparsecbm.explain.sankey import sankey


@pytest.fixture
def ledgers(rng):
    activations = np.maximum(rng.normal(size=(80, 9)), 0)
    activations[:, 1] = activations[:, 0] * 2  # fires with the first
    activations[:, 8] = 0
    weights = rng.normal(size=(5, 9)) * (rng.random((5, 9)) < 0.6)
    names = ["$x_1 & <b>", *(f"c{j}" for j in range(1, 9))]
    return explain(activations, weights, np.zeros(5), names, ["one <i>", "two", "three", "four", "five"])


def test_weight_map_keeps_every_weight_under_its_names(ledgers) -> None:
    made = views.weight_map(ledgers)
    scale = np.sqrt((ledgers.activations**2).mean(axis=0))
    for c, target in enumerate(made.classes):
        for j, concept in enumerate(made.concepts):
            at = ledgers.classes.index(target), ledgers.concepts.index(concept)
            assert made.weights[c, j] == pytest.approx(ledgers.weights[at] * scale[at[1]])
    assert "c8" not in made.concepts
    assert views.weight_map(ledgers, max_concepts=3).weights.shape[1] == 3
    with pytest.raises(InputError, match="nothing to map"):
        views.weight_map(explain([[0.0]], [[1.0]], [0.0], ["a"], ["b"]))


def test_similar_rows_lie_side_by_side() -> None:
    weights = np.array([[1, 0], [0, 1], [1, 0.01], [0, 1.01]], float)
    made = views.weight_map(explain(np.ones((3, 2)), weights, np.zeros(4), ["a", "b"], list("wxyz")))
    order = [made.classes.index(name) for name in "wyxz"]
    assert abs(order[0] - order[1]) == abs(order[2] - order[3]) == 1


def test_usage_and_coactivation_count_images(ledgers) -> None:
    usage = {row.concept: row for row in views.concept_usage(ledgers)}
    active = ledgers.activations != 0
    for j, name in enumerate(ledgers.concepts):
        assert usage[name].share == pytest.approx(active[:, j].mean())
    assert usage["c8"].mean == 0.0
    made = views.coactivation(ledgers)
    assert {made.pairs[0].first, made.pairs[0].second} == {"$x_1 & <b>", "c1"}
    assert made.pairs[0].phi == pytest.approx(1.0)
    assert made.pairs[0].both == active[:, 0].sum()
    assert made.pairs[0].only_first == made.pairs[0].only_second == 0
    assert "c8" not in made.concepts
    assert views.coactivation(ledgers.select([0])).pairs == []


def test_top_images(ledgers) -> None:
    rows = views.top_images(ledgers, "c2", k=3)
    assert [value for _, value in rows] == sorted(ledgers.activations[:, 2])[::-1][:3]
    assert views.top_images(ledgers, "c8") == []
    with pytest.raises(InputError, match="unknown concept 'c22'"):
        views.top_images(ledgers, "c22")


def test_flows_are_shares_and_the_diagram_holds_them(ledgers) -> None:
    made = views.flows(ledgers, concepts_per_class=9)
    for target in {flow.target for flow in made}:
        assert sum(flow.share for flow in made if flow.target == target) == pytest.approx(1.0)
    diagram = sankey(made)
    for node in (*diagram.concepts, *diagram.classes):
        through = [link for link in diagram.links if node.name in (link.concept, link.target)]
        assert sum(link.thickness for link in through) <= node.height + 1.5
        assert 0 <= node.y <= node.y + node.height <= diagram.height
        for link in through:
            start = link.y0 if node.side == "left" else link.y1
            assert node.y - 1e-6 <= start <= start + link.thickness <= node.y + node.height + 1.5
    svg = diagram.to_svg()
    root = ElementTree.fromstring(svg)
    assert sum(element.tag.endswith("path") for element in root.iter()) == len(made)
    assert "one &lt;i&gt;" in svg


def test_views_are_shown_as_the_report_draws_them(ledgers) -> None:
    heat, together = views.weight_map(ledgers), views.coactivation(ledgers)
    for made, cells in ((heat, np.abs(heat.weights)), (together, np.abs(together.phi))):
        root = ElementTree.fromstring(made._repr_svg_())
        drawn = sum(element.tag.endswith("rect") for element in root.iter())
        assert drawn == (cells > 0.004 * cells.max()).sum()
    assert "one &lt;i&gt;" in heat.to_svg()
