"""What an encoder was trained on, where that is less than photographs and everyday words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparsecbm._base.names import name_list


@dataclass(frozen=True)
class Domain:
    """The world of an encoder that does not know ours.

    Attributes
    ----------
    pictures : str
        What its pictures show, in words.
    sources : tuple of str
        Kinds of image specs that hold such pictures, such as ``"birds"``.
    words : frozenset of str
        All words it has ever read, in lower case.
    """

    pictures: str
    sources: tuple[str, ...]
    words: frozenset[str]

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Texts with a word that the encoder has never read."""
        return [text for text in texts if not set(re.findall(r"\w+", text.lower())) <= self.words]

    def note(self, texts: Sequence[str] = (), images: str | None = None) -> str | None:
        """One line about what lies outside; None where nothing does.

        Parameters
        ----------
        texts : sequence of str
            Concepts.
        images : str, optional
            Image spec.
        """
        parts = []
        if images is not None and images.partition(":")[0] not in self.sources:
            parts.append("on pictures of anything else its scores mean nothing")
        if unknown := self.unknown(texts):
            parts.append(f"it has never read {len(unknown)} of the {len(texts)} concepts ({name_list(unknown, 5)})")
        if not parts:
            return None
        return (
            f"this encoder knows {self.pictures} and nothing else; {'; '.join(parts)}; "
            "for photographs take another, such as open_clip:ViT-B-32/openai"
        )
