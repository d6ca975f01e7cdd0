from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.concepts import TEMPLATE_SETS, PromptTemplates


def test_imagenet_ensembles_are_the_published_ones() -> None:
    # The file alone: importing open_clip takes ten seconds.
    package = importlib.util.find_spec("open_clip").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("metadata", Path(package) / "zero_shot_metadata.py")
    metadata = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metadata)
    published = {template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES}
    assert set(TEMPLATE_SETS["clip_imagenet_80"]) == published
    assert len(TEMPLATE_SETS["clip_imagenet_80"]) == len(metadata.OPENAI_IMAGENET_TEMPLATES)
    assert TEMPLATE_SETS["clip_imagenet_7"] == tuple(t("{}") for t in metadata.SIMPLE_IMAGENET_TEMPLATES)


@pytest.mark.parametrize("name", sorted(TEMPLATE_SETS))
def test_every_set_is_valid_and_puts_the_name_in(name: str) -> None:
    templates = PromptTemplates.of(name)
    assert templates.name == name
    prompts = templates.format("a {curious} name")
    assert len(set(prompts)) == len(templates) == len(list(templates))
    assert all("a {curious} name" in prompt and "{}" not in prompt for prompt in prompts)


def test_any_form_of_templates_is_understood() -> None:
    one = PromptTemplates.of("a photo of a {}.")
    assert one == PromptTemplates.of(["a photo of a {}."]) == PromptTemplates.of(one) == PromptTemplates.of("photo")
    assert hash(one) == hash(PromptTemplates.of("photo"))
    with pytest.raises(AttributeError):
        one.templates = ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("photos", "did you mean 'photo'"),
        ("a {} and a {}", "exactly one"),
        (["a {}", "no place"], "'no place' must have exactly one"),
        ("a {name}", "exactly one"),
        ("a {}}", "exactly one"),
        ("a {{}}", "exactly one"),
        ([], "empty"),
        ([7], "7 is no text"),
    ],
)
def test_bad_templates_are_named(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        PromptTemplates.of(value)
    assert "\n" not in str(error.value)
