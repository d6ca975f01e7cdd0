"""A trained VAE in a folder: weights as safetensors, options as JSON."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import atomic_path, read_json, write_json
from sparsecbm._base.untrusted import file_inside
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.priors import PRIORS

__all__ = ["load_vae", "save_vae"]

_WEIGHTS, _OPTIONS = "model.safetensors", "model.json"


def save_vae(folder: str | Path, model: DiscreteVAE, **notes: Any) -> None:
    """Write a model; `notes` are JSON values kept beside its options.

    Raises
    ------
    InputError
        If a weight is not finite.
    StoredFileError
        If the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    _check_finite(model.state_dict())
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_file(tensors, temporary)
    write_json(folder / _OPTIONS, {"kind": "DiscreteVAE", "options": model.options(), **notes})


def load_vae(folder: str | Path) -> DiscreteVAE:
    """Read a model that `save_vae` wrote, in evaluation mode.

    Raises
    ------
    StoredFileError
        If the folder holds no such model, or a damaged one.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    described = read_json(file_inside(folder, _OPTIONS))
    if not isinstance(described, dict) or described.get("kind") != "DiscreteVAE":
        raise StoredFileError(f"{str(folder)!r} holds no VAE: {_OPTIONS} is of another kind")
    try:
        weights = load_file(file_inside(folder, _WEIGHTS))
        if _largest(described["options"]) > sum(value.numel() for value in weights.values()):
            raise ValueError("it describes a model larger than its weights")
        model = DiscreteVAE(**described["options"])
        _check_finite(weights)
        model.load_state_dict(weights)
    except Exception as error:  # SafetensorError, or whatever foreign options make of the model
        reason = " ".join(str(error).split())[:200]
        raise StoredFileError(f"the model in {str(folder)!r} is damaged or foreign: {reason}") from error
    return model.eval()


def _check_finite(weights: dict[str, Tensor]) -> None:
    for name, value in weights.items():
        if not (value.is_floating_point() or name.endswith("num_batches_tracked")) or not value.isfinite().all():
            raise InputError(f"weights {name!r}: expected finite floating-point numbers, got {value.dtype}")


def _largest(options: dict[str, Any]) -> int:
    """Size of the largest matrix that options ask for; the description may come from a stranger."""
    latents = sum(options["groups"]) * (options.get("categories") or 1)
    widths = [options["n_pixels"], *options["hidden"], latents]
    between = max(a * b for a, b in itertools.pairwise(widths))
    prior = PRIORS.find(options.get("prior", "bernoulli")).largest(latents)
    return max(between, prior, len(widths), len(options["groups"]))
