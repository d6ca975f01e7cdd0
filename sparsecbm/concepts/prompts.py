"""Prompt templates: the sentences that a name is put into before a text encoder sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsecbm._base.errors import InputError, unknown

# The 80 ImageNet templates of Radford et al. 2021 (arXiv 2103.00020), as published with CLIP. Most come in pairs.
_A_AND_THE = (
    "a bad photo of {a} {}.",
    "a photo of {a} hard to see {}.",
    "a low resolution photo of {a} {}.",
    "a rendering of {a} {}.",
    "graffiti of {a} {}.",
    "a cropped photo of {a} {}.",
    "a tattoo of {a} {}.",
    "{a} embroidered {}.",
    "a bright photo of {a} {}.",
    "a photo of {a} clean {}.",
    "a photo of {a} dirty {}.",
    "a dark photo of {a} {}.",
    "a drawing of {a} {}.",
    "{a} plastic {}.",
    "a photo of {a} cool {}.",
    "a close-up photo of {a} {}.",
    "a black and white photo of {a} {}.",
    "a painting of {a} {}.",
    "a pixelated photo of {a} {}.",
    "a sculpture of {a} {}.",
    "a jpeg corrupted photo of {a} {}.",
    "a blurry photo of {a} {}.",
    "a photo of {a} {}.",
    "a good photo of {a} {}.",
    "{a} {} in a video game.",
    "a doodle of {a} {}.",
    "{a} origami {}.",
    "a sketch of {a} {}.",
    "{a} toy {}.",
    "a rendition of {a} {}.",
    "a photo of {a} large {}.",
    "a photo of {a} nice {}.",
    "a photo of {a} weird {}.",
    "{a} cartoon {}.",
    "art of {a} {}.",
    "itap of {a} {}.",
    "{a} plushie {}.",
    "a photo of {a} small {}.",
)
_ALONE = ("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}.")

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "article": ("a {}",),
    "photo": ("a photo of a {}.",),
    "photo_with": ("a photo with {}.",),
    "bird": ("a photo of a bird with {}.",),
    "scene": ("a photo of a scene with {}.",),
    "clip_imagenet_7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "clip_imagenet_80": (
        *(template.replace("{a}", article) for template in _A_AND_THE for article in ("a", "the")),
        *_ALONE,
    ),
}
"""Templates by name. An ensemble is embedded as the renormalised mean of its unit embeddings."""


class PromptTemplates:
    """One or more templates, each with exactly one ``{}`` for the name.

    Parameters
    ----------
    templates : sequence of str
        Templates; other braces are refused, since they are most likely slips.
    name : str, optional
        Name of the set, for reports.

    Raises
    ------
    InputError
        If there is no template or one does not have exactly one ``{}``.

    Examples
    --------
    >>> PromptTemplates(["a photo of a {}.", "a sketch of a {}."]).format("red wing")
    ['a photo of a red wing.', 'a sketch of a red wing.']
    """

    __slots__ = ("name", "templates")

    templates: tuple[str, ...]
    name: str | None

    def __init__(self, templates: Sequence[str], name: str | None = None) -> None:
        if isinstance(templates, str):
            templates = (templates,)
        checked = tuple(_check(template) for template in templates)
        if not checked:
            raise InputError("prompt templates are empty: expected at least one, such as 'a photo of a {}.'")
        object.__setattr__(self, "templates", checked)
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("PromptTemplates cannot be changed")

    @classmethod
    def of(cls, value: PromptTemplates | str | Sequence[str] | None) -> PromptTemplates:
        """Build from a set's name, one template, several, or None (the name itself).

        Examples
        --------
        >>> len(PromptTemplates.of("clip_imagenet_80")), len(PromptTemplates.of("a {}"))
        (80, 1)
        >>> PromptTemplates.of(None).templates
        ('{}',)
        """
        if isinstance(value, PromptTemplates):
            return value
        if value is None:
            value = "plain"
        if isinstance(value, str):
            if value in TEMPLATE_SETS:
                return cls(TEMPLATE_SETS[value], value)
            if "{" not in value:
                raise unknown("prompt templates", value, TEMPLATE_SETS)
        return cls(value)

    def format(self, name: str) -> list[str]:
        """Put a name into every template."""
        # Not str.format, which would read braces in the name of a concept.
        return [template.replace("{}", name) for template in self.templates]

    def __len__(self) -> int:
        return len(self.templates)

    def __iter__(self) -> Iterator[str]:
        return iter(self.templates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptTemplates) and self.templates == other.templates

    def __hash__(self) -> int:
        return hash(self.templates)

    def __reduce__(self) -> tuple[type[PromptTemplates], tuple[tuple[str, ...], str | None]]:
        return PromptTemplates, (self.templates, self.name)

    def __repr__(self) -> str:
        shown = self.name or ", ".join(map(repr, self.templates[:2])) + (", ..." if len(self) > 2 else "")
        return f"<PromptTemplates {shown} ({len(self)})>"


def _check(template: object) -> str:
    if not isinstance(template, str):
        raise InputError(f"prompt template {template!r} is no text: expected one such as 'a photo of a {{}}.'")
    rest = template.replace("{}", "", 1)
    if "{}" not in template or "{" in rest or "}" in rest:
        raise InputError(
            f"prompt template {template!r} must have exactly one {{}} for the name and no other braces, "
            "as in 'a photo of a {}.'"
        )
    return template
