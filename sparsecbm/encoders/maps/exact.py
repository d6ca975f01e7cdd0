"""Exact maps: the tower opened where it still has places, everything after held, and the map is a sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image
from torch import nn

from sparsecbm._base.errors import InputError
from sparsecbm.encoders.maps.attribution import ImageMaps, of_one_colour, on_device, unit_scores
from sparsecbm.encoders.maps.held import Held
from sparsecbm.encoders.opening import Opening, Seeing


class Exact:
    """Maps by the difference that every place makes to a blank of the picture's mean colour.

    With decisions held (see `Held`) and the embedding's length at this picture's value, the score is affine in the
    opened values x: its gradient g is constant, and ``g_p . (x_p - blank_p)``, summed over channels, is what place p
    adds. The rest is what has no place: biases, the class token, and what the held network says of the blank.

    Parameters
    ----------
    encoder : Encoder
    directions : Tensor of shape (m, d)
    layers : int, optional
        How many of the last blocks or stages come after the opened one (class-token towers: whose attentions are
        opened); None: what suits the architecture.

    Raises
    ------
    InputError
        If it is not known how to open the encoder, or it has not so many layers.
    """

    def __init__(self, encoder: Seeing, directions: torch.Tensor, *, layers: int | None = None) -> None:
        opening = encoder._opening(layers)
        if opening is None:
            raise InputError(
                f"encoder {encoder.spec!r} has no exact maps: it is not known where to open it; use "
                "method='gradients' or method='occlusion'"
            )
        self.encoder, self.opening, self.directions = encoder, opening, directions
        # A direction costs a backward pass; more of them than dimensions are mixed from the maps of the dimensions.
        self.mixed = len(directions) > encoder.embed_dim
        self.asked = torch.eye(encoder.embed_dim, device=encoder.device) if self.mixed else directions
        self.modules: list[nn.Module] | None = None

    def __call__(self, images: list[Image.Image]) -> ImageMaps:
        """Maps of RGB pictures."""
        inputs, blank = (on_device(self.encoder, some) for some in (images, [of_one_colour(image) for image in images]))
        if self.modules is None:
            self.modules = modules_of(self.encoder, self.opening, {name: x[:1] for name, x in blank.items()})
        scores, shares = shares_of(self.encoder, self.opening, self.modules, inputs, blank, self.asked)
        grids = [self.opening.on_grid(share, inputs.get("spatial_shapes")).double().cpu().numpy() for share in shares]
        maps, said = np.stack(grids, axis=1), scores.double().cpu().numpy()
        if self.mixed:
            mix = self.directions.double().cpu().numpy()
            maps, said = np.einsum("ndhw,md->nmhw", maps, mix), said @ mix.T
        return ImageMaps(maps, said - maps.sum((2, 3)))


def modules_of(encoder: Seeing, opening: Opening, inputs: Mapping[str, torch.Tensor]) -> list[nn.Module]:
    """Choose what is opened, by one picture."""
    with torch.no_grad(), opening.watched() as seen:
        encoder._image_features(inputs)
    return opening.chosen(seen)


def shares_of(
    encoder: Seeing,
    opening: Opening,
    modules: list[nn.Module],
    inputs: Mapping[str, torch.Tensor],
    blank: Mapping[str, torch.Tensor],
    directions: torch.Tensor,
) -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
    """Scores (n, m), and for each direction what every opened value adds: tensors of the opened shape."""
    with torch.enable_grad(), Held() as before, opening.opened(modules) as blanks:
        encoder._image_features(blank)
    with torch.enable_grad(), Held(before), opening.opened(modules) as leaves:
        scores = unit_scores(encoder._image_features(inputs), directions)

    def shares() -> Iterator[torch.Tensor]:
        for j in range(len(directions)):
            gradients = torch.autograd.grad(scores[:, j].sum(), leaves, retain_graph=j + 1 < len(directions))
            made = [g * (x - b).detach() for g, x, b in zip(gradients, leaves, blanks)]
            yield torch.stack(made).sum(0)

    return scores.detach(), shares()
