"""What the trainer asks of a task: noise for a whole batch, a loss on some of its rows, a score on held-out data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["StepContext", "Task"]


@dataclass(frozen=True)
class StepContext:
    """Where training stands.

    Attributes
    ----------
    temperature : float
        Of the relaxation.
    beta : float
        Weight of the KL term (warm-up).
    scale : float
        What a sum over this process's rows is multiplied with to give, averaged over processes, the batch's mean.
    """

    temperature: float
    beta: float
    scale: float


def _plain_options(part: nn.Module) -> dict[str, Any]:
    plain = (bool, int, float, str)
    return {
        key: value
        for key, value in vars(part).items()
        if not key.startswith("_") and key != "training"
        if isinstance(value, plain) or (isinstance(value, (list, tuple)) and all(isinstance(v, plain) for v in value))
    }


class Task(nn.Module):
    """A model with its objective, in training. Everything that training carries on lies in ``state_dict()``."""

    @abstractmethod
    def draw(self, rows: int, *, generator: torch.Generator, like: Tensor) -> dict[str, Tensor]:
        """Draw the noise of a batch of `rows`; in each tensor the rows are the dimension before the last.

        Every process draws the whole batch's noise and takes its own rows, but all of what has a name in "shared_...".
        """

    @abstractmethod
    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, and a record of means over the batch (scaled as the loss is)."""

    @abstractmethod
    def validate(self, data: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, float]:
        """Measure held-out data with hard samples; ``score``, higher is better, is what early stopping watches."""

    def description(self) -> list[Any]:
        """What the task is made of, down to plain options, as JSON values: a checkpoint belongs to exactly this."""
        return [[name, type(part).__qualname__, _plain_options(part)] for name, part in self.named_modules()]

    def nats(self, record: Mapping[str, float]) -> float:
        """Return the figure that the progress bar shows, from a record."""
        return record["bound"]

    def settle(self, entry: dict[str, float], generator: torch.Generator) -> None:
        """Complete a history entry by what is dear to compute, such as log Z."""
