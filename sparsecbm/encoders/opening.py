"""Where an image tower is opened, to see positions of the picture in it; one function an architecture."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn

from sparsecbm._base.errors import InputError

LAYERS = 4
"""Last blocks whose attention is counted in towers with a class token, as published (Gandelsman et al. 2024)."""
CELLS = 8
"""Cells a side that a map of a convolutional tower has at least, where the tower has so many anywhere."""


class Seeing(Protocol):
    """What maps need of an encoder; `sparsecbm.encoders.Encoder` has it."""

    spec: str
    embed_dim: int
    device: torch.device

    def _image_inputs(self, images: list[Image.Image]) -> Mapping[str, torch.Tensor]: ...
    def _image_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor: ...
    def _opening(self, layers: int | None) -> Opening | None: ...
    def _batch_size(self, batch_size: int | None) -> int: ...


@dataclass(frozen=True)
class Opening:
    """Modules whose outputs are the places of a picture: (n, channels, h, w), or tokens (n, places, channels).

    Attributes
    ----------
    stages : sequence of Module
        From first to last. One of them is opened, and everything after it is held: either the one before `layers`
        others, or the last with `CELLS` a side.
    blocks : sequence of (Module, Module)
        Instead of stages, of towers that read one class token: the norms before the attention and before the MLP of
        every block. The last `layers` attentions are opened, and only what each gives straight to the output counts.
    prefix : int
        Tokens before the places'.
    """

    stages: Sequence[nn.Module] = ()
    blocks: Sequence[tuple[nn.Module, nn.Module]] = ()
    prefix: int = 0
    layers: int | None = None

    def __post_init__(self) -> None:
        first, most = (1, len(self.blocks)) if self.blocks else (0, len(self.stages) - 1)
        if self.layers is not None and not first <= self.layers <= most:
            raise InputError(f"layers={self.layers!r}: expected {first} to {most} for this encoder, or None")

    @contextlib.contextmanager
    def watched(self) -> Iterator[dict[nn.Module, torch.Tensor]]:
        """Note the outputs of all that could be opened."""
        seen: dict[nn.Module, torch.Tensor] = {}

        def note(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            seen[module] = output

        modules = [attention for attention, _ in self._last_blocks] if self.blocks else self.stages
        with _hooked(module.register_forward_hook(_here(note)) for module in modules):
            yield seen

    def chosen(self, seen: dict[nn.Module, torch.Tensor]) -> list[nn.Module]:
        """Choose, by the shapes noted, which modules are opened."""
        if self.blocks:
            return [attention for attention, _ in self._last_blocks]
        if self.layers is not None:
            return [self.stages[len(self.stages) - 1 - self.layers]]
        fine = [stage for stage in self.stages if seen[stage].ndim == 3 or min(seen[stage].shape[2:]) >= CELLS]
        return [fine[-1] if fine else self.stages[0]]

    @contextlib.contextmanager
    def opened(self, modules: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
        """Put in place of the modules' outputs tensors of the same values that gradients end at; yields them."""
        leaves: list[torch.Tensor] = []

        def replace(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1].clone()  # what follows may work in place

        def cut(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (args[0].detach(), *args[1:])

        hooks = [module.register_forward_hook(_here(replace)) for module in modules]
        hooks += [mlp.register_forward_pre_hook(_here(cut)) for _, mlp in self._last_blocks]
        with _hooked(iter(hooks)):
            yield leaves

    @property
    def _last_blocks(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        return self.blocks[-(self.layers or LAYERS) :] if self.blocks else ()

    def on_grid(self, values: torch.Tensor, shapes: torch.Tensor | None = None) -> torch.Tensor:
        """Values (n, channels, h, w) or (n, tokens, channels), summed over channels, as a grid (n, h, w).

        Parameters
        ----------
        values : Tensor
        shapes : Tensor of int, shape (n, 2), optional
            Rows and columns of the tokens of encoders that keep a picture's proportions; a square where None.

        Raises
        ------
        InputError
            If the places make no square, or pictures have grids of several shapes.
        """
        if values.ndim == 4:
            return values.sum(1)
        places = values.sum(-1)[:, self.prefix :]
        side = round(places.shape[1] ** 0.5)
        height, width = (side, side) if shapes is None else shapes[0].tolist()
        if shapes is not None and bool((shapes != shapes[0]).any()):
            raise InputError("the encoder gives these pictures grids of several shapes: map them one at a time")
        if shapes is None and side * side != places.shape[1]:
            raise InputError(f"the encoder has {places.shape[1]} places a picture: expected a square of them")
        return places[:, : height * width].reshape(-1, height, width)  # what is left is padding


def _here(act: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, for the thread that hangs it up: others may be encoding with the same model."""
    owner = threading.get_ident()
    return lambda *args: act(*args) if threading.get_ident() == owner else None


@contextlib.contextmanager
def _hooked(hooks: Iterator[Any]) -> Iterator[None]:
    held = list(hooks)
    try:
        yield
    finally:
        for hook in held:
            hook.remove()


def residual_network(tower: nn.Module, layers: int | None) -> Opening:
    """CLIP's ModifiedResNet (attention pooling), and timm's and torchvision's ResNets (average pooling)."""
    return Opening([getattr(tower, f"layer{k}") for k in (1, 2, 3, 4)], layers=layers)


def token_network(blocks: Sequence[nn.Module], prefix: int, layers: int | None) -> Opening:
    """ViTs that pool all tokens, by an attention (SigLIP) or by their mean; by default after the last block."""
    return Opening(list(blocks), prefix=prefix, layers=0 if layers is None else layers)


def class_token_network(
    blocks: Sequence[nn.Module], names: tuple[str, str], prefix: int, layers: int | None
) -> Opening:
    """ViTs whose class token is read (CLIP): direct effects of the last attentions.

    What the attention of a block takes from a token is written to the class token; the share of it that reaches the
    output by the residual stream alone is the token's direct effect (Gandelsman et al. 2024, arXiv 2310.05916).
    """
    return Opening(blocks=[(getattr(b, names[0]), getattr(b, names[1])) for b in blocks], prefix=prefix, layers=layers)


def open_clip_tower(visual: Any, layers: int | None) -> Opening | None:
    """An image tower of open_clip: ModifiedResNet, VisionTransformer, or one of timm; None for any other."""
    if hasattr(visual, "attnpool"):
        return residual_network(visual, layers)
    if hasattr(visual, "transformer"):
        blocks = visual.transformer.resblocks
        if visual.pool_type == "tok":
            return class_token_network(blocks, ("ln_1", "ln_2"), 1, layers)
        return token_network(blocks, 1, layers)
    trunk: Any = getattr(visual, "trunk", None)
    if hasattr(trunk, "layer4"):
        return residual_network(trunk, layers)
    if hasattr(trunk, "stages"):
        return Opening(list(trunk.stages), layers=layers)
    if hasattr(trunk, "num_prefix_tokens"):
        prefix = trunk.num_prefix_tokens
        if trunk.global_pool == "token":
            return class_token_network(trunk.blocks, ("norm1", "norm2"), prefix, layers)
        return token_network(trunk.blocks, prefix, layers)
    return None


def transformers_tower(vision: Any, kind: str, layers: int | None) -> Opening:
    """An image tower of transformers, of the model type `kind`."""
    if kind == "align":  # an EfficientNet and its mean
        return Opening(list(vision.encoder.blocks), layers=layers)
    if kind in ("siglip", "siglip2"):
        return token_network(vision.encoder.layers, 0, layers)
    return class_token_network(vision.encoder.layers, ("layer_norm1", "layer_norm2"), 1, layers)
