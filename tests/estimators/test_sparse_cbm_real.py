"""On real CLIP embeddings: the limit is exact, units keep their names, and accuracy does not slip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsecbm import SparseCBMClassifier, load_embeddings
from sparsecbm.evaluation import name_alignment


def test_at_most_32_of_1608_concepts_on_pets(data_dir: Path) -> None:
    """Seen: accuracy 0.747, alignment 0.92 (`scripts/benchmark_losses.py`)."""
    folder = data_dir / "clip_vitb32"
    with np.load(folder / "concepts_objects.npz", allow_pickle=False) as stored:
        concepts, names = stored["embeddings"].astype(np.float32), stored["names"].tolist()
    train = load_embeddings(folder / "oxford_pets.npz", "train16")
    test = load_embeddings(folder / "oxford_pets.npz", "test")
    model = SparseCBMClassifier(concepts, names, max_active_concepts=32, random_state=0)
    model.fit(train.vectors, train.labels)
    assert int((model.transform(test.vectors) != 0).sum(1).max()) <= 32
    assert model.score(test.vectors, test.labels) >= 0.70
    assert name_alignment(model.units(test.vectors), model.concept_scores(test.vectors)).mean >= 0.8
