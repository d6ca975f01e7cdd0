"""Low-rank adapters on the image tower of an encoder, trained through a concept bottleneck; the texts stay as they are.

    loss = CE(W psi + b, class) + concept_weight * L(psi),    psi_j = (cos(x, c_j) - mean_j) / scale_j

x is the tower's embedding of the pixels, mean and scale those of the frozen encoder. L is the binary cross-entropy of
concept labels (logit a psi_j + b_j) where there are some; else the squared distance from the frozen encoder's psi, so
that what concepts mean stays what it was. The adapters (LoRA, Hu et al. 2022, arXiv 2106.09685) are then added into the
weights: the result is an ordinary encoder with a fingerprint of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm._base.parameters import Count, NonNegative, Positive, check_fields
from sparsecbm._base.training import TrainingLoop
from sparsecbm.encoders.base import Encoder, _rgb


@dataclass(frozen=True)
class AdaptOptions:
    """Options of `adapt`.

    Parameters
    ----------
    rank : int
        Of each adapter.
    max_iter, batch_size : int
        Optimizer steps; pictures a step.
    learning_rate : float
        Of AdamW; the head takes three times it.
    concept_weight : float
        Weight of the concept loss.
    mixed_precision : {"no", "fp16", "bf16"}
        Accelerate's autocast.
    checkpoint_every : int
        Optimizer steps between checkpoints.
    """

    rank: Count = 8
    max_iter: Count = 300
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    concept_weight: NonNegative = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Count = 50
    early_stopping: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)


def adapt(
    encoder: Encoder,
    images: Sequence[Any],
    labels: ArrayLike,
    concepts: NDArray[Any],
    frozen: NDArray[Any],
    *,
    concept_labels: ArrayLike | None = None,
    options: AdaptOptions | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint_dir: str | Path | None = None,
    progress: bool | None = None,
) -> list[dict[str, float]]:
    """Adapt the image tower of `encoder` in place; return the history.

    Parameters
    ----------
    encoder : Encoder
        Of open_clip or transformers, or the bundled one.
    images : sequence of pictures, length n
    labels : array-like of int, shape (n,)
        Class numbers from 0.
    concepts : ndarray of shape (M, d)
        Text embeddings.
    frozen : ndarray of shape (n, d)
        The pictures' embeddings by `encoder` as it is.
    concept_labels : array-like of shape (n, M), optional
        1 where a picture shows a concept, 0 where not, NaN where nobody knows.
    options : AdaptOptions, optional
    seed, device, checkpoint_dir, progress
        See `TrainingLoop`.

    Raises
    ------
    InputError
        If peft is not installed, the tower has nothing to adapt, shapes do not fit, or training diverges.
    """
    y, given = np.asarray(labels, dtype=np.int64), options or AdaptOptions()
    C, x = (torch.tensor(np.asarray(rows, dtype=np.float32)) for rows in (concepts, frozen))
    if len(images) != len(x) or y.shape != (len(x),):
        raise InputError(f"{len(images)} pictures, {len(x)} embeddings, labels {y.shape}: expected one for each")
    psi = x @ C.T
    mean, scale = psi.mean(0), psi.std(0).clamp_min(1e-6)
    target = (psi - mean) / scale
    if concept_labels is not None:
        target = torch.tensor(np.asarray(concept_labels, dtype=np.float32))
        if target.shape != psi.shape:
            raise InputError(f"concept_labels have shape {tuple(target.shape)}: expected {tuple(psi.shape)}")
    tower, layers = _tower(encoder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = _with_adapters(tower, layers, given.rank)
    model = _Bottleneck(encoder, C, mean, scale, int(y.max()) + 1)
    loop = _AdaptLoop(
        model, images, y, target, concept_labels is not None, given, seed, device, checkpoint_dir, progress
    )
    try:
        loop.run()
    finally:
        wrapped.merge_and_unload()
        encoder.model.to(encoder.device).requires_grad_(False)
    return loop.history


def save_encoder(encoder: Encoder, folder: Path) -> str:
    """Write an encoder into a folder, as its library does; return its kind of spec, to be followed by the folder."""
    from sparsecbm.encoders.open_clip import OpenClipEncoder
    from sparsecbm.encoders.transformers import TransformersEncoder

    inner: Any = getattr(encoder, "_whole", encoder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(inner, OpenClipEncoder):
        described = {"model_cfg": inner._model_cfg, "preprocess_cfg": inner.model.visual.preprocess_cfg}
        (folder / "open_clip_config.json").write_text(json.dumps(described, default=list), encoding="utf-8")
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in inner.model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")
        if hasattr(inner.tokenizer, "tokenizer"):
            inner.tokenizer.tokenizer.save_pretrained(folder)
        return "open_clip:local-dir:"
    if isinstance(inner, TransformersEncoder):
        for part in (inner.model, inner.image_processor, inner.tokenizer):
            part.save_pretrained(folder)
        return "transformers:"
    raise InputError(f"encoder {encoder.spec!r} is of neither open_clip nor transformers: it cannot be saved")


def _tower(encoder: Encoder) -> tuple[Any, list[str]]:
    """Image tower, and the names in it of the layers that take adapters."""
    model: Any = encoder.model
    tower = getattr(model, "visual", None) or getattr(model, "vision_model", None)
    names = [] if tower is None else list(_layers(tower))
    if not names:
        raise InputError(f"encoder {encoder.spec!r} has no image tower with layers to adapt")
    return tower, names


def _layers(tower: nn.Module) -> Iterator[str]:
    """Linear layers and whole convolutions, but those whose weights are read around their forward pass (attention)."""
    read_around = tuple(
        f"{name}."
        for name, part in tower.named_modules()
        if isinstance(part, nn.MultiheadAttention) or "attnpool" in name
    )
    for name, part in tower.named_modules():
        whole = isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
        if whole and not name.startswith(read_around):
            yield name


def _with_adapters(tower: nn.Module, layers: list[str], rank: int) -> Any:
    require("peft", "adapt", "adapting an encoder")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    return get_peft_model(tower, config)  # type: ignore[arg-type]  # any module will do


class _Bottleneck(nn.Module):
    """Pixels to standardised concept scores and class scores."""

    def __init__(self, encoder: Encoder, concepts: Tensor, mean: Tensor, scale: Tensor, n_classes: int) -> None:
        super().__init__()
        self.tower, self.encoder = encoder.model, encoder
        for name, value in (("concepts", concepts), ("mean", mean), ("scale", scale)):
            self.register_buffer(name, value)
        self.head = nn.Linear(len(concepts), n_classes)
        self.slope, self.intercept = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(len(concepts)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x = F.normalize(self.encoder._image_features(inputs).float(), dim=1)
        psi = (x @ self.concepts.T - self.mean) / self.scale  # type: ignore[operator]  # buffers
        return psi, self.head(psi), self.slope * psi + self.intercept

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What is trained: the frozen weights are no part of a checkpoint."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Take over what `state_dict` gave."""
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name in state_dict:
                    value.copy_(state_dict[name])


class _AdaptLoop(TrainingLoop):
    def __init__(
        self,
        model: _Bottleneck,
        images: Sequence[Any],
        labels: NDArray[np.int64],
        target: Tensor,
        labelled: bool,
        options: AdaptOptions,
        seed: int,
        device: str,
        checkpoint_dir: str | Path | None,
        progress: bool | None,
    ) -> None:
        self._inputs_of, self.images, self.labels = model.encoder._image_inputs, images, labels
        self.target, self.labelled = target, labelled
        adapters = [p for name, p in model.named_parameters() if p.requires_grad and name.startswith("tower.")]
        others = [*model.head.parameters(), model.slope, model.intercept]
        groups = [
            {"params": adapters, "lr": options.learning_rate},
            {"params": others, "lr": 3 * options.learning_rate},
        ]
        super().__init__(
            model,
            options,
            lambda fused: torch.optim.AdamW(groups, weight_decay=0.0),
            seed=seed,
            device=device,
            checkpoint_dir=checkpoint_dir,
            progress=progress,
        )

    def run(self) -> None:
        """Train."""
        weights = {name: value.cpu() for name, value in self.module.state_dict().items()}
        job = fingerprint(asdict(self.options), self.seed, self.labels, self.target, *weights.values())
        note = lambda record: f"loss {record['loss']:.3f}"  # noqa: E731
        self._loop(job, self.options.max_iter, self._one, self._look, note, project="sparsecbm-adapt")

    def _look(self, record: dict[str, float]) -> bool:
        every = max(1, self.options.max_iter // 20)
        if self._step % every == 0 or self._step == self.options.max_iter:
            self._enter({"step": self._step, **self._mean_over_processes(record)})
        return False

    def _one(self) -> dict[str, float]:
        n, world, device = len(self.labels), self.accelerator.num_processes, self.accelerator.device
        size = min(self.options.batch_size, n)
        epoch, place = divmod(self._step, -(-n // size))
        rows = self._epoch(epoch, n)[place * size : (place + 1) * size]
        total, mine = len(rows), rows[self._mine(len(rows))]
        if not len(mine):  # a process without rows takes part all the same
            mine, share = rows[:1], 0.0
        else:
            share = world / total
        pictures = self._inputs_of(_rgb((self.images[i] for i in mine.tolist()), mine.tolist()))
        inputs = {name: value.to(device) for name, value in pictures.items()}
        labels, target = torch.from_numpy(self.labels[mine]).to(device), self.target[mine].to(device)
        with self.accelerator.autocast():
            psi, scores, told = self.wrapped(inputs)
        entropy = F.cross_entropy(scores.float(), labels, reduction="sum") * share
        if self.labelled:
            known = ~target.isnan()
            each = F.binary_cross_entropy_with_logits(told.float(), target.nan_to_num(), reduction="none") * known
            concept = (each.sum(1) / known.sum(1).clamp_min(1)).sum() * share
        else:
            concept = (psi.float() - target).square().mean(1).sum() * share + 0.0 * told.sum()
        loss = self._finite(entropy + self.options.concept_weight * concept)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        parts = {"loss": loss, "cross_entropy": entropy, "concept_loss": concept}
        return {name: float(value.detach()) for name, value in parts.items()}
