"""The run of `sparsecbm frontier`: what every number of concepts reaches, and training the point that was picked."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm._base.files import plain, write_json
from sparsecbm.config.schema import RunConfig
from sparsecbm.inputs.data import prepare
from sparsecbm.runs.folders import output_folder, publish
from sparsecbm.runs.train import TrainResult, make_recipe, train_run

if TYPE_CHECKING:
    from sparsecbm.estimators.frontier import Frontier

RESULTS = ("frontier.png", "frontier.json")
KEPT = "frontier-checkpoint"
"""Folder of finished fits and points: asking for more points, or picking one, costs no fit again."""
_PARTS = {"nec": "concepts_per_class", "active": "max_active_concepts", "tie": "tie"}


@dataclass(frozen=True, eq=False)
class FrontierResult:
    """What `frontier_run` found.

    Attributes
    ----------
    output : Path
        Folder with ``frontier.json`` and ``frontier.png``, and, once a point was picked, what `train_run` writes.
    frontier : Frontier
    split : str
        Pictures it was measured on: validation where there are some, else test.
    seconds : float
        Wall time.
    picked : dict or None
        The point that was trained.
    trained : TrainResult or None
    """

    output: Path
    frontier: Frontier
    split: str
    seconds: float
    picked: dict[str, Any] | None = None
    trained: TrainResult | None = None

    @property
    def plot(self) -> Path:
        """The picture to choose from."""
        return self.output / "frontier.png"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(
            {
                "output": self.output,
                "plot": self.plot,
                "split": self.split,
                **self.frontier.to_json(),
                "picked": self.picked,
                "trained": None if self.trained is None else self.trained.to_json(),
                "seconds": self.seconds,
            }
        )


def frontier_run(
    config: RunConfig,
    *,
    nec: Sequence[int] | None = None,
    active: Sequence[int] | None = None,
    ties: Sequence[str] | None = None,
    control: bool = True,
    pick: str | None = None,
) -> FrontierResult:
    """Measure every budget of a configuration's recipe, draw them, and train the one that is picked.

    Parameters
    ----------
    config : RunConfig
    nec, active : sequence of int, optional
        Concepts a class, and active concepts a picture; None: those of `SparseCBMClassifier.frontier`.
    ties : sequence of str, optional
        None: the configuration's own.
    control : bool
        Whether to train as many meaningless directions beside the concepts.
    pick : str, optional
        ``nec=5,active=8,tie=shared``: train that point on the same data and save it as `train_run` does; parts that are
        left out are the configuration's own.

    Returns
    -------
    FrontierResult

    Raises
    ------
    InputError
        If a budget or a tie is not one, or there are no labelled pictures to measure on.
    StoredFileError
        If the output folder cannot be written.
    """
    from sparsecbm.estimators.frontier import ACTIVE, NEC
    from sparsecbm.explain.frontier_plot import plot_frontier

    require("matplotlib", "plots", "the frontier is drawn")
    start = time.perf_counter()
    output = Path(config.output or Path("runs") / config.name)
    chosen = None if pick is None else parse_pick(pick, config)
    with output_folder(output, RESULTS, lambda folder: (folder / KEPT).is_dir()):
        inputs = prepare(config)
        split = next((name for name in ("validation", "test") if _labelled(inputs, name)), None)
        if split is None:
            raise InputError("a frontier is measured on validation or test pictures with labels: there are none")
        train, held = inputs.splits["train"], inputs.splits[split]
        recipe, _ = make_recipe(config, inputs)
        grid: dict[str, Any] = {
            "nec": tuple(nec or NEC),
            "active": tuple(active or ACTIVE),
            "ties": tuple(ties or (recipe.tie,)),
        }
        if chosen is not None:  # what is picked is on the page, whatever else is
            for name, key in (("nec", "nec"), ("active", "active"), ("ties", "tie")):
                grid[name] = tuple(dict.fromkeys((*grid[name], chosen[key])))
        found = recipe.frontier(
            train.vectors, np.asarray(train.labels), held.vectors, np.asarray(held.labels),
            **grid, control=control, checkpoint_dir=output / KEPT,
        )  # fmt: skip
        star = None if chosen is None else {**chosen, "accuracy": found.find(**chosen).accuracy}
        title = f"{config.name}: {len(held.vectors):,} {split} pictures; numbers at the lines: concepts a class"

        def write(folder: Path) -> None:
            figure = plot_frontier(found.table(), model=star, title=title)
            figure.savefig(folder / "frontier.png", format="png", dpi=150)
            write_json(folder / "frontier.json", plain({"split": split, **found.to_json(), "picked": chosen}))

        publish(output, RESULTS, write)
    trained = None
    if chosen is not None:
        model = config.model.model_copy(update={_PARTS[name]: value for name, value in chosen.items()})
        trained = train_run(config.model_copy(update={"model": model, "output": str(output)}))
    return FrontierResult(output, found, split, time.perf_counter() - start, chosen, trained)


def _labelled(inputs: Any, name: str) -> bool:
    held = inputs.splits.get(name)
    return held is not None and held.labels is not None and len(np.asarray(held.labels)) > 0


def parse_pick(text: str, config: RunConfig) -> dict[str, Any]:
    """Read ``nec=5,active=8,tie=shared``.

    Raises
    ------
    InputError
        If a part is none of these, or nobody says what it is.
    """
    found: dict[str, Any] = {name: getattr(config.model, key) for name, key in _PARTS.items()}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(nec|active|tie)\s*=\s*(\S+)\s*", part)
        if match is None or (match[1] != "tie" and not re.fullmatch(r"[1-9]\d{0,6}", match[2])):
            raise InputError(f"--pick {text!r}: {part.strip()!r} is none, expected such as nec=5,active=8,tie=shared")
        found[match[1]] = match[2] if match[1] == "tie" else int(match[2])
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise InputError(f"--pick {text!r} says nothing of {' and '.join(missing)}: expected nec=5,active=8,tie=shared")
    return found
