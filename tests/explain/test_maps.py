"""Maps of ledgers: they sum to the lines, follow the ledger through its views, and are held to what happens."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from sparsecbm import SparseCBMClassifier, load_encoder, runs
from sparsecbm._base.errors import InputError
from sparsecbm.data import birds
from sparsecbm.explain.html import ledger_html
from sparsecbm.explain.maps.overlay import laid_over, map_sheet, overlay
from sparsecbm.explain.maps.regions import blanked, region_effect
from sparsecbm.explain.maps.whereabouts import in_words, whereabouts

PARTS = ("crown", "breast", "wings", "bill", "tail", "crest", "legs", "mask")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("bundled", device="cpu")


@pytest.fixture(scope="module")
def model(encoder):
    """A small model of birds that always stand in the habitat of their species."""
    images = birds.BirdImages("train", n_images=160, habitat="tied")
    names, vectors = birds.ATTRIBUTE_NAMES, encoder.encode_texts(list(birds.concept_phrases()))
    made = SparseCBMClassifier(vectors, names, max_active_concepts=6, tie="exact", max_iter=60, random_state=0)
    made.fit(encoder.encode_images(images), images.labels)
    made.metadata_ = {
        "class_names": list(images.class_names),
        "encoder": {"spec": "bundled", "fingerprint": encoder.fingerprint, "precision": "float32"},
        "images": {"spec": "birds:tied", "max_train": 160, "max_validation": 20, "max_test": 40},
    }
    return made


@pytest.fixture(scope="module")
def source():
    return birds.BirdImages("test", n_images=40, habitat="tied")


@pytest.fixture(scope="module")
def pictures(source):
    return [source[i] for i in range(40)]


@pytest.fixture(scope="module")
def ledgers(model, encoder, pictures, source):
    return model.explain_images(pictures, encoder=encoder, maps=True, sources=source.ids)


def test_maps_sum_to_lines_and_lines_to_scores(ledgers):
    views = [*ledgers, *ledgers.pair(0, 3), *ledgers.for_class(2), *ledgers.select([7, 3])]
    for ledger in views:
        for entry in ledger.entries:
            place = ledger.place(entry.concept)
            assert place.grid.shape == (8, 8)
            assert place.placed + place.rest == pytest.approx(entry.contribution, abs=1e-9)
        whole = ledger.place()
        lines = sum(ledger.place(entry.concept).grid for entry in ledger.entries)
        np.testing.assert_allclose(whole.grid, lines, atol=1e-9)
        assert whole.placed + whole.rest == pytest.approx(ledger.score, abs=1e-9)
    *_, placed, rest = ledgers[0].to_text().splitlines()
    whole = ledgers[0].place()
    assert placed.split() == ["in", "the", "picture", f"{whole.placed:+.3f}"]
    assert rest.split() == ["without", "a", "place", f"{whole.rest:+.3f}"]
    account = ledgers[0].lines(2)
    placed = sum(line.place.grid for line in account.lines if line.place is not None)
    np.testing.assert_allclose(placed, account.place.grid, atol=1e-9)


def test_maps_are_of_the_units_and_not_of_their_batch(model, encoder, pictures, ledgers):
    """The grids are the encoder's maps of the units, as the gate scales them, whatever they were mapped with."""
    weight, bias = model.bottleneck_.weight.numpy(), model.bottleneck_.bias.numpy()
    for i in (0, 7):
        found = encoder.map_images([pictures[i]], weight)
        for name, grid in zip(ledgers.maps[i].concepts, ledgers.maps[i].grids):
            j = ledgers.concepts.index(name)
            held = ledgers.activations[i, j] / (found.scores[0, j] + bias[j])
            np.testing.assert_allclose(grid, held * found.maps[0, j], rtol=1e-3, atol=1e-4)
    some = model.explain_images(pictures[:2], encoder=encoder, maps=True, only=["lake", "red crown"])
    assert {name for maps in some.maps for name in maps.concepts} <= {"lake", "red crown"}


def test_a_part_is_seen_where_it_was_painted(ledgers, source):
    hits = []
    for i, maps in enumerate(ledgers.maps):
        for name, mask in source.masks(i).items():
            if name.endswith(PARTS) and name in maps.concepts:
                row, column = divmod(int(maps.of(name)[0].argmax()), 8)
                near = mask[max(0, 8 * row - 8) : 8 * row + 16, max(0, 8 * column - 8) : 8 * column + 16]
                hits.append(near.any())
    assert len(hits) > 100
    assert np.mean(hits) > 0.95


def test_the_background_is_told_from_the_object(model, encoder, ledgers, source, pictures):
    objects = [source.object_mask(i) for i in range(40)]
    without = encoder.encode_images([blanked(p, o) for p, o in zip(pictures, objects)])
    found = whereabouts(ledgers, objects, model.units(encoder.encode_images(pictures)), model.units(without))
    of = {one.concept: one for one in found}
    away = {name for name, one in of.items() if one.background}
    assert away & set(birds.ATTRIBUTES["habitat"])
    assert not any(name.endswith(PARTS) for name in away)
    assert all(name in in_words(found) for name in away)
    for name, one in of.items():
        at = [i for i, maps in enumerate(ledgers.maps) if name in maps.concepts]
        shares = []
        for i in at:  # at the resolution of pixels, against the painter's masks
            positive = np.kron(np.maximum(ledgers.maps[i].of(name)[0], 0), np.ones((8, 8)))
            shares.append((positive * ~objects[i]).sum() / positive.sum())
        assert one.n == len(at)
        assert one.outside == pytest.approx(np.mean(shares), abs=1e-6)
        assert one.rows[0][1] == pytest.approx(max(shares), abs=1e-6)
        np.testing.assert_allclose(one.grid, np.mean([ledgers.maps[i].of(name)[0] for i in at], axis=0))
    assert in_words([]).startswith("No concept")


def test_a_blanked_region_is_held_against_the_map(model, encoder, pictures, ledgers, source):
    def explain(some):
        return model.explain_images(some, encoder=encoder, maps=True)

    region = source.object_mask(0)
    effect = region_effect(explain, pictures[0], region)
    again = model.explain_images([blanked(pictures[0], region)], encoder=encoder).ledger(0, ledgers[0].target)
    assert effect.score.happened == pytest.approx(ledgers[0].score - again.score, abs=1e-5)
    cover = region.reshape(8, 8, 8, 8).mean((1, 3))
    assert effect.score.said == pytest.approx((ledgers[0].place().grid * cover).sum(), abs=1e-5)
    assert effect.score.error == pytest.approx(effect.score.happened - effect.score.said)
    assert {line.name for line in effect.lines} == set(ledgers[0].maps.concepts)
    assert "the map said" in effect.to_text()
    kept = region_effect(explain, pictures[0], ~region)
    assert abs(kept.score.happened) < abs(effect.score.happened)
    with pytest.raises(InputError, match="no maps"):
        region_effect(lambda some: model.explain_images(some, encoder=encoder), pictures[0], region)
    with pytest.raises(InputError, match="rows, columns"):
        blanked(pictures[0], [True])
    assert np.asarray(blanked(pictures[0], np.ones((2, 2)))).std((0, 1)).max() == 0


def test_pictures_of_maps(ledgers, tmp_path):
    account = ledgers[0].lines(3)
    place = account.place
    cells = np.asarray(overlay(place))
    assert cells.shape == (8, 8, 4)
    strongest = np.unravel_index(np.abs(place.grid).argmax(), (8, 8))
    assert cells[..., 3].max() == cells[strongest][3]
    over = np.asarray(laid_over(account.picture, place, 128)).astype(int)
    bare = np.asarray(laid_over(account.picture, place._replace(grid=0 * place.grid), 128)).astype(int)
    changed = np.abs(over - bare).sum(2).reshape(8, 16, 8, 16).mean((1, 3))
    assert np.abs(np.subtract(np.unravel_index(changed.argmax(), (8, 8)), strongest)).max() <= 1
    sheet = map_sheet(account)
    assert sheet.width > 4 * 192
    axes = ledgers[0].plot(k=3, maps=True)
    assert len(axes.figure.axes) == 1 + len([line for line in account.lines if line.place]) + 1
    with pytest.raises(InputError, match="no maps"):
        ledgers.mean(0).plot(maps=True)


def test_the_page_shows_a_map_for_every_line(ledgers):
    page = ledger_html(ledgers[0].lines(3))
    rows = re.findall(r'<tr class="[^"]*\bm(\d+)"', page)
    overlays = re.findall(r'<img class="over m(\d+)" src="data:image/png;base64,', page)
    assert set(rows) == set(overlays)
    assert len(overlays) == 5  # three concepts, the others, the score
    assert "without a place" in page
    assert "<script" not in page
    assert "http" not in page
    assert "over m" not in ledger_html(ledgers.mean(0).lines(3))


def test_command_and_report_with_maps(model, pictures, tmp_path):
    model.save(tmp_path / "run" / "model")
    pictures[0].save(tmp_path / "bird.png")
    result = runs.explain_run(tmp_path / "run", [tmp_path / "bird.png"], maps=tmp_path / "maps", top=3)
    assert [path.name for path in result.drawn] == ["000-bird.png"]
    with Image.open(result.drawn[0]) as sheet:
        assert sheet.width > 4 * 192
    for line in result.to_json()["explanations"][0]["contributions"]:
        assert np.sum(line["grid"]) + line["rest"] == pytest.approx(line["contribution"], abs=1e-6)
    report = runs.report_run(tmp_path / "run", training=False, examples=2)
    page = report.path.read_text(encoding="utf-8")
    assert "The model looks at the background for" in page
    assert page.count('class="over m') >= 8


def test_scores_without_an_encoder_have_no_maps(rng, encoder, pictures):
    model = SparseCBMClassifier(max_iter=5, random_state=0).fit(rng.normal(size=(20, 4)), np.arange(20) % 2)
    with pytest.raises(InputError, match="no encoder"):
        model.explain_images(pictures[:1], encoder=encoder, maps=True)
