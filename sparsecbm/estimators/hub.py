"""``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` of every estimator, and the card that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import write_text
from sparsecbm._base.hub import NOT_PUBLISHED, download, make_card, published, shown_names, upload
from sparsecbm._base.model_files import ARRAYS, CONFIG
from sparsecbm.estimators.storage import StoredEstimator

if TYPE_CHECKING:
    from typing_extensions import Self

_TRAINED_BY_TEXTS = ("ConceptMatrixSearch", "ZeroShotClassifier", "DescriptionClassifier")


class PublishedEstimator(StoredEstimator):
    """A stored estimator that can be published."""

    def model_card(self, *, name: str | None = None, license: str | None = None, note: str = "") -> str:
        """Write the card of the fitted model: what it knows, from which data, how good beside its controls, its limits.

        Parameters
        ----------
        name : str, optional
            Repository, or any name.
        license : str, optional
            Identifier of the Hub, such as ``"apache-2.0"``.
        note : str
            Markdown put before everything else.
        """
        return _model_card(self, name or "a-user/a-model", license, note)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """`save`, with a model card if there is none; optionally upload it.

        Parameters
        ----------
        save_directory : path
        repo_id, push_to_hub
            Whether to upload it, and whereto; by default the folder's name. Other arguments go to `push_to_hub`.
        model_card_kwargs : dict, optional
            Of `model_card`.

        Raises
        ------
        InputError
            If arguments are given that nothing reads; the folder stays as it is.
        """
        if push_to_hub_kwargs and not push_to_hub:
            name = next(iter(push_to_hub_kwargs))
            raise InputError(f"save_pretrained reads no {name!r}: leave it out, or give push_to_hub=True to upload")
        folder = Path(save_directory)
        repository = repo_id or folder.resolve().name
        self.save(folder)
        if not (folder / "README.md").exists():
            write_text(folder / "README.md", self.model_card(**{"name": repository, **(model_card_kwargs or {})}))
        if not push_to_hub:
            return None
        return self.push_to_hub(repository, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Upload the model and its card; returns the address of the commit.

        Parameters
        ----------
        repo_id : str
        model_card_kwargs : dict, optional
            Of `model_card`.
        **options
            ``private``, ``token``, ``revision``, ``create_pr``, ``commit_message``: as in ``huggingface_hub.HfApi``.
        """
        card = {"name": repo_id, **(model_card_kwargs or {})}
        return upload(lambda folder: self.save_pretrained(folder, model_card_kwargs=card), repo_id, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load from a folder or a repository of the Hub.

        Parameters
        ----------
        pretrained_model_name_or_path : str or Path
        **options
            ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``: of the download.

        Raises
        ------
        InputError
            If parameters of the model are given: a fitted model has those it was fitted with.
        """
        for name in options.keys() - {"revision", "token", "cache_dir", "force_download", "local_files_only"}:
            raise InputError(
                f"from_pretrained takes no {name!r}: a stored model has the parameters it was fitted with; "
                "load it, then set_params and fit for others"
            )
        return cls.load(download(pretrained_model_name_or_path, (CONFIG, ARRAYS), **options))


def _model_card(model: Any, name: str, license: str | None, note: str) -> str:
    kind, known = type(model).__name__, published(getattr(model, "metadata_", {}))
    classes = known.get("class_names") or list(getattr(model, "classes_", ()))
    concepts = list(getattr(model, "concept_names_", None) or ())
    parts = (known.get(part) or {} for part in ("encoder", "images", "test"))
    # Metadata is the user's own: a text stands for the spec that it may well be.
    encoder, images, test = (part if isinstance(part, dict) else {"spec": str(part)} for part in parts)
    spec = str(encoder.get("spec") or "")
    loadable = "SPEC OF THE ENCODER" if not spec or NOT_PUBLISHED in spec else spec
    task = "zero-shot-image-classification" if kind in _TRAINED_BY_TEXTS else "image-classification"
    base = spec.removeprefix("transformers:") if spec == loadable and spec.startswith("transformers:") else None
    front = {
        "library_name": "sparsecbm",
        "pipeline_tag": task if classes else "feature-extraction",
        "tags": ["sparsecbm", "interpretability", "clip", *(["concept-bottleneck"] if concepts else [])],
        "license": license,
        "base_model": base,
    }
    what = f"A `{kind}` of [sparsecbm](https://arxiv.org/abs/2404.03323) on embeddings of a frozen encoder"
    if concepts:
        what += ": every score is exactly a sum of named contributions"
    facts = {
        "Classes": f"{len(classes):,}: {shown_names(classes)}" if len(classes) else "none",
        "Concepts": f"{len(concepts):,}: {shown_names(concepts)}" if concepts else "none",
        "Encoder": f"{shown_names([spec])}, fingerprint {shown_names([encoder.get('fingerprint')])}"
        if spec
        else f"not recorded; embeddings of {getattr(model, 'n_features_in_', '?')} dimensions",
        "Data": shown_names([images["spec"]]) if images.get("spec") else "not recorded",
        "Licences": f"this model: {license or 'not stated'}; those of the encoder and of the data hold too",
        "Made by": f"sparsecbm {known.get('sparsecbm', '(version not recorded)')}",
    }
    method, argument = ("explain", ".to_text()") if hasattr(model, "explain") else ("predict", "")
    home = type(model).__module__.rpartition(".")[0]
    usage = f"""```python
from PIL import Image
from {home} import {kind}
from sparsecbm import load_encoder
model = {kind}.from_pretrained("{name}")
encoder = load_encoder("{loadable}")
vectors = encoder.encode_images([Image.open("picture.png")])
print(model.{method}(vectors)[0]{argument})
```"""
    limits = [
        "It knows its classes and no others: a picture of something else gets one of them too.",
        "Probabilities are the softmax of its scores; whether they are calibrated was not measured."
        if "ece" not in test
        else f"Calibration error of its probabilities on test pictures: {test['ece']:.3f}.",
    ]
    if concepts:
        limits += [
            "A concept is a direction of the encoder. What names are worth is the accuracy beyond that of meaningless "
            "directions, above; a small difference says that the names decide little.",
        ]
    if spec == "bundled":
        limits.append("The bundled encoder knows painted birds and nothing else.")
    return make_card(
        front,
        name.rsplit("/", 1)[-1],
        {
            "": "\n\n".join(filter(None, [note, what + "."])),
            "What it is": "\n".join(f"- **{key}**: {value}" for key, value in facts.items()),
            "How good it is": _accuracy(test) if test else "Not measured, or not recorded with the model.",
            "How to use it": usage,
            "Limits": "\n".join(f"- {line}" for line in limits),
        },
    )


def _accuracy(test: dict[str, Any]) -> str:
    many = "map" in test  # classes that do not exclude each other
    score = f"{test['map']:.3f}" if many else f"{test['accuracy']:.1%}"
    rows = [f"| this model, {test['n_images']:,} test pictures | {score} |"]
    rows += [f"| Meaningless directions | {test['meaningless']:.3f} |"] if "meaningless" in test else []
    rows += [f"| {row['name']} | {row['accuracy']:.1%} |" for row in test.get("controls") or ()]
    lines = [f"| | {'mean average precision' if many else 'accuracy'} |", "|---|---|", *rows, ""]
    if test.get("verdict"):
        lines += [test["verdict"], ""]
    held = [
        f"{label} {test[key]:{form}}"
        for key, label, form in (
            ("active", "active concepts in a picture, on average:", ".1f"),
            ("nec", "weights a class (NEC):", ".1f"),
            ("survival", "survival of names:", ".0%"),
        )
        if isinstance(test.get(key), (int, float, np.number))
    ]
    return "\n".join([*lines, "; ".join(held)])
