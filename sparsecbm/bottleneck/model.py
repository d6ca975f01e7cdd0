"""The trainable bottleneck (layer, gate, head) and the frozen one that is kept, saved and used."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecbm._base.devices import inference_device
from sparsecbm.bottleneck._sparse_linear import few_nonzeros, sparse_linear
from sparsecbm.bottleneck.gates import Gate, make_gate
from sparsecbm.bottleneck.layer import ConceptBottleneckLayer, PublishedBottleneckLayer
from sparsecbm.bottleneck.rows import Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ROWS = 2048  # rows at a time at inference: bounds memory at rows x M floats


class ConceptBottleneck(nn.Module):
    """Embedding -> units -> activations -> class logits, for training.

    Parameters
    ----------
    layer : ConceptBottleneckLayer or PublishedBottleneckLayer
        Maps embeddings to units.
    gate : Gate
        Maps units to activations.
    n_classes : int
        K.
    head_generator : torch.Generator or None
        None: the head has intercepts and starts at zero. A generator: the published head, without intercepts and with
        PyTorch's default initial weights, uniform within 1 / sqrt(M).
    """

    support: Tensor

    def __init__(
        self,
        layer: ConceptBottleneckLayer | PublishedBottleneckLayer,
        gate: Gate,
        n_classes: int,
        head_generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.gate = gate
        # skip_init: PyTorch's global generator stays as it was.
        self.head = nn.utils.skip_init(nn.Linear, gate.n_concepts, n_classes, bias=head_generator is None)
        with torch.no_grad():
            if head_generator is None:
                self.head.weight.zero_()
                self.head.bias.zero_()
            else:
                bound = gate.n_concepts**-0.5
                nn.init.uniform_(self.head.weight, -bound, bound, generator=head_generator)
        self.register_buffer("support", torch.ones_like(self.head.weight, requires_grad=False))

    @torch.no_grad()
    def decide_by(self, weight: Tensor, bias: Tensor) -> None:
        """Go on with a head (K, M), (K,) of few weights: only these train, and concepts without any are silent."""
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)
        self.support.copy_(weight.ne(0))
        self.gate.silence(~self.support.any(0))

    def head_weight(self) -> Tensor:
        """Weights (K, M) of the head, zero off its support."""
        return self.head.weight * self.support

    def forward(
        self, x: Tensor, temperature: float, input_noise: Tensor | None = None, gate_noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (units, activations, logits) of embeddings (n, d) in training mode."""
        units = self.layer(x, input_noise)
        activations = self.gate.relax(units, temperature, gate_noise)
        return units, activations, self.logits(activations)

    def logits(self, activations: Tensor) -> Tensor:
        """Class logits (n, K) of activations (n, M)."""
        weight, k = self.head_weight(), getattr(self.gate, "max_active_concepts", None)
        if k is not None and few_nonzeros(activations, weight, k):
            return sparse_linear(activations, weight, self.head.bias, k)
        return F.linear(activations, weight, self.head.bias)


@dataclass
class FrozenBottleneck:
    """A trained bottleneck at inference: an affine map and a gate. Nothing random, nothing relaxed.

    Attributes
    ----------
    weight : Tensor of shape (M, d), float32
        units = x @ weight.T + bias.
    bias : Tensor of shape (M,), float32
    gate : Gate
        In evaluation mode.
    device : str
        Where to compute, if it is there; what is held lies on the CPU.
    """

    weight: Tensor
    bias: Tensor
    gate: Gate
    device: str = "cpu"

    @classmethod
    def freeze(cls, model: ConceptBottleneck) -> FrozenBottleneck:
        """Fold a trained model's layer into one affine map and take its gate."""
        weight, bias = (part.cpu().contiguous() for part in model.layer.fold())
        return cls(weight, bias, model.gate, str(model.head.weight.device)).copy()

    def copy(self, max_active_concepts: int | None = None) -> FrozenBottleneck:
        """The same with a gate of its own; with another limit, where one is given and the gate has one."""
        options = self.gate.options()
        if max_active_concepts is not None and "max_active_concepts" in options:
            options["max_active_concepts"] = max_active_concepts
        gate = make_gate(self.gate.name, self.gate.n_concepts, options)
        gate.load_state_dict(self.gate.state_dict())
        return replace(self, gate=gate.cpu().eval().requires_grad_(False))

    def select(self, kept: np.ndarray) -> FrozenBottleneck:
        """The same with these concepts alone, of which at most as many can be active as before."""
        index, n = torch.from_numpy(kept), len(self.weight)
        options = self.gate.options()
        limit = options.get("max_active_concepts")
        if isinstance(limit, int):
            options["max_active_concepts"] = min(limit, len(kept))
        gate = make_gate(self.gate.name, len(kept), options)
        state = self.gate.state_dict()
        gate.load_state_dict({key: value[index] if value.shape[:1] == (n,) else value for key, value in state.items()})
        gate = gate.cpu().eval().requires_grad_(False)
        return replace(self, weight=self.weight[index], bias=self.bias[index], gate=gate)

    def spread(self, weight: np.ndarray, bias: np.ndarray, kept: np.ndarray) -> FrozenBottleneck:
        """The same among more concepts: the numbers `kept` are its own, others are given (M, d), (M,), and silent."""
        index = torch.from_numpy(kept)
        weights, biases = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
        weights[index], biases[index] = self.weight, self.bias
        gate = self.gate.spread(len(weights), index)
        return replace(self, weight=weights, bias=biases, gate=gate.eval().requires_grad_(False))

    @torch.inference_mode()
    def units(self, X: np.ndarray | Rows) -> np.ndarray:
        """Units (n, M), float32, before selection."""
        return self._rows(X, None)

    @torch.inference_mode()
    def activations(self, X: np.ndarray | Rows) -> np.ndarray:
        """Activations (n, M), float32, exactly zero where a concept is inactive."""
        return self._rows(X, self.gate)

    @torch.inference_mode()
    def sparse_activations(self, X: np.ndarray | Rows) -> csr_matrix:
        """Activations as a sparse matrix (n, M) of float32; the dense one is never made."""
        from scipy.sparse import csr_matrix

        blocks = [csr_matrix(block) for block in self._blocks(X, self.gate)]
        pointers = np.concatenate([[0], *(np.diff(block.indptr) for block in blocks)]).cumsum()
        data, columns = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("data", "indices"))
        return csr_matrix((data, columns, pointers), (len(X), len(self.weight)))

    def _rows(self, X: np.ndarray | Rows, gate: Gate | None) -> np.ndarray:
        result = np.empty((len(X), len(self.weight)), dtype=np.float32)
        for number, block in enumerate(self._blocks(X, gate)):
            result[number * _ROWS : (number + 1) * _ROWS] = block
        return result

    def _blocks(self, X: np.ndarray | Rows, gate: Gate | None) -> Iterator[np.ndarray]:
        device = inference_device(self.device)
        weight, bias = (part.to(device, torch.float64) for part in (self.weight, self.bias))
        if gate is not None and device.type != "cpu":
            gate = copy.deepcopy(gate).to(device)
        for start in range(0, len(X), _ROWS):
            # In float64, then rounded: the order of sums differs with the number of rows, and what is equal (a concept
            # that is there twice) must stay equal, or the gate would choose by the batch.
            rows = torch.from_numpy(np.array(X[start : start + _ROWS], dtype=np.float32)).to(device).double()
            units = torch.addmm(bias, rows, weight.T).float()
            yield (units if gate is None else gate(units)).cpu().numpy()

    def tensors(self) -> dict[str, Tensor]:
        """All arrays by name, for saving."""
        return {
            "bottleneck.weight": self.weight,
            "bottleneck.bias": self.bias,
            **{f"gate.{name}": value for name, value in self.gate.state_dict().items()},
        }

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], gate_name: str, gate_options: dict[str, object]
    ) -> FrozenBottleneck:
        """Inverse of `tensors`; raises KeyError or RuntimeError if an array is missing or has the wrong shape."""
        weight = tensors["bottleneck.weight"]
        gate = make_gate(gate_name, len(weight), gate_options)
        state = {name.removeprefix("gate."): value for name, value in tensors.items() if name.startswith("gate.")}
        gate.load_state_dict(state)
        return cls(weight, tensors["bottleneck.bias"], gate.eval().requires_grad_(False))
