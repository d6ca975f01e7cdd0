"""Maps of encoders that stay closed, by captum: integrated gradients and occlusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sparsecbm._base.extras import require
from sparsecbm.encoders.maps.attribution import ImageMaps, of_one_colour, on_device, pixels_of, unit_scores
from sparsecbm.encoders.opening import Seeing


class _FromPixels:
    """What both methods share: scores as a function of pixels, a picture's blank, and sums over cells.

    Parameters
    ----------
    encoder : Encoder
    directions : Tensor of shape (m, d)
    cells : int
        Cells a side of a map.
    """

    def __init__(self, encoder: Seeing, directions: torch.Tensor, *, cells: int = 8) -> None:
        require("captum", "maps", "these maps")
        import captum.attr

        self.captum: Any = captum.attr
        self.encoder, self.directions, self.cells = encoder, directions, cells

    def __call__(self, images: list[Image.Image]) -> ImageMaps:
        """Maps of RGB pictures."""
        encoder = self.encoder
        inputs = on_device(encoder, images)
        name = pixels_of(encoder, inputs)
        blank = on_device(encoder, [of_one_colour(image) for image in images])[name]

        def scores(pixels: torch.Tensor) -> torch.Tensor:
            return unit_scores(encoder._image_features({**inputs, name: pixels}), self.directions)

        with torch.no_grad():
            said, empty = scores(inputs[name]), scores(blank)
        grids = []
        for j in range(len(self.directions)):
            made = self.attributed(scores, inputs[name], blank, j).detach().sum(1, keepdim=True)
            # Sums, not means: what a cell adds is what its pixels add.
            area = made.shape[2] * made.shape[3] / self.cells**2
            grids.append(F.adaptive_avg_pool2d(made, self.cells)[:, 0].double() * area)
        maps = torch.stack(grids, 1).cpu().numpy()
        whole, none = said.double().cpu().numpy(), empty.double().cpu().numpy()
        return ImageMaps(maps, whole - maps.sum((2, 3)), self.error(maps, whole, none))

    def attributed(self, scores: Any, pixels: torch.Tensor, blank: torch.Tensor, j: int) -> torch.Tensor:
        """Attributions (n, 3, height, width) of the scores in direction j."""
        raise NotImplementedError

    def error(self, maps: np.ndarray, whole: np.ndarray, none: np.ndarray) -> np.ndarray | None:
        """By how much maps miss what they promise to sum to; None where they promise nothing."""
        return None


class Gradients(_FromPixels):
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) from a blank of the picture's mean colour.

    Maps sum to the score less the blank's, but for the error of `steps` points on the way, which is stated.
    """

    def __init__(self, encoder: Seeing, directions: torch.Tensor, *, cells: int = 8, steps: int = 32) -> None:
        super().__init__(encoder, directions, cells=cells)
        self.steps = steps

    def attributed(self, scores: Any, pixels: torch.Tensor, blank: torch.Tensor, j: int) -> torch.Tensor:
        """See `_FromPixels`."""
        method = self.captum.IntegratedGradients(scores)
        return method.attribute(pixels, blank, target=j, n_steps=self.steps, internal_batch_size=max(32, len(pixels)))

    def error(self, maps: np.ndarray, whole: np.ndarray, none: np.ndarray) -> np.ndarray:
        """See `_FromPixels`."""
        return maps.sum((2, 3)) - (whole - none)


class Occlusion(_FromPixels):
    """What the score loses when one cell at a time takes the picture's mean colour; such losses need not add up."""

    def attributed(self, scores: Any, pixels: torch.Tensor, blank: torch.Tensor, j: int) -> torch.Tensor:
        """See `_FromPixels`."""
        height, width = (max(1, side // self.cells) for side in pixels.shape[2:])
        with torch.no_grad():
            lost = self.captum.Occlusion(scores).attribute(
                pixels, (3, height, width), strides=(3, height, width), baselines=blank, target=j
            )
        # Every pixel of a cell is given the cell's whole loss.
        return lost / (3 * height * width)
