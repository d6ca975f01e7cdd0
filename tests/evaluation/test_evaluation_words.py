"""Words of the random-word control."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.evaluation import WORDS, random_words


def test_the_list_names_nothing_that_the_birds_show():
    from sparsecbm.data.birds import ATTRIBUTE_NAMES, SPECIES

    assert len(set(WORDS)) == len(WORDS) > 500
    assert all(word.isalpha() and word.islower() for word in WORDS)
    shown = {word for name in (*ATTRIBUTE_NAMES, *SPECIES) for word in name.lower().split()}
    assert not shown & set(WORDS)


@pytest.mark.parametrize("n", [1, 40, len(WORDS), len(WORDS) + 1, 3000])
def test_as_many_different_words_as_asked(n):
    words = random_words(n, np.random.default_rng(3))
    assert len(words) == len(set(words)) == n
    assert words == random_words(n, np.random.default_rng(3))
    assert n == 1 or words != random_words(n, np.random.default_rng(4))
    # Pairs come only once the single words are used up, and hold two different words.
    pairs = [word.split() for word in words if " " in word]
    assert len(pairs) == max(0, n - len(WORDS))
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in pairs)


def test_words_of_the_names_on_trial_are_left_out():
    excluded = ("a Justice-of-the-peace", "MEMORY_card")
    drawn = {part for word in random_words(900, np.random.default_rng(0), exclude=excluded) for part in word.split()}
    assert "envy" in drawn
    assert not drawn & {"justice", "memory"}
    with pytest.raises(InputError, match="1 different words: expected at least 2"):
        random_words(2, np.random.default_rng(0), ["ant", "bee"], exclude=["Bee keeper"])
