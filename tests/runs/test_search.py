"""`search_run` and `sparsecbm search`, `sparsecbm concepts build`: results, order of classes, one line for mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sparsecbm import ConceptSet, runs
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.cli import main
from sparsecbm.config import SearchConfig, build_config, builtin_configs, dump_config, load_config
from sparsecbm.config.keys import documented_keys
from sparsecbm.config.reading import read_yaml
from sparsecbm.config.schema import BASELINES, MatrixSearchConfig
from sparsecbm.runs.search import BASELINE_RUNS

SMALL = ("images.max_train=120", "images.max_test=120", "examples=6", "images.max_validation=20")
NAMES = {
    "search_birds",
    "search_own_embeddings",
    *(f"search_{s}" for s in ("imagenet", "cifar10", "cifar100", "places365")),
}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> runs.SearchResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSECBM_CACHE", str(tmp_path_factory.getbasetemp() / "sparsecbm-cache"))
        output = tmp_path_factory.mktemp("search") / "out"
        return runs.search_run(load_config("search_birds", [*SMALL, f"output={output}"], kind=SearchConfig))


def test_one_table_ledgers_that_add_up_and_a_page(found: runs.SearchResult) -> None:
    assert sorted(path.name for path in found.output.iterdir()) == ["config.yaml", "search.html", "search.json"]
    assert json.loads((found.output / "search.json").read_text()) == found.metrics
    rows = {row.name: row for row in found.methods}
    assert len(rows) == 8
    assert [row.main for row in found.methods] == [True] + [False] * 7
    main_row = found.methods[0]
    assert main_row.accuracy > 0.95  # with descriptions and nothing trained
    assert rows["zero-shot CLIP"].accuracy < 0.3  # the encoder has never read the species' names
    assert rows["linear probe"].accuracy > 0.9
    assert rows["sparse decomposition"].accuracy > 0.5
    assert len(found.examples) == 6
    for ledger, row in zip(found.examples, found.metrics["examples"]):
        total = sum(entry["contribution"] for entry in row["contributions"]) + row["others"]["contribution"]
        assert row["bias"] + total == pytest.approx(row["score"], abs=1e-9)
        assert ledger.score == pytest.approx(row["score"])
        assert 1 <= row["named_concepts"] <= 8
        assert 0 < row["share"] <= 1
    page = found.page.read_text()
    assert page.count("<article") == 6
    assert page.count("data:image") >= 6
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # it loads nothing
    assert "everything else" not in page  # the eight named concepts decide
    gap = found.metrics["advantage"]
    assert gap["difference"] == pytest.approx(main_row.accuracy - main_row.meaningless)
    assert f"meaningless directions reaches {gap['accuracy']:.1%}" in page
    read = {row.name for row in found.methods[1:] if row.meaningless is not None}
    assert read == {"sparse decomposition", *(f"published rule: {name}" for name in ("cosine", "cubed", "max"))}
    assert load_config(found.output / "config.yaml", kind=SearchConfig).search.max_active_concepts == 8


def test_named_concepts_are_the_true_attributes(found: runs.SearchResult) -> None:
    from sparsecbm.data import birds

    truth = dict(zip(birds.SPECIES, birds.species_attributes()))
    column = {name: j for j, name in enumerate(birds.ATTRIBUTE_NAMES)}
    hits = []
    for ledger in found.examples:
        named = [entry.concept for entry in ledger.entries if entry.concept in column and entry.contribution > 0][:5]
        hits.append(np.mean([truth[ledger.target][column[name]] for name in named]))
    assert np.mean(hits) >= 0.8


def test_a_second_run_is_the_same_and_foreign_files_stay(found: runs.SearchResult, tmp_path: Path) -> None:
    config = load_config("search_birds", [*SMALL, "baselines=[]", f"output={tmp_path / 'a'}"], kind=SearchConfig)
    again = runs.search_run(config)
    assert again.metrics["examples"] == found.metrics["examples"]
    runs.search_run(config)  # over its own results
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").write_text("mine\n")
    with pytest.raises(StoredFileError, match="which no earlier run wrote"):
        runs.search_run(config.model_copy(update={"output": str(tmp_path / "b")}))
    assert (tmp_path / "b" / "config.yaml").read_text() == "mine\n"


def embeddings(folder: Path, order: list[int] | None = None, names: bool = True) -> list[str]:
    """Vectors of four classes whose texts are stored in another order than the images' class names."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(4, 12))
    labels = np.repeat(np.arange(4), 10)
    images = classes[labels] + 0.3 * rng.normal(size=(40, 12))
    concepts = np.concatenate([classes + 0.2 * rng.normal(size=(4, 12)), rng.normal(size=(20, 12))])

    def unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    labels_of = np.array(["ant", "bee", "cat", "cat"])  # two classes of one name, as in ImageNet
    splits = {
        f"{split}_{what}": rows
        for split in ("train", "test")
        for what, rows in (("images", unit(images)), ("labels", labels))
    }
    np.savez(folder / "v.npz", class_names=labels_of if order is None else np.array(list("abcd")), **splits)
    np.savez(folder / "c.npz", embeddings=unit(concepts), names=np.array([f"word {j}" for j in range(24)]))
    order = order or [0, 1, 2, 3]
    texts = {"names": np.array(list("abcd"))[order]} if order != [0, 1, 2, 3] else {"names": labels_of}
    np.savez(folder / "k.npz", embeddings=unit(classes)[order], **(texts if names else {}))
    (folder / "config.yaml").write_text(
        "embeddings:\n  path: v.npz\n  train: train\n  concepts: c.npz\n  classes: k.npz\n"
        f"baselines: [zero_shot, cosine, decomposer, linear_probe]\noutput: {folder / 'out'}\n"
    )
    return []


def test_class_texts_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    # A published classifier paired two lists by position; on Pets it scored 11%.
    embeddings(tmp_path, order=[2, 0, 3, 1])
    result = runs.search_run(load_config(tmp_path / "config.yaml", kind=SearchConfig))
    assert {row.name: row.accuracy > 0.9 for row in result.methods}["zero-shot CLIP"]
    assert result.methods[0].accuracy > 0.9
    wrong = load_config(tmp_path / "config.yaml", ["embeddings.class_names=null"], kind=SearchConfig)
    assert runs.search_run(wrong).methods[0].accuracy < 0.5  # in the stored order, which is another: the caller's word
    np.savez(tmp_path / "k.npz", embeddings=np.eye(12)[:3], names=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="has no text for all classes: 1 of 4 classes not found: 'd'"):
        runs.search_run(load_config(tmp_path / "config.yaml", kind=SearchConfig))


def test_classes_of_one_name_and_a_few_labelled_pictures(tmp_path: Path) -> None:
    embeddings(tmp_path)
    result = runs.search_run(load_config(tmp_path / "config.yaml", ["few_shot=3", "examples=40"], kind=SearchConfig))
    assert result.methods[0].accuracy > 0.9
    assert "3 labelled pictures a class" in result.methods[0].note
    assert "cat (class 3)" in result.examples.classes
    texts_only = load_config(tmp_path / "config.yaml", ["embeddings.classes=null", "baselines=[]"], kind=SearchConfig)
    with pytest.raises(InputError, match="nothing says what the classes are"):
        runs.search_run(texts_only)
    assert runs.search_run(texts_only.model_copy(update={"few_shot": 3})).methods[0].accuracy > 0.9
    with pytest.raises(InputError, match="class 'ant' has 10 training pictures"):
        runs.search_run(load_config(tmp_path / "config.yaml", ["few_shot=11"], kind=SearchConfig))


def test_descriptions_are_matched_by_name(tmp_path: Path) -> None:
    from sparsecbm.data import birds

    phrases, truth = birds.concept_phrases(), birds.species_attributes()
    said = {name: [phrases[j] for j in np.flatnonzero(row)] for name, row in zip(birds.SPECIES, truth)}
    path = tmp_path / "said.json"
    path.write_text(json.dumps(dict(reversed(said.items()))))
    overrides = [*SMALL, "classes.builtin=null", f"classes.descriptions={path}", f"output={tmp_path / 'o'}"]
    config = load_config("search_birds", [*overrides, "baselines=[descriptions]"], kind=SearchConfig)
    assert [row.accuracy > 0.95 for row in runs.search_run(config).methods] == [True, True]
    said.pop("Farrow jay")
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match="do not describe all classes: 1 of 20 classes not found: 'Farrow jay'"):
        runs.search_run(config)


def test_configurations() -> None:
    import inspect

    from sparsecbm._base.parts import SEARCH_RULES as RULES
    from sparsecbm.concepts import PromptTemplates
    from sparsecbm.estimators import ConceptMatrixSearch

    assert set(builtin_configs("search")) == NAMES
    assert not NAMES & set(builtin_configs())
    for name, path in builtin_configs("search").items():
        config = load_config(name, kind=SearchConfig)
        assert set(read_yaml(path)) <= set(SearchConfig.model_fields)
        assert config.name == name
        if config.concepts.file is not None:
            assert len(ConceptSet.from_file(config.concepts.file)) >= 50
        PromptTemplates.of(config.concepts.templates)
        PromptTemplates.of(config.classes.templates)
    parameters = inspect.signature(ConceptMatrixSearch).parameters
    ours = MatrixSearchConfig()
    for key, value in ours.model_dump().items():
        assert parameters[key].default == value, key
    (similarity,) = [held for held in documented_keys(SearchConfig) if held.key == "search.similarity"]
    assert set(RULES) == set(similarity.type.split("|"))
    assert tuple(BASELINE_RUNS) == BASELINES
    assert set(SearchConfig.model_fields["baselines"].annotation.__args__[0].__args__) == set(BASELINES)


@pytest.mark.parametrize("name", sorted(NAMES - {"search_birds", "search_own_embeddings"}))
def test_hub_configs_search_a_stand_in_of_the_same_layout(name: str, tmp_path: Path) -> None:
    """The same columns and official splits as on the hub, a few painted birds as pictures, the bundled encoder."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    from sparsecbm.data.birds import BirdImages

    images = load_config(name, kind=SearchConfig).images
    column, label = images.image_column or "image", images.label_column or "label"
    features = Features({column: ImageFeature(), label: ClassLabel(names=["ant", "bee", "cat"])})
    (tmp_path / "data" / "data").mkdir(parents=True)
    sizes = {"train": 24} if "places" in name else {"train": 12, (images.splits or {}).get("test", "test"): 9}
    pictures = BirdImages("train", n_images=24)
    for split, n in sizes.items():
        rows = {column: [pictures[i] for i in range(n)], label: [i % 3 for i in range(n)]}
        table = Dataset.from_dict(rows, features=features)
        table.to_parquet(str(tmp_path / "data" / "data" / f"{split}-00000-of-00001.parquet"))
    overrides = [
        f"images.spec=hub:{tmp_path / 'data'}",
        "encoder.spec=bundled",
        "examples=2",
        f"output={tmp_path / 'o'}",
    ]
    result = runs.search_run(load_config(name, [*overrides, "classes.templates=photo"], kind=SearchConfig))
    assert result.metrics["classes"] == 3
    assert result.metrics["pictures"] >= 3
    assert {row.name for row in result.methods} > {"zero-shot CLIP", "sparse decomposition"}
    assert len(result.examples) == 2


def test_what_is_as_run_reads_back(tmp_path: Path) -> None:
    for name in builtin_configs("search"):
        config = load_config(name, ["few_shot=4"], kind=SearchConfig)
        (tmp_path / "c.yaml").write_text(dump_config(config))
        assert load_config(tmp_path / "c.yaml", kind=SearchConfig) == config


def test_mistakes_in_a_configuration() -> None:
    with pytest.raises(InputError, match="'search_birds' is for `sparsecbm search`, not for `sparsecbm train`"):
        load_config("search_birds")
    with pytest.raises(InputError, match="'birds_gumbel' is for `sparsecbm train`, not for `sparsecbm search`"):
        load_config("birds_gumbel", kind=SearchConfig)
    for values, match in (
        ({"serch": {}}, r"unknown key 'serch'; did you mean 'search'\?"),
        ({"search": {"similarity": "cosin"}}, r"did you mean 'cosine'\?"),
        ({"search": {"ridge": 0}}, "search.ridge=0"),
        ({"baselines": ["zeroshot"]}, r"did you mean 'zero_shot'\?"),
        ({"decomposer": {"alpha": 1}}, "decomposer.alpha=1"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            build_config(values, kind=SearchConfig)
        assert "\n" not in str(caught.value)


def test_the_command(tmp_path: Path, capsys) -> None:
    small = [word for pair in (*SMALL, "baselines=[zero_shot]") for word in ("--set", pair)]
    words = '["a red crown", "a long tail", "a lake", "yellow legs", "snow"]'
    own = [*small, "--set", f"concepts.names={words}", "--output", str(tmp_path / "o")]
    assert run("search", "search_birds", *own) == 0
    shown = capsys.readouterr().out
    assert "5 concepts" in shown
    assert "zero-shot CLIP" in shown
    assert "= score" in shown
    assert "search.html" in shown
    assert run("search", "search_birds", *own, "--set", "examples=0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["concepts"] == 5
    assert run("search", "search_birds", "--set", "split=train", "--output", str(tmp_path / "p")) == 2
    assert "split: train is where references come from" in capsys.readouterr().err
    assert run("search", "search_brids") == 2
    assert "did you mean 'search_birds'" in capsys.readouterr().err


def test_building_a_concept_set(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecbm.data import birds

    monkeypatch.chdir(tmp_path)
    extra = ["a Farrow jay", "calculus", "a bird with a very very long and thin crown of feathers"]
    Path("words.txt").write_text("\n".join([*birds.concept_phrases(), *extra]) + "\n")
    common = ["--classes", "birds", "--encoder", "bundled"]
    source = ["concepts", "build", "--vocabulary", "words.txt", *common]
    assert run(*source, "--images", "birds", "--max-images", "60", "--select", "9", "-o", "mine.yaml") == 0
    assert "9 concepts for 20 classes" in capsys.readouterr().out
    made = ConceptSet.from_file("mine.yaml")
    assert len(made) == 9
    assert "a Farrow jay" not in made
    assert made.class_names == tuple(birds.SPECIES)
    assert made.provenance["source"] == "vocabulary"
    assert made.provenance["selection"]["at least this share of the best"] > 0.63
    dropped = made.provenance["dropped"]
    assert dropped["it is the class name 'Farrow jay'"] == ["a Farrow jay"]
    assert len(dropped["the 9 selected cover the classes better"]) > 1
    assert len(made) + sum(map(len, dropped.values())) == len(birds.concept_phrases()) + len(extra)  # none is lost
    first = Path("mine.yaml").read_bytes()
    again = [*source, "--images", "birds", "--max-images", "60", "--select", "9", "-o", "mine.yaml"]
    assert run(*again) == 2
    assert "'mine.yaml' is there already: give another name, or --force" in capsys.readouterr().err
    assert run(*again, "--force") == 0
    assert Path("mine.yaml").read_bytes() == first
    capsys.readouterr()
    Path("few.txt").write_text("red crown\nRed Crown\nlake\na wren\n")
    assert (
        run("concepts", "filter", "few.txt", *common, "-s", "min_activation=null", "--select", "7", "-o", "f.txt") == 0
    )
    shown = capsys.readouterr().out
    assert "asked for 7, found 3" in shown
    assert "dropped 'Red Crown': repeats 'red crown'" in shown
    assert Path("f.txt").read_text().startswith('# dropped: {"repeats \'red crown\'": ["Red Crown"]}\n')
    assert run("concepts", "filter", "few.txt", "-o", "f.txt") == 2
    assert "--force" in capsys.readouterr().err
    assert run("concepts", "show", "mine.yaml") == 0
    assert "Where they come from" in capsys.readouterr().out
    assert run("concepts", "check", "words.txt", *common, "--images", "birds", "--max-images", "60") == 0
    shown = capsys.readouterr().out
    assert "leak: 'a Farrow jay' is the class name" in shown
    assert "never active: 'calculus'" in shown
    assert "long (55 characters)" in shown
    assert run("concepts", "filter", "words.txt", *common, "--select", "5", "-o", "kept.yaml") == 0
    assert len(ConceptSet.from_file("kept.yaml")) == 5
    capsys.readouterr()
    for arguments, message in (
        (["-o", "x.yaml"], "give one source, --model, --conceptnet or --vocabulary; got none"),
        (["--model", "m", "--vocabulary", "words.txt", "-o", "x.yaml"], "got model and vocabulary"),
        (["--vocabulary", "words.txt", "-o", "x.txt"], "expected a .json or .yaml file"),
        (["--model", "m", "-o", "x.yaml"], "--model needs --classes"),
        (["--vocabulary", "words.txt", "-o", "x.yaml"], "--vocabulary needs --encoder"),
        (["--model", "./none", "--classes", "birds", "-o", "x.yaml"], "there is no such folder"),
        (["--conceptnet", "none.csv", "--classes", "none.txt", "-o", "x.yaml"], "there is no file 'none.txt'"),
    ):
        assert run("concepts", "build", *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_a_text_model_writes_the_concepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecbm.encoders import text_generation

    class Writer:
        calls = 0

        def generate(self, prompts, seed, **options):
            Writer.calls += 1
            if Writer.calls == 2:
                raise KeyboardInterrupt
            return ["- red crown\n- jay", "- trees", "- an animal"]

    monkeypatch.setattr(text_generation, "load_text_generator", lambda name, device: Writer())
    (tmp_path / "classes.txt").write_text("jay\nwren\n")
    options = {"classes": tmp_path / "classes.txt", "model": "m"}
    with pytest.raises(KeyboardInterrupt):
        runs.build_concepts(tmp_path / "out.yaml", **options)
    assert not (tmp_path / "out.yaml").exists()  # nothing half-written under the name asked for
    result = runs.build_concepts(tmp_path / "out.yaml", **options)
    assert Writer.calls == 3
    assert result.concepts.names == ("red crown", "trees", "animal")  # "jay" is a class
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.txt", "out.yaml"]
    assert ConceptSet.from_file(tmp_path / "out.yaml") == result.concepts
