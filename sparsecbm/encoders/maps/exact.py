"""Exact maps: the tower opened where it still has places, everything after held, and the map is a sum."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.maps.attribution import ImageMaps, of_one_colour, on_device, unit_scores
from sparsecbm.encoders.maps.held import Held


class Exact:
    """Maps by the difference that every place makes to a blank of the picture's mean colour.

    With statistics, attention weights, gates and the embedding's length held at this picture's values, the score is
    affine in the opened values x: its gradient g is constant, and ``g_p . (x_p - blank_p)``, summed over channels, is
    what place p adds. The rest is what the held network says of the blank, and of the class token.

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

    def __init__(self, encoder: Encoder, directions: torch.Tensor, *, layers: int | None = None) -> None:
        opening = encoder._opening(layers)
        if opening is None:
            raise InputError(
                f"encoder {encoder.spec!r} has no exact maps: it is not known where to open it; use "
                "method='gradients' or method='occlusion'"
            )
        self.encoder, self.directions, self.opening = encoder, directions, opening

    def __call__(self, images: list[Image.Image]) -> ImageMaps:
        """Maps of RGB pictures."""
        encoder, opening = self.encoder, self.opening
        with torch.no_grad(), opening.watched() as seen:
            encoder._image_features(on_device(encoder, [of_one_colour(image) for image in images]))
        modules = opening.chosen(seen)
        blanks = [seen[module] for module in modules]
        # A direction costs a backward pass; more of them than dimensions are mixed from the maps of the dimensions.
        mixed = len(self.directions) > encoder.embed_dim
        asked = torch.eye(encoder.embed_dim, device=encoder.device) if mixed else self.directions
        with torch.enable_grad(), Held(), opening.opened(modules) as leaves:
            inputs = on_device(encoder, images)
            scores = unit_scores(encoder._image_features(inputs), asked)
        maps = []
        for j in range(len(asked)):
            gradients = torch.autograd.grad(scores[:, j].sum(), leaves, retain_graph=j + 1 < len(asked))
            made = [g * (x.detach() - blank) for g, x, blank in zip(gradients, leaves, blanks)]
            maps.append(opening.on_grid(torch.stack(made).sum(0), inputs.get("spatial_shapes")).double())
        held = np.stack([grid.cpu().numpy() for grid in maps], axis=1)
        said = scores.detach().double().cpu().numpy()
        if mixed:
            mix = self.directions.double().cpu().numpy()
            held, said = np.einsum("ndhw,md->nmhw", held, mix), said @ mix.T
        return ImageMaps(held, said - held.sum((2, 3)))
