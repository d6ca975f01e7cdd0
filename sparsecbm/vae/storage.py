"""A trained VAE in a folder: weights as safetensors, options as JSON."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.model_files import holds_together, read_model, write_model
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.priors import PRIORS

__all__ = ["load_vae", "save_vae"]


def save_vae(folder: str | Path, model: DiscreteVAE, **notes: Any) -> None:
    """Write a model; `notes` are JSON values kept beside its options.

    Raises
    ------
    InputError
        If a weight is not finite.
    StoredFileError
        If the folder cannot be written.
    """
    _check_finite(model.state_dict())
    arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    write_model(folder, arrays, {"kind": "DiscreteVAE", "options": model.options(), **notes})


def load_vae(folder: str | Path) -> DiscreteVAE:
    """Read a model that `save_vae` wrote, in evaluation mode.

    Raises
    ------
    StoredFileError
        If the folder holds no such model, or a damaged one.
    """
    arrays, described = read_model(folder)
    if described.get("kind") != "DiscreteVAE":
        raise StoredFileError(f"{str(folder)!r} holds no VAE: its description is of another kind")
    with holds_together(folder):
        weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
        if _largest(described["options"]) > sum(value.numel() for value in weights.values()):
            raise ValueError("it describes a model larger than its weights")
        model = DiscreteVAE(**described["options"])
        _check_finite(weights)
        model.load_state_dict(weights)
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
