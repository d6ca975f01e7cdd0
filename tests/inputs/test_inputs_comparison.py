"""What concepts are compared with is named once and loaded when it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecbm import ConceptSet
from sparsecbm._base.errors import InputError
from sparsecbm.inputs.comparison import Comparison


def test_without_an_encoder_nothing_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("jay\nfinch\n")
    made = Comparison(path)
    assert made.class_names == ("jay", "finch")
    assert made.vectors(ConceptSet(["red crown"])) == {}
    with pytest.raises(InputError, match="--images needs --encoder"):
        Comparison(images="birds")
    with pytest.raises(InputError, match="there is no file"):
        Comparison(tmp_path / "none.txt")


def test_with_one_concepts_classes_and_pictures_are_embedded() -> None:
    made = Comparison("birds", "bundled", "birds", 5, "photo")
    found = made.vectors(ConceptSet(["red crown", "long tail"]))
    d = made.encoder.embed_dim
    shapes = {name: vectors.shape for name, vectors in found.items()}
    assert shapes == {"concept_embeddings": (2, d), "class_embeddings": (20, d), "image_embeddings": (5, d)}
    assert made.pictures is made.pictures
