"""Configuration files: every mistake is one line that says what to do; what is written reads back the same."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import LOSSES
from sparsecbm.config.reading import (
    MAX_CONFIG_BYTES,
    build_config,
    builtin_configs,
    dump_config,
    load_config,
    read_yaml,
)
from sparsecbm.config.schema import ModelConfig, RunConfig

EXPECTED = {
    *(f"birds_{loss}" for loss in LOSSES),
    *("cifar10", "cifar100", "cub200", "imagenet", "places365", "own_embeddings", "own_pictures"),
}


def fails(match: str, values=None, overrides=()) -> None:
    with pytest.raises(InputError, match=match) as caught:
        build_config(values or {}, overrides)
    assert "\n" not in str(caught.value)


def test_unknown_keys_suggest_the_nearest_with_its_path() -> None:
    fails(r"unknown key 'modl'; did you mean 'model'\?", {"modl": {}})
    fails(r"unknown key 'model.los'; did you mean 'model.loss'\?", {"model": {"los": "l1"}})
    fails(r"unknown key 'loss'; did you mean 'model.loss'\?", {"loss": "l1"})
    fails(
        r"unknown key 'embeddings.pth'; did you mean 'embeddings.path'", {"embeddings": {"pth": "x", "concepts": "y"}}
    )
    fails(r"unknown key 'model.qqq': expected one of model.training, model.loss, model.variant", {"model": {"qqq": 1}})
    fails(r"unknown key 'concepts.filters.max_lenth'; did you mean", {"concepts": {"filters": {"max_lenth": 3}}})


def test_bad_values_name_key_value_and_expectation() -> None:
    fails(r"model.loss: unknown loss 'gumbl': expected one of .*did you mean 'gumbel'\?", {"model": {"loss": "gumbl"}})
    fails(r"model.max_active_concepts=0: .*greater than or equal to 1", {"model": {"max_active_concepts": 0}})
    fails(r"images.spec=\['a'\]: .*string", {"images": {"spec": ["a"]}})
    fails(r"model=3: expected a section", {"model": 3})
    fails(r"seed=-1", {"seed": -1})
    fails(r"model.learning_rate=nan", {"model": {"learning_rate": float("nan")}})
    fails(
        r"concepts: give one of file, names, builtin; got file and names", {"concepts": {"file": "a", "names": ["b"]}}
    )
    fails(r"unknown images.splits.tset 'tset'.*did you mean 'test'", {"images": {"splits": {"tset": "x"}}})
    fails(r"and 1 more problem\)", {"seed": -1, "model": {"foo": 1}})


def test_overrides_win_and_are_typed() -> None:
    config = build_config({"model": {"loss": "l1"}}, ["model.loss=none", "model.learning_rate=1e-3", "seed=7"])
    assert config.model.loss == "none"  # not YAML's null
    assert config.model.learning_rate == pytest.approx(1e-3)
    assert config.seed == 7
    assert build_config({}, ["concepts.names=[a, b]"]).concepts.names == ["a", "b"]
    assert build_config({"concepts": {"builtin": "birds"}}, ["concepts.file=x.txt"]).concepts.builtin is None
    assert build_config({}, ["embeddings.path=a.npz", "embeddings.concepts=b.npz"]).embeddings.path == "a.npz"
    assert build_config({}, ["seed=010"]).seed == 10  # not octal
    assert build_config({}, ["concepts.names=[no, 010, 12:30]"]).concepts.names == ["no", "010", "12:30"]
    assert build_config({}, ["model.nonnegative=no"]).model.nonnegative is False
    fails(r"concepts\.names\.0=1000\.0: input should be a valid string", overrides=["concepts.names=[1e3]"])
    fails(r"--set 'model.loss': expected key=value", overrides=["model.loss"])
    fails(r"--set '=3'", overrides=["=3"])
    fails(r"'seed' is a value, not a section", {"seed": 1}, ["seed.x=1"])
    fails(r"not valid YAML", overrides=["seed=[1"])
    fails(r"aliases are not allowed", overrides=["concepts.names=[&a x, *a]"])


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    def refuse(content: bytes, match: str) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=match) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)

    refuse(b"a: [1", r"not valid YAML: .*line")
    refuse(b"- a\n- b\n", r"expected keys and values")
    refuse(b"a: \xe9", r"not UTF-8")
    refuse("seed: 1\n".encode("utf-16-le"), r"UTF-16 without a mark.*save it in the encoding UTF-8")
    refuse(b"seed: 1\nmodel:\n  loss: l1\n  loss: none\n", r"line 4: key 'loss' is there twice")
    refuse(b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", r"line 2: YAML aliases are not allowed")
    refuse(b"seed: !!python/object/apply:os.system ['true']\n", r"not valid YAML: could not determine a constructor")
    refuse(b"x" * (MAX_CONFIG_BYTES + 1), r"larger than 1 MiB")
    refuse(b"[" * 5000, r"nested more than 20 levels")
    with pytest.raises(InputError, match="is a folder"):
        load_config(tmp_path)
    with pytest.raises(InputError, match=r"config file .*not found"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="did you mean 'birds_gumbel'"):
        load_config("birds_gumble")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == RunConfig(name="mine")


def test_paths_are_taken_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "c.yaml"
    path.parent.mkdir()
    path.write_text(
        "images:\n  spec: folder:pictures\nconcepts:\n  file: ../words.txt\nencoder:\n  spec: open_clip:local-dir:m\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("deep/c.yaml")
    assert config.concepts.file == str(tmp_path / "words.txt")
    assert config.images.spec == f"folder:{tmp_path / 'deep' / 'pictures'}"
    assert config.encoder.spec == f"open_clip:local-dir:{tmp_path / 'deep' / 'm'}"
    assert load_config("deep/c.yaml", ["concepts.file=own.txt"]).concepts.file == "own.txt"
    path.write_text("encoder:\n  spec: transformers:./m\n")
    assert load_config(path).encoder.spec == f"transformers:{tmp_path / 'deep' / 'm'}"
    path.write_text("encoder:\n  spec: transformers:openai/clip-vit-base-patch32\n")
    assert load_config(path).encoder.spec == "transformers:openai/clip-vit-base-patch32"


def test_as_run_reads_back_unchanged(tmp_path: Path) -> None:
    for name in builtin_configs():
        config = load_config(name, ["model.temperature=[2, 0.5]"])
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path) == config


def test_builtin_configs_are_complete_and_what_they_name_exists() -> None:
    from sparsecbm.concepts import ConceptSet, PromptTemplates

    assert set(builtin_configs()) == EXPECTED
    for name, path in builtin_configs().items():
        config = load_config(name)
        assert config.name == name
        if config.concepts.file is not None and not name.startswith("own_"):  # those are the user's
            assert len(ConceptSet.from_file(config.concepts.file)) >= 50
        PromptTemplates.of(config.concepts.templates)
        # Every key of the file is one that matters: it is in the checked result.
        assert set(read_yaml(path)) <= set(RunConfig.model_fields)


def test_model_section_mirrors_the_estimator() -> None:
    from sparsecbm.estimators import SparseCBMClassifier

    parameters = inspect.signature(SparseCBMClassifier.__init__).parameters
    ours = ModelConfig()
    for key in ModelConfig.model_fields:
        assert getattr(ours, key) == parameters[key].default, key
    # Arrays, the seed and the progress bar come from elsewhere; validation data comes from the images.
    left = set(parameters) - set(ModelConfig.model_fields) - {"self"}
    assert left == {
        "concept_embeddings",
        "concept_names",
        "concept_relevance",
        "cone_widths",
        "random_state",
        "verbose",
        "validation_fraction",
    }


def test_losses_mirror_the_bottleneck() -> None:
    from sparsecbm.bottleneck import loss_class

    for loss in LOSSES:
        for variant in ("default", "published"):
            assert loss_class(loss, variant) is not None


def test_yaml_is_safe() -> None:
    assert yaml.safe_load(dump_config(RunConfig()))["seed"] == 0


@pytest.mark.parametrize("name", ["sparsecbm.config.reading", "sparsecbm.explain.ledger"])
def test_examples_in_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
