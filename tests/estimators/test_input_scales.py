"""Embeddings of any length and type mean their directions, in every argument that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sparsecbm import ConceptMatrixSearch, LinearProbe, SparseCBMClassifier, SparseDecomposer
from sparsecbm.estimators import ZeroShotClassifier

RNG = np.random.default_rng(0)
Y = np.arange(80) % 4
CLASSES, CONCEPTS = RNG.normal(size=(4, 16)), RNG.normal(size=(10, 16))
IMAGES = CLASSES[Y] + 0.1 * RNG.normal(size=(80, 16))

Predict = Callable[[Any, Any, Any, Any], np.ndarray]


def _cbm(images: Any, concepts: Any, classes: Any, asked: Any) -> np.ndarray:
    model = SparseCBMClassifier(concepts, max_active_concepts=4, max_iter=20, random_state=0, verbose=False)
    return model.fit(images, Y).predict(asked)


def _decomposer(images: Any, concepts: Any, classes: Any, asked: Any) -> np.ndarray:
    return SparseDecomposer(concepts, verbose=False).fit(images).class_scores(asked, classes).argmax(axis=1)


MODELS: dict[str, Predict] = {
    "cbm": _cbm,
    "decomposer": _decomposer,
    "zero_shot": lambda images, concepts, classes, asked: ZeroShotClassifier().fit(classes).predict(asked),
    "shots": lambda images, concepts, classes, asked: (
        ConceptMatrixSearch(concepts).fit(classes, shots=(images, Y)).predict(asked)
    ),
    **{
        f"search_{rule}": lambda images, concepts, classes, asked, rule=rule: (
            ConceptMatrixSearch(concepts, similarity=rule, reference_embeddings=images).fit(classes).predict(asked)
        )
        for rule in ("whitened", "cosine", "sparse", "max", "cubed")
    },
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [1e-200, 1e-30, 12.0, 1e19, 1e200])
def test_each_argument_may_have_any_length(name, scale):
    given = {"images": IMAGES, "concepts": CONCEPTS, "classes": CLASSES, "asked": IMAGES}
    expected = MODELS[name](**given)
    for argument, values in given.items():
        # Each row of a length of its own: a mean of rows that were not brought to length one would be another.
        lengths = np.linspace(1, 9, len(values))[:, None]
        found = MODELS[name](**given | {argument: values * lengths * scale})
        assert (found == expected).mean() > 0.98, (argument, (found == expected).mean())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_narrow_types_and_tensors(name, kind):
    given = {"images": IMAGES, "concepts": CONCEPTS, "classes": CLASSES, "asked": IMAGES}
    narrow = {key: torch.tensor(values).to(getattr(torch, kind)) for key, values in given.items()}
    arrays = {key: values.float().numpy() for key, values in narrow.items()}
    assert (MODELS[name](**narrow) == MODELS[name](**arrays)).mean() > 0.98


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_sizes_that_cannot_be_calculated_with_are_one_line(scale):
    with pytest.raises(ValueError, match="X"):
        LinearProbe().fit(IMAGES * scale, Y)
    with pytest.raises(ValueError, match="X"):
        SparseCBMClassifier(max_iter=5, verbose=False).fit(IMAGES * scale, Y)
