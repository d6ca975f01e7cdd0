"""The words of this package, a line each: on every page, in `sparsecbm info --glossary`, in the README."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    "Concept": "a word or phrase whose text the encoder embeds; its *score* is the cosine with a picture's embedding.",
    "Unit": "what the bottleneck makes of a concept's score; the *tie* says how far it may turn away from it.",
    "Tie": "how closely a unit is held to its concept: `exact` is the concept's score itself, `free` holds nothing.",
    "Gate": "the rule that sets all but a few units to exactly zero; what is left are the *activations*.",
    "Active": "a concept whose activation for this picture is not zero.",
    "NEC": "number of effective concepts: the weights of a class that are not zero, on average over classes.",
    "Ledger": "the list of contributions (activation x weight) that add up to a class's score.",
    "Alignment": "the correlation of a unit with its concept's score on pictures that training did not see.",
    "Survival": "of the 20 pictures on which a concept scores highest, the share among the 20 highest of its unit.",
    "Advantage": "the accuracy beyond that of matched random directions, which mean nothing.",
    "Leakage": "what the activations tell about the class beyond the concepts they are named after.",
}


def plain_words() -> dict[str, str]:
    """The glossary without its marks."""
    return {word: meaning.replace("*", "").replace("`", "") for word, meaning in GLOSSARY.items()}


def word_in(text: str) -> str | None:
    """Return the first word of the glossary that a label speaks of; None for none.

    Examples
    --------
    >>> word_in("Active concepts per image"), word_in("Accuracy")
    ('Active', None)
    """
    said = text.lower().split()
    return next((word for word in GLOSSARY if word.lower() in said), None)
