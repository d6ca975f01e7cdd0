from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecbm import ConceptSet
from sparsecbm._base.errors import InputError

OFF = {"max_length": None, "max_class_similarity": None, "max_mutual_similarity": None, "min_activation": None}


def unit(*degrees: float) -> np.ndarray:
    """Points on the unit circle: the cosine of two is that of the angle between them."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_length_counts_characters_of_the_name() -> None:
    concepts = ConceptSet(["x" * 30, "y" * 31, "\u00e9" * 30])
    kept, report = concepts.filter(**OFF | {"max_length": 30})
    assert kept.names == ("x" * 30, "\u00e9" * 30)
    assert report.kept == (0, 2)
    assert [(drop.filter, drop.value, drop.reason) for drop in report.dropped] == [
        ("length", 31, "31 characters, more than 30")
    ]


def test_class_names_go_whatever_article_or_case() -> None:
    concepts = ConceptSet(["Cat", "the dog", "an owl", "a bell pepper", "a catfish", "owl eyes"])
    kept, report = concepts.filter(
        class_names=["cat", "dog", "owl", "bell_pepper"], **OFF | {"max_class_similarity": 0.85}
    )
    assert kept.names == ("a catfish", "owl eyes")
    assert "it is the class name 'dog'" in report.lines[2]


def test_similarity_to_class_names() -> None:
    concepts = ConceptSet(["near", "far", "edge"])
    edge = np.degrees(np.arccos(0.85))
    kept, report = concepts.filter(
        class_names=["k0", "k1"],
        concept_embeddings=3 * unit(5, 50, edge + 1e-3),  # lengths do not matter
        class_embeddings=unit(90, 0),
        **OFF | {"max_class_similarity": 0.85},
    )
    assert kept.names == ("far", "edge")
    (drop,) = report.dropped
    assert (drop.index, drop.filter) == (0, "class")
    assert drop.value == pytest.approx(np.cos(np.radians(5)), abs=1e-6)
    assert "'k1'" in drop.reason


def test_of_two_similar_concepts_the_more_general_stays() -> None:
    concepts = ConceptSet(["outer", "inner", "other"])
    kept, report = concepts.filter(concept_embeddings=unit(0, 20, 60), **OFF | {"max_mutual_similarity": 0.9})
    assert kept.names == ("inner", "other")  # inner is nearer to the rest on the whole
    assert "to concept 'inner'" in report.dropped[0].reason


@given(st.integers(1, 40), st.floats(0.2, 0.95), st.integers(0, 999))
@settings(max_examples=50)
def test_mutual_filter_leaves_no_pair_and_no_orphan(m: int, limit: float, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(m, 3)).astype(np.float32)
    concepts = ConceptSet([f"c{j}" for j in range(m)])
    _, report = concepts.filter(concept_embeddings=vectors, **OFF | {"max_mutual_similarity": limit})
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -1)
    kept = list(report.kept)
    assert (cosine[np.ix_(kept, kept)] <= limit + 1e-6).all()
    for drop in report.dropped:  # each one that went had a reason
        assert cosine[drop.index].max() > limit - 1e-6
    assert sorted([*kept, *(drop.index for drop in report.dropped)]) == list(range(m))


def test_activation_is_the_mean_over_the_best_images() -> None:
    rng = np.random.default_rng(0)
    images, text = rng.normal(size=(3000, 8)), rng.normal(size=(20, 8))
    cosine = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (
        text / np.linalg.norm(text, axis=1, keepdims=True)
    ).T
    expected = np.sort(cosine, axis=0)[-5:].mean(0)
    limit = float(np.sort(expected)[7:9].mean())
    concepts = ConceptSet([f"c{j}" for j in range(20)])
    _, report = concepts.filter(concept_embeddings=text, image_embeddings=images, **OFF | {"min_activation": limit})
    assert sorted(drop.index for drop in report.dropped) == np.flatnonzero(expected < limit).tolist()
    for drop in report.dropped:
        assert drop.value == pytest.approx(expected[drop.index], abs=1e-5)
    few = concepts.filter(concept_embeddings=text, image_embeddings=images[:2], **OFF | {"min_activation": -1.0})[1]
    assert few.dropped == ()


def test_all_filters_in_order_keep_groups_and_relevance() -> None:
    concepts = ConceptSet(
        ["z" * 40, "cat", "whiskers", "cat whiskers", "submarine", "fur"],
        groups=["g", "g", "face", "face", "sea", "coat"],
        relevance={"cat": ["whiskers", "fur"], "dog": ["fur"]},
        provenance="test",
    )
    kept, report = concepts.filter(
        class_names=["cat", "dog"],
        concept_embeddings=unit(0, 0, 30, 35, 200, 90),
        class_embeddings=unit(0, -40),
        image_embeddings=unit(20, 60, 100),
        min_activation=0.25,
        top_images=1,
        max_class_similarity=0.95,
    )
    assert kept.names[-1] == "fur"
    assert len(kept) == 2
    assert [drop.filter for drop in report.dropped] == ["length", "class", "mutual", "activation"]
    assert kept.groups == ("face", "coat")
    assert kept.relevance.tolist() == [[1.0 if kept.names[0] == "whiskers" else 0.0, 1], [0, 1]]
    assert kept.provenance == {"note": "test"}
    assert report.lines[0] == "kept 2 of 6 concepts; dropped by length 1, class 1, mutual 1, activation 1"
    assert report.not_run == ()


def test_filters_that_lack_their_input_say_so() -> None:
    kept, report = ConceptSet(["a", "b"]).filter()
    assert len(kept) == 2
    assert len(report.not_run) == 3
    assert "needs concept_embeddings and image_embeddings" in str(report)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concept_embeddings": unit(0)}, "1 rows for 2 concepts"),
        ({"concept_embeddings": np.array([[1.0, np.nan], [1, 1]])}, "concept_embeddings: row 0"),
        ({"concept_embeddings": np.array([[1.0, 1.0], [0, 0]])}, "concept_embeddings: row 1"),
        ({"concept_embeddings": np.ones(2)}, r"shape \(2,\)"),
        ({"concept_embeddings": np.array([["a", "b"], ["c", "d"]])}, "matrix of numbers"),
        (
            {"concept_embeddings": unit(0, 90), "image_embeddings": np.ones((4, 3))},
            "dimension 3 and concept_embeddings 2",
        ),
        (
            {"class_names": ["k"], "concept_embeddings": unit(0, 90), "class_embeddings": unit(0, 1)},
            "2 rows for 1 class",
        ),
        ({"concept_embeddings": unit(0, 90), "image_embeddings": unit(200)}, "drop all 2 concepts"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_mutual_similarity": 1.5}, "max_mutual_similarity=1.5"),
        ({"top_images": 0}, "top_images=0"),
    ],
)
def test_bad_inputs_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        ConceptSet(["a", "b"]).filter(**options)
    assert "\n" not in str(error.value)
