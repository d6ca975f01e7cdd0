"""Concept sets from a language model, a ConceptNet dump, a vocabulary."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sparsecbm import ConceptSet
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.concepts.conceptnet import conceptnet_concepts
from sparsecbm.concepts.questions import QUESTIONS, ask_for_concepts
from sparsecbm.concepts.vocabulary import relevance_to_images, vocabulary_concepts

ANSWERS = {
    "features": "- a red crown\n- a long tail",
    "surroundings": "- trees\n- A red crown",
    "superclass": "- a bird",
}


class Model:
    """Answers from a table; breaks down when told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[tuple[tuple[str, ...], int]] = []
        self.fail_at = fail_at

    def __call__(self, prompts, seed):
        if self.fail_at is not None and len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((tuple(prompts), seed))
        extra = "\n- dark fur" if "cat" in prompts[0] else ""
        return [ANSWERS["features"] + extra, ANSWERS["surroundings"], ANSWERS["superclass"]]


def test_three_questions_a_class() -> None:
    model = Model()
    concepts = ask_for_concepts(["song_bird", "cat"], model, model="table", seed=3)
    assert concepts.names == ("red crown", "long tail", "trees", "bird", "dark fur")
    assert concepts.groups == ("features", "features", "surroundings", "superclass", "features")
    np.testing.assert_array_equal(concepts.relevance, [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert concepts.class_names == ("song_bird", "cat")
    prompts, seed = model.asked[0]
    assert len(prompts) == 3
    assert all("song bird" in prompt and "{}" not in prompt for prompt in prompts)
    assert seed != model.asked[1][1]
    assert concepts.provenance["questions"] == QUESTIONS
    assert concepts.provenance["concepts by question"] == {"features": 3, "surroundings": 1, "superclass": 1}


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal, labels = tmp_path / "j.jsonl", ["wren", "jay", "cat"]
    whole = ask_for_concepts(labels, Model(), model="table")
    with pytest.raises(KeyboardInterrupt):
        ask_for_concepts(labels, Model(fail_at=2), model="table", journal=journal)
    with journal.open("ab") as handle:
        handle.write(b'{"class": "cat", "answers": {"feat')  # cut off by the interruption
    second = Model()
    resumed = ask_for_concepts(labels, second, model="table", journal=journal)
    assert resumed == whole
    assert len(second.asked) == 1
    assert ask_for_concepts(labels, Model(fail_at=0), model="table", journal=journal) == whole  # nothing left to ask
    for change in ({"model": "other"}, {"seed": 1}, {"questions": {"features": "What of {}?"}}):
        with pytest.raises(StoredFileError, match="another model, other questions or another seed"):
            ask_for_concepts(labels, Model(), journal=journal, **{"model": "table"} | change)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], "garbage", *lines[1:]]) + "\n")
    with pytest.raises(StoredFileError, match="line 2 is damaged"):
        ask_for_concepts(labels, Model(), model="table", journal=journal)


def test_answers_without_concepts_are_said() -> None:
    with pytest.raises(InputError, match="no answer of 'mute' about 1 classes holds a concept; the first was ''"):
        ask_for_concepts(["cat"], lambda prompts, seed: [""] * len(prompts), model="mute")
    with pytest.raises(InputError, match="exactly one"):
        ask_for_concepts(["cat"], Model(), model="x", questions={"q": "no place"})


ASSERTIONS = [
    ("/r/HasA", "/c/en/bird", "/c/en/wing", 2.0),
    ("/r/HasA", "/c/en/bird/n/wn/animal", "/c/en/wing", 1.5),  # a sense of the same word adds up
    ("/r/PartOf", "/c/en/beak/n", "/c/en/bird", 1.0),  # the other way round
    ("/r/IsA", "/c/en/bird", "/c/en/animal", 3.0),
    ("/r/IsA", "/c/en/wren", "/c/en/bird", 3.0),  # a wren is a bird, not something a bird has
    ("/r/AtLocation", "/c/en/bird", "/c/en/in_tree", 1.0),
    ("/r/AtLocation", "/c/en/worm", "/c/en/bird", 1.0),
    ("/r/HasProperty", "/c/en/bird", "/c/en/faint", 0.5),
    ("/r/HasA", "/c/fr/oiseau", "/c/fr/aile", 1.0),
    ("/r/HasA", "/c/en/bird", "/c/fr/aile", 1.0),
    ("/r/Antonym", "/c/en/bird", "/c/en/fish", 4.0),
    ("/r/MadeOf", "/c/en/dump_truck", "/c/en/steel", 1.0),
    ("/r/HasA", "/c/en/truck", "/c/en/wheel", 1.0),
]


def dump(path: Path, assertions=ASSERTIONS) -> Path:
    lines = [f"/a/[{r}/,{a}/,{b}/]\t{r}\t{a}\t{b}\t{json.dumps({'weight': w})}\n" for r, a, b, w in assertions]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as handle:
        handle.writelines(lines)
    return path


@pytest.mark.parametrize("name", ["dump.csv", "dump.csv.gz"])
def test_conceptnet(tmp_path: Path, name: str) -> None:
    path = dump(tmp_path / name)
    concepts = conceptnet_concepts(path, ["a bird", "dump_truck", "fire_truck", "quark"])
    relevance = dict(zip(concepts.class_names, concepts.relevance))

    def of(label: str) -> dict[str, float]:
        return {name: float(w) for name, w in zip(concepts.names, relevance[label]) if w}

    assert of("a bird") == {"wing": 3.5, "animal": 3.0, "beak": 1.0, "in tree": 1.0, "worm": 1.0}
    assert of("dump_truck") == {"steel": 1.0}  # the class itself first
    assert of("fire_truck") == {"wheel": 1.0}  # its last word where nothing is said about it
    assert of("quark") == {}
    assert concepts.provenance["classes by their last word"] == ["fire_truck"]
    assert concepts.provenance["classes without concepts"] == ["quark"]
    groups = dict(zip(concepts.names, concepts.groups))
    assert (groups["wing"], groups["animal"], groups["in tree"]) == ("features", "superclass", "surroundings")
    assert conceptnet_concepts(path, ["bird"], per_class=1).names == ("wing",)
    assert "in tree" in conceptnet_concepts(path, ["bird"], per_class=1).provenance["dropped"].popitem()[1]
    assert set(conceptnet_concepts(path, ["bird"], relations=["/r/IsA"], min_weight=0).names) == {"animal"}


def test_files_that_are_no_dump(tmp_path: Path) -> None:
    good = dump(tmp_path / "d.csv.gz")
    (tmp_path / "cut.csv.gz").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "text.csv").write_text("hello\nworld\n" * 200)
    (tmp_path / "empty.csv").write_text("")
    dump(tmp_path / "odd.csv", [("/r/HasA", "/c/en/bird", "/c/en/wing", 1.0)])
    text = (tmp_path / "odd.csv").read_text().replace('{"weight": 1.0}', "{}")
    (tmp_path / "odd.csv").write_text(text)
    for name, match in [
        ("cut.csv.gz", "cannot read"),
        ("text.csv", "no ConceptNet dump"),
        ("empty.csv", "no ConceptNet dump"),
        ("odd.csv", r"cannot read .*line 1"),
        ("none.csv", "No such file"),
    ]:
        with pytest.raises(StoredFileError, match=match) as caught:
            conceptnet_concepts(tmp_path / name, ["bird"])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="says nothing about the 1 classes"):
        conceptnet_concepts(good, ["quark"])
    with pytest.raises(InputError, match=r"unknown relation '/r/HasB'.*did you mean '/r/HasA'"):
        conceptnet_concepts(good, ["bird"], relations=["/r/HasB"])


def test_vocabulary_keeps_what_belongs_to_the_classes() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    common = 3 * axes[0]  # what all texts share
    words = np.stack([common + axes[1 + j] for j in range(8)])
    classes = np.stack([common + axes[1] + 0.5 * axes[2], common + axes[3]])
    names = [f"word {j}" for j in range(8)]
    concepts = vocabulary_concepts(
        names, words, class_names=["k", "l"], class_embeddings=classes, per_class=2, provenance={"file": "v"}
    )
    assert {"word 0", "word 1", "word 2"} <= set(concepts.names)
    assert concepts.relevance[0, concepts.index("word 0")] > concepts.relevance[0, concepts.index("word 1")] > 0
    assert concepts.relevance[1].argmax() == concepts.index("word 2")
    one = vocabulary_concepts(names, words, class_names=["k", "l"], class_embeddings=classes, per_class=1, top=1)
    assert one.names == ("word 2",)
    gap = 5 * axes[11]
    images = np.stack([gap + axes[4], gap + axes[5], gap + axes[4] + axes[5]])
    shown = relevance_to_images(words, images, top_images=1)
    assert set(np.argsort(-shown)[:2].tolist()) == {3, 4}
    assert vocabulary_concepts(names, words, image_embeddings=images, top=2).names == ("word 3", "word 4")
    assert isinstance(concepts, ConceptSet)
    with pytest.raises(InputError, match="ranked by class names or by pictures"):
        vocabulary_concepts(names, words)
    with pytest.raises(InputError, match="expected one each"):
        vocabulary_concepts(names, words, class_names=["k"], class_embeddings=classes)
