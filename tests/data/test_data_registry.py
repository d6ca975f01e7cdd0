from __future__ import annotations

from pathlib import Path

import pytest

from sparsecbm import load_images
from sparsecbm._base.errors import InputError
from sparsecbm.data import ImageSource


def test_birds_are_an_image_source() -> None:
    birds = load_images("birds", "val", seed=2, max_images=20)
    assert isinstance(birds, ImageSource)
    assert (len(birds), birds.spec, birds.split) == (20, "birds", "validation")
    assert birds.attributes.shape == (20, len(birds.attribute_names))
    assert birds.fingerprint != load_images("birds", "val", seed=3, max_images=20).fingerprint


def test_habitat_of_the_birds_is_part_of_the_spec() -> None:
    usual, tied, untied = (
        load_images(spec, "test", max_images=400) for spec in ("birds", "birds:tied", "birds:untied")
    )
    assert (usual.habitat, tied.habitat, untied.habitat) == ("species", "tied", "untied")
    assert untied.spec == "birds:untied"
    assert len({usual.fingerprint, tied.fingerprint, untied.fingerprint}) == 3
    from sparsecbm.data.birds import species_attributes

    habitats = slice(-4, None)
    agree = [
        (made.attributes == species_attributes()[made.labels])[:, habitats].all(axis=1).mean()
        for made in (tied, untied)
    ]
    assert agree[0] == 1.0
    assert agree[1] < 0.35  # a quarter by chance


def test_birds_never_give_more_than_they_have() -> None:
    assert len(load_images("birds", "test", max_images=10**6)) == len(load_images("birds", "test"))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("brids", {}, "did you mean 'birds'"),
        ("foldr:x", {}, "did you mean 'folder'"),
        ("folder:", {}, "expected 'folder:PATH'"),
        ("birds:20", {}, "unknown habitat of the painted birds '20'"),
        ("birds:untid", {}, "did you mean 'untied'"),
        ("birds:", {}, "expected 'birds"),
        ("uoft-cs/cifar10", {}, "did you mean 'hub:uoft-cs/cifar10'"),
        (7, {}, "expected a text"),
        ("birds", {"split": "tests"}, "did you mean 'test'"),
        ("birds", {"split": ""}, "split=''"),
        ("birds", {"seed": -1}, "seed=-1"),
        ("birds", {"seed": 1.5}, "seed=1.5"),
        ("birds", {"max_images": 0}, "max_images=0"),
        ("birds", {"max_images": True}, "max_images=True"),
        ("birds", {"on_error": "ignore"}, "on_error='ignore': expected"),
        ("birds", {"label_column": "label"}, "label_column='label' does not apply"),
        ("folder:.", {"image_column": "img"}, "image_column='img' does not apply"),
    ],
)
def test_bad_arguments_give_one_clear_line(spec: object, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_images(spec, **options)
    assert "\n" not in str(error.value)


def test_a_bare_path_is_told_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"for instance 'folder:"):
        load_images(str(tmp_path))
    (tmp_path / "x.parquet").touch()
    with pytest.raises(InputError, match=r"for instance 'parquet:"):
        load_images(str(tmp_path / "x.parquet"))
