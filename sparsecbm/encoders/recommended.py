"""Encoders of photographs worth beginning with, from small to large, and which of them suits a machine."""

from __future__ import annotations

from typing import NamedTuple


class Recommended(NamedTuple):
    """An encoder by its spec.

    Attributes
    ----------
    spec : str
        As `load_encoder` takes it.
    parameters : int
        Of both towers, in millions; its weights are four bytes each.
    image_size : int
        Side of the pictures it sees, in pixels.
    dim : int
        Length of its embeddings.
    """

    spec: str
    parameters: int
    image_size: int
    dim: int

    @property
    def download(self) -> float:
        """Size of the weights in GB."""
        return 4e-3 * self.parameters

    @property
    def memory(self) -> float:
        """GB that encoding takes: the weights, once more while they are read, and 1 GB for everything else."""
        return 2 * self.download + 1


RECOMMENDED = (
    Recommended("open_clip:ViT-B-32/openai", 151, 224, 512),
    Recommended("open_clip:ViT-B-16/openai", 150, 224, 512),
    Recommended("transformers:google/siglip2-base-patch16-224", 375, 224, 768),
    Recommended("open_clip:ViT-L-14/openai", 428, 224, 768),
)


def suggested(memory: float, gpu: bool) -> Recommended:
    """The largest that suits a machine: without a GPU the first, which takes a few pictures a second there.

    Parameters
    ----------
    memory : float
        Of the GPU, or of the machine where there is none, in GB.
    gpu : bool
    """
    fitting = [made for made in RECOMMENDED if made.memory <= memory] if gpu else []
    return fitting[-1] if fitting else RECOMMENDED[0]
