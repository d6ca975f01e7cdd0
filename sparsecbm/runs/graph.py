"""A model and its encoder's image tower as one graph: from pictures, as the encoder prepares them, to what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import atomic_path
from sparsecbm.encoders.loading import quiet
from sparsecbm.inputs.models import StoredModel

OUTPUTS = ("probabilities", "activations", "contributions")


class Graph(nn.Module):
    """Prepared pictures (n, ...) to probabilities (n, K), activations (n, M), contributions (n, M).

    Contributions are those to the score of the most probable class: with its intercept they sum to it.

    Parameters
    ----------
    stored : StoredModel
    fixed : mapping of str to Tensor
        What the encoder takes beside the picture, for one picture; the same for all.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    head: torch.Tensor
    intercept: torch.Tensor

    def __init__(self, stored: StoredModel, name: str, fixed: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        held = stored.classifier
        self.name, self._features, self._fixed = name, stored.encoder._image_features, dict(fixed)
        if held.concept_embeddings_ is None:
            raise InputError("this model was fitted on concept scores: no picture leads to them")
        # In float64 and rounded, as `FrozenBottleneck`: what is equal must stay equal, or the gate would choose.
        self.register_buffer("weight", held.bottleneck_.weight.double().T.contiguous())
        self.register_buffer("bias", held.bottleneck_.bias.double())
        self.register_buffer("head", torch.as_tensor(held.head_weights_).float())
        self.register_buffer("intercept", torch.as_tensor(held.head_intercept_).float())
        self.gate = held.bottleneck_.gate

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fixed = {name: one.expand(picture.shape[0], *one.shape[1:]) for name, one in self._fixed.items()}
        rows = self._features({self.name: picture, **fixed}).float()
        rows = rows / rows.square().sum(1, keepdim=True).sqrt()
        activations = self.gate((rows.double() @ self.weight + self.bias).float())
        scores = activations @ self.head.T + self.intercept
        return torch.softmax(scores, 1), activations, activations * self.head[scores.argmax(1)]


def write_graph(stored: StoredModel, path: Path) -> tuple[float, int]:
    """Write ``.onnx`` or ``.pt2``; its largest difference to the model, over how many pictures. Raises InputError."""
    tower = stored.encoder
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(3)]
    inputs = tower._image_inputs(pictures)
    name = next(iter(inputs))
    _hold_places(tower, inputs)
    graph = Graph(stored, name, {key: value[:1] for key, value in inputs.items() if key != name}).eval()
    names = json.dumps(metadata(stored, inputs), ensure_ascii=False)
    try:
        with quiet(), torch.no_grad(), atomic_path(path) as temporary:
            program = torch.export.export(
                graph, (inputs[name][:2],), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},)
            )
            if path.suffix == ".pt2":
                with temporary.open("wb") as handle:
                    torch.export.save(program, handle, extra_files={"sparsecbm.json": names})
                with temporary.open("rb") as handle:
                    seen = torch.export.load(handle).module()(inputs[name])
            else:
                made: Any = torch.onnx.export(
                    program, dynamo=True, input_names=["picture"], output_names=list(OUTPUTS), verbose=False
                )
                made.model.metadata_props["sparsecbm"] = names
                made.save(str(temporary), external_data=False)
                seen = [torch.from_numpy(part) for part in run_onnx(temporary, inputs[name].numpy())]
    except (OSError, InputError):
        raise
    except Exception as error:  # torch.export raises many types, each with pages of advice for its developers
        line = " ".join(str(error).split())[:200]
        raise InputError(f"encoder {tower.spec!r} cannot be written as a graph ({line})") from error
    vectors = tower.encode_images(pictures)
    expected = (stored.classifier.predict_proba(vectors), stored.classifier.transform(vectors))
    difference = max(float(np.abs(part.numpy() - other).max()) for part, other in zip(seen, expected))
    if difference > 1e-3:
        path.unlink()
        raise InputError(f"the graph gives {difference:.1e} beside the model, which is too far: it was not written")
    return difference, len(pictures)


def _hold_places(tower: Any, inputs: Mapping[str, torch.Tensor]) -> None:
    """Compute SigLIP 2's places of patches now: resizing them to each picture's shape is nothing that ONNX knows."""
    if "spatial_shapes" not in inputs:
        return
    embeddings = tower.model.vision_model.embeddings
    held = embeddings.resize_positional_embeddings
    seen: list[torch.Tensor] = []

    def look(*given: Any, **named: Any) -> torch.Tensor:
        seen.append(held(*given, **named)[:1])
        return seen[-1]

    embeddings.resize_positional_embeddings = look
    tower._image_features({name: value[:1] for name, value in inputs.items()})
    place = seen[0].detach()
    embeddings.resize_positional_embeddings = lambda *_, **__: place


def run_onnx(path: str | Path, pictures: np.ndarray) -> list[np.ndarray]:
    """What an exported graph gives for prepared pictures, by onnxruntime on the CPU: `OUTPUTS`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(list(OUTPUTS), {"picture": pictures})


def metadata(stored: StoredModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What a program without Python must know: names, intercepts, and how a picture is prepared."""
    model, (picture, *fixed) = stored.classifier, inputs
    return {
        "format": "sparsecbm-graph",
        "format_version": 1,
        "classes": list(stored.class_names),
        "concepts": list(model.concept_names_),
        "intercept": np.asarray(model.head_intercept_).tolist(),
        "encoder": {"spec": stored.encoder.spec.split(":")[0], "fingerprint": stored.encoder.fingerprint},
        "picture": {"shape": list(inputs[picture].shape[1:]), "fixed": fixed, **prepared(stored.encoder)},
    }


def prepared(encoder: Any) -> dict[str, Any]:
    """Size, resizing, means and deviations of an encoder's preprocessing, in open_clip's words."""
    described = encoder._configuration()["preprocess"]
    if "resize_mode" in described:
        keys = ("size", "resize_mode", "interpolation", "mean", "std")
        return {key: described.get(key) for key in keys}
    size, crop = described.get("size") or {}, described.get("crop_size") or {}
    square = (crop or size).get("height")
    return {
        "size": [square, square],
        "resize_mode": "shortest" if "shortest_edge" in size else "squash",
        "interpolation": {2: "bilinear", 3: "bicubic"}.get(described.get("resample"), "bicubic"),
        "mean": described.get("image_mean"),
        "std": described.get("image_std"),
    }
