"""Small models with known answers, for the tests of the VAEs."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.samplers import noise
from sparsecbm.vae import DiscreteVAE

MODELS = {
    "factorial": {"groups": (6,)},
    "rbm": {"groups": (6,), "prior": "rbm"},
    "hierarchical rbm": {"groups": (3, 2, 2), "prior": "rbm", "hidden": (5,)},
    "categorical": {"groups": (2,), "latents": "categorical", "categories": 3, "prior": "categorical", "hidden": (5,)},
    "hierarchical categorical": {
        "groups": (1, 1),
        "latents": "categorical",
        "categories": 4,
        "prior": "categorical",
    },
}


def make_model(which: str | dict, seed: int = 0) -> DiscreteVAE:
    """A model far from its start, in float64 and evaluation mode (batch statistics would tie the rows together)."""
    generator = torch.Generator().manual_seed(seed)
    options = MODELS[which] if isinstance(which, str) else which
    model = DiscreteVAE(9, pixel_means=torch.full((9,), 0.4), generator=generator, **options).double()
    for parameter in model.parameters():
        parameter.data += 0.5 * noise.normal(tuple(parameter.shape), generator=generator, dtype=torch.float64)
    return model.eval()


def pixels(rows: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (noise.uniform((rows, 9), generator=generator) < 0.5).double()


def states_of(model: DiscreteVAE, x: Tensor) -> Tensor:
    """Every state for every row, (n_states, B, width)."""
    return model.latents.states(like=x).unsqueeze(1).expand(-1, len(x), -1)


def posterior_mass(model: DiscreteVAE, x: Tensor) -> Tensor:
    states = states_of(model, x)
    return model.latents.log_mass(model.posterior.given(x, states).logits, states).exp()
