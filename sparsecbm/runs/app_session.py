"""What the interactive page computes, without the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm.data.decode import UndecodableError, decode_image, read_picture
from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.interventions import Interventions, counterfactual
from sparsecbm.inputs.data import open_images
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.runs.predict import mapped

if TYPE_CHECKING:
    from PIL.Image import Image

    from sparsecbm.data import ImageSource
    from sparsecbm.encoders import Encoder

SLIDERS = 8
"""Concepts that have a slider: the largest contributions, then those that tell the class from the runner-up."""
CHOSEN = 4
"""Further concepts that the reader may choose sliders for."""
EXAMPLES = 12
MAX_PIXELS = 40_000_000


class Session:
    """What the page computes, without the page: one model, one encoder, one picture at a time.

    Parameters
    ----------
    stored : StoredModel
    encoder : Encoder
    """

    def __init__(self, stored: StoredModel, encoder: Encoder) -> None:
        self.stored, self.encoder = stored, encoder
        self._examples: ImageSource | None = None

    def look(self, picture: str | Path) -> Ledgers:
        """Encode a picture file and account for its prediction, with maps where the encoder opens.

        Raises
        ------
        InputError
            If it is no picture in one of the formats that are decoded, damaged, or of more than `MAX_PIXELS` pixels.
        """
        try:
            image = decode_image(read_picture(picture), MAX_PIXELS)
        except UndecodableError as error:
            raise InputError(f"the picture cannot be used: {error}") from error
        vectors = self.encoder.encode_images([image])
        ledgers = self._ledgers(self.stored.classifier.transform(vectors), **self._told(vectors))
        try:
            return mapped(ledgers, self.stored, [image])
        except InputError:  # an encoder that does not open
            return ledgers

    @property
    def probabilities(self) -> bool:
        """Whether activations are the probabilities of concepts."""
        return self.stored.classifier.bottleneck_.gate.name == "presence"

    def _told(self, vectors: Any) -> dict[str, Any]:
        from sparsecbm.estimators.inference import told_presence  # takes seconds to import

        return told_presence(self.stored.classifier, vectors)

    def _ledgers(self, activations: Any, **told: Any) -> Ledgers:
        model = self.stored.classifier
        if self.probabilities:
            told = {"presence": activations, "worth": model.worth_}
        told["multilabel"] = getattr(model, "multilabel_", False)
        return explain(
            activations,
            model.head_weights_,
            model.head_intercept_,
            model.concept_names_,
            self.stored.class_names,
            **told,
        )

    def reach(self, activations: Any) -> float:
        """Upper end of the sliders."""
        return 1.0 if self.probabilities else _reach(activations)

    def sliders(self, ledgers: Ledgers) -> list[tuple[str, float, float]]:
        """Return name, value and upper end of the concepts that matter most for this picture."""
        first, second = np.argsort(-ledgers.scores[0], kind="stable")[:2]
        chosen = [entry.concept for entry in ledgers[0].top(SLIDERS)]
        lead = np.abs(ledgers.weights[first] - ledgers.weights[second])
        for j in np.argsort(-lead, kind="stable"):
            if len(chosen) >= min(SLIDERS, len(ledgers.concepts)):
                break
            if ledgers.concepts[j] not in chosen:
                chosen.append(ledgers.concepts[j])
        place = {name: j for j, name in enumerate(ledgers.concepts)}
        values = [float(ledgers.activations[0, place[name]]) for name in chosen]
        return [(name, value, self.reach(ledgers.activations)) for name, value in zip(chosen, values)]

    def quality(self) -> str:
        """Say how good the model is, never without its control; empty where nobody measured it."""
        test = self.stored.metadata.get("test") or {}
        if "accuracy" not in test:
            return ""
        said = f"Right on {test['accuracy']:.1%} of {test['n_images']:,} test pictures. "
        return said + (test.get("verdict") or "What meaningless directions would reach was not measured.")

    def example(self, number: int) -> tuple[Image, str]:
        """Return a picture that the model may be tried on, and its name; from the test pictures of its training.

        Raises
        ------
        InputError
            If they cannot be had.
        """
        if self.stored.images is None:
            raise InputError("this model was trained on embeddings made elsewhere: drop a picture of your own")
        if self._examples is None:
            self._examples = open_images(self.stored.images.model_copy(update={"max_test": EXAMPLES}), "test")
        place = number % len(self._examples)
        return self._examples[place], self._examples.ids[place]

    def edited(self, activations: Any, changes: dict[str, float], presence: Any = None) -> Ledgers:
        """Return the ledgers of activations with some concepts changed; `presence` is what `look` said of each."""
        told = {}
        if presence is not None:  # of what is changed, the picture says nothing more
            changed = np.isin(self.stored.classifier.concept_names_, list(changes))
            told = {"presence": np.where(changed, np.nan, presence), "worth": self.stored.classifier.worth_}
        edits = Interventions(self._ledgers(np.atleast_2d(activations), **told))
        if self.probabilities:
            for name, value in changes.items():
                edits.correct(0, name, value)
        elif changes:
            edits.replace(0, changes)
        return edits.ledgers

    def smallest_change(self, activations: Any) -> str:
        """Say in words which fewest concepts would turn the prediction."""
        ledgers = self._ledgers(np.atleast_2d(activations))
        high = np.maximum(ledgers.activations[0], self.reach(ledgers.activations))
        found = counterfactual(ledgers, 0, high=high) or counterfactual(ledgers, 0, any_class=True, high=high)
        return "No change of concepts turns this prediction." if found is None else found.to_text()

    def classes(self, ledgers: Ledgers, k: int = 5) -> dict[str, float]:
        """Return the most probable classes."""
        row = ledgers.probabilities[0]
        return {ledgers.classes[c]: float(row[c]) for c in np.argsort(-row, kind="stable")[:k]}


def _reach(activations: Any) -> float:
    """Upper end of the sliders: units are standardised, so few pictures go beyond."""
    return float(np.ceil(max(4.0, 1.25 * np.max(activations))))


def open_session(model: str | Path, encoder: str | None = None, device: str = "auto") -> Session:
    """Load a model and its encoder."""
    stored = load_model(model, inference=True, encoder=encoder, device=device)
    return Session(stored, stored.encoder)
