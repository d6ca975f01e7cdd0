"""Every key of every configuration says what it means."""

from __future__ import annotations

import pytest

from sparsecbm.config.keys import documented_keys
from sparsecbm.config.reading import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_documented(kind):
    assert not [found.key for found in documented_keys(KINDS[kind]) if len(found.meaning) < 5]


def test_types_defaults_and_an_estimators_words():
    found = {made.key: made for made in documented_keys(KINDS["train"])}
    assert found["images.on_error"].type == "raise|skip"
    assert found["model.max_active_concepts"].type == "int >= 1 or null"
    assert found["model.learning_rate"].default == "default 0.003"
    assert "AdamW" in found["model.learning_rate"].meaning
    assert found["embeddings.path"].default == "required"
