"""The painted birds: what is said to be true of a picture is what is painted, and the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecbm._base.errors import InputError
from sparsecbm.data import birds
from sparsecbm.data.base import ImageSource

SPLITS = ("train", "validation", "test")
LOOKS = st.builds(
    lambda seed: birds.look_to_attributes(birds.random_look(np.random.default_rng(seed))), st.integers(0, 2**32 - 1)
)


def digest(image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def painted(look: dict[str, str | None], seed: int = 0, size: int = 64) -> np.ndarray:
    picture = birds.paint(birds.look_to_attributes(look), np.random.default_rng(seed), size)
    return np.asarray(picture, dtype=np.int16)


def test_is_an_image_source_with_attribute_truth():
    source = birds.BirdImages("test", n_images=45)
    assert isinstance(source, ImageSource)
    assert len(source) == 45 == len(source.ids) == len(set(source.ids))
    assert source.labels.dtype == np.int64
    assert source.class_names == tuple(birds.SPECIES)
    assert len(source.class_names) == 20
    assert source.attributes.shape == (45, len(source.attribute_names))
    assert source.attributes.dtype == bool
    assert source.skipped == []
    assert source[0].mode == "RGB"
    assert source[0].size == (64, 64)
    assert source[-1].tobytes() == source[44].tobytes()
    with pytest.raises(IndexError):
        source[45]


def test_names_phrases_and_columns_are_parallel_and_unique():
    names, phrases = birds.ATTRIBUTE_NAMES, birds.concept_phrases()
    assert len(names) == len(phrases) == len(set(names)) == len(set(phrases)) == 31
    for name, phrase in zip(names, phrases):
        assert name.split()[0] in phrase


def test_same_seed_same_pixels_in_another_process():
    code = (
        "import hashlib; from sparsecbm.data.birds import BirdImages\n"
        "for split in ('train', 'validation', 'test'):\n"
        "    print(hashlib.sha256(BirdImages(split, seed=3)[17].tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert there == [digest(birds.BirdImages(split, seed=3)[17]) for split in SPLITS]


def test_pictures_can_be_painted_alone_and_in_any_order():
    long, short = birds.BirdImages("train"), birds.BirdImages("train", n_images=9)
    backwards = [digest(short[i]) for i in reversed(range(9))]
    assert backwards[::-1] == [digest(long[i]) for i in range(9)]
    np.testing.assert_array_equal(long.attributes[:9], short.attributes)


def test_splits_and_seeds_never_overlap():
    seen: dict[str, tuple] = {}
    for seed, split in itertools.product((0, 1), SPLITS):
        source = birds.BirdImages(split, seed=seed, n_images=60)
        for i in range(60):
            assert seen.setdefault(digest(source[i]), (seed, split, i)) == (seed, split, i)
    # A picture repeated under another noise would escape the digest: the streams themselves must differ.
    streams = {
        tuple(birds.picture_rng(seed, split, i).integers(0, 2**63, 4))
        for seed, split, i in itertools.product((0, 1, 2), (*SPLITS, "pretrain"), range(100))
    }
    assert len(streams) == 3 * 4 * 100


def test_prefixes_are_balanced():
    counts = np.bincount(birds.BirdImages("validation").labels)
    assert counts.tolist() == [25] * 20


def test_species_differ_in_at_least_five_groups():
    pairs = itertools.combinations(birds.SPECIES.values(), 2)
    bird_groups = [group for group in birds.GROUPS if group != "habitat"]
    assert min(sum(a[group] != b[group] for group in bird_groups) for a, b in pairs) >= 5
    assert (birds.species_attributes().sum(axis=0) >= 1).all(), "an attribute that no species has"


def test_individuals_depart_from_their_species_in_one_bird_group_at_most():
    source = birds.BirdImages("train", n_images=4000)
    departures = []
    for label, row in zip(source.labels, source.attributes):
        look, signature = birds.attributes_to_look(row), birds.SPECIES[source.class_names[label]]
        differ = [group for group in birds.GROUPS if group != "habitat" and look[group] != signature[group]]
        assert len(differ) <= 1
        assert set(differ) <= set(birds.VARYING_GROUPS)
        departures.append(len(differ))
    assert 0.05 < np.mean(departures) < 0.2


def test_habitat_is_tied_or_not():
    home = np.array([birds.look_to_attributes(look) for look in birds.SPECIES.values()])[:, -4:]

    def share(habitat: str) -> float:
        source = birds.BirdImages("train", n_images=2000, habitat=habitat)
        assert (source.attributes[:, -4:].sum(axis=1) == 1).all()
        return float((source.attributes[:, -4:] == home[source.labels]).all(axis=1).mean())

    assert share("tied") == 1.0
    # 7/10 + 3/10 x 1/4, and 1/4; five standard errors of 2000 draws.
    assert share("species") == pytest.approx(0.775, abs=0.047)
    assert share("untied") == pytest.approx(0.25, abs=0.049)


def test_attributes_are_those_that_are_painted():
    source = birds.BirdImages("test", seed=5, n_images=30)
    for i in (0, 7, 29):
        rng = birds.picture_rng(5, "test", i)
        birds.species_look(source.class_names[source.labels[i]], rng)
        assert birds.paint(source.attributes[i], rng).tobytes() == source[i].tobytes()


@settings(max_examples=30)
@given(LOOKS)
def test_look_and_attributes_are_inverse(attributes):
    np.testing.assert_array_equal(birds.look_to_attributes(birds.attributes_to_look(attributes)), attributes)


PLAIN = dict.fromkeys(birds.GROUPS)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("group", [g for g in birds.GROUPS if g not in ("habitat", "size")])
def test_an_attribute_changes_its_own_region_alone(group, seed):
    """The same generator: only the part that the attribute names may change, and it does."""
    for option in birds._GROUPS[group]:
        changed = np.abs(painted(PLAIN | {group: option}, seed) - painted(PLAIN, seed)).sum(axis=2) > 12
        assert 3 <= changed.sum() <= 0.2 * 64 * 64, (option, changed.sum())


@pytest.mark.parametrize("group", ["crown", "breast", "wings", "legs"])
def test_a_colour_attribute_paints_that_colour(group):
    """What differs from a plain bird is nearest to the named colour among the colours of its group."""
    from sparsecbm.data._bird_painter import COLOURS, LEG_COLOURS

    palette = LEG_COLOURS if group == "legs" else COLOURS
    options = list(birds._GROUPS[group])
    hits = total = 0
    for option, seed in itertools.product(options, range(12)):
        look = PLAIN | {"size": "large"}
        with_it, without = painted(look | {group: option}, seed), painted(look, seed)
        region = np.abs(with_it - without).sum(axis=2) > 30
        typical = np.median(with_it[region], axis=0)
        # Light differs from picture to picture: compare up to brightness and in brightness.
        distance = [np.abs(typical - np.array(palette[other])).sum() for other in options]
        hits, total = hits + (options[int(np.argmin(distance))] == option), total + 1
    assert hits / total >= 0.9, f"{hits} of {total}"


def test_size_attribute_sets_the_size_of_the_bird():
    areas = {}
    for size in ("small", None, "large"):
        look = PLAIN | {"size": size, "breast": "yellow"}
        areas[size] = [
            (np.abs(painted(look, s) - painted(look | {"breast": "white"}, s)).sum(axis=2) > 20).sum()
            for s in range(20)
        ]
    assert max(areas["small"]) < np.median(areas[None]) < min(areas["large"])


def test_habitat_changes_the_scene():
    scenes = [painted(PLAIN | {"habitat": habitat}, 1) for habitat in ("lake", "forest", "desert", "snow", None)]
    for a, b in itertools.combinations(scenes, 2):
        assert np.abs(a - b).mean() > 5


def test_other_sizes_show_the_same_picture():
    look = dict(next(iter(birds.SPECIES.values())))
    attributes = birds.look_to_attributes(look)
    large = birds.paint(attributes, np.random.default_rng(0), 128)
    assert large.size == (128, 128)
    small = np.asarray(birds.paint(attributes, np.random.default_rng(0), 64), dtype=float)
    assert np.corrcoef(small.ravel(), np.asarray(large.reduce(2), dtype=float).ravel())[0, 1] > 0.95


def test_fingerprint_follows_everything_that_decides_the_pixels():
    variants = [
        {}, {"seed": 1}, {"n_images": 10}, {"size": 32}, {"habitat": "tied"}, {"split": "validation"},
    ]  # fmt: skip
    prints = [birds.BirdImages(**variant).fingerprint for variant in variants]
    assert len(set(prints)) == len(variants)
    assert prints[0] == birds.BirdImages("train", seed=0, n_images=birds.SPLIT_SIZES["train"]).fingerprint
    assert all(len(p) == 64 for p in prints)


def test_fingerprint_ids_and_labels_paint_nothing(monkeypatch):
    monkeypatch.setattr(birds._bird_painter, "paint_look", lambda *a: pytest.fail("painted a picture"))
    source = birds.BirdImages("train")
    assert source.fingerprint
    assert source.ids[0]
    assert source.attributes.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valdation"}, "did you mean 'validation'"),
        ({"habitat": "tyed"}, "did you mean 'tied'"),
        ({"seed": -1}, "seed=-1"),
        ({"n_images": 0}, "n_images=0"),
        ({"size": 4}, "size=4"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        birds.BirdImages(**arguments)
    assert "\n" not in str(error.value)


def test_paint_refuses_impossible_attributes():
    two_crowns = np.zeros(31, dtype=bool)
    two_crowns[:2] = True
    with pytest.raises(InputError, match="'red' and 'yellow' for 'crown'"):
        birds.paint(two_crowns, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"\(30,\)"):
        birds.paint(np.zeros(30, dtype=bool), np.random.default_rng(0))


def test_contact_sheet_holds_every_picture():
    images = [birds.BirdImages("test")[i] for i in range(7)]
    sheet = np.asarray(birds.contact_sheet(images, columns=3, zoom=1, gap=2))
    assert sheet.shape == (3 * 66 + 2, 3 * 66 + 2, 3)
    np.testing.assert_array_equal(sheet[2 + 2 * 66 : 2 + 2 * 66 + 64, 2:66], np.asarray(images[6]))
    with pytest.raises(InputError, match="at least one"):
        birds.contact_sheet([])


def test_masks_are_the_pixels_that_an_attribute_decides():
    """The painter paints the same scene in another colour: what differs is what the mask shows, but for edges."""
    from scipy.ndimage import binary_dilation

    source = birds.BirdImages("test", n_images=40)
    compared = 0
    for i, attributes in enumerate(source.attributes):
        masks, look = source.masks(i), birds.attributes_to_look(attributes)
        assert set(masks) <= {name for name, true in zip(birds.ATTRIBUTE_NAMES, attributes) if true}
        assert all(mask.shape == (64, 64) and mask.dtype == bool and mask.any() for mask in masks.values())
        shown = [masks[name] for group in ("size", "habitat") for name in birds.ATTRIBUTES[group] if name in masks]
        assert len(shown) < 2 or (shown[0] ^ shown[1]).mean() > 0.95  # bird and scene: a pixel of an edge is of both
        for group in ("crown", "breast", "wings", "legs"):
            other = next(option for option in birds._GROUPS[group] if option != look[group])
            _, rng = source._draw(i)
            changed = birds.paint(birds.look_to_attributes({**look, group: other}), rng)
            differs = (np.asarray(changed) != np.asarray(source[i])).any(2)
            mask = masks.get(birds._GROUPS[group][look[group]][0]) if look[group] else None
            if mask is not None:
                assert (differs & mask).sum() > 0.75 * mask.sum()
                assert (differs & ~binary_dilation(mask, np.ones((3, 3)))).sum() <= 2
                compared += 1
    assert compared > 100
