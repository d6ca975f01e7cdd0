"""The run of `sparsecbm compare`: published methods on the same embeddings, splits, budgets and controls."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.files import plain, write_json, write_text
from sparsecbm._base.parts import METHODS
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import evenly_spaced
from sparsecbm.config.schema import RunConfig
from sparsecbm.inputs.data import Inputs, prepare
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import output_folder, publish

if TYPE_CHECKING:
    from sparsecbm._base.checkpoint import Steps

RESULTS = ("compare.html", "compare.png", "compare.json")
KEPT = "compare-checkpoint"
"""Folder of finished fits: a call that was stopped, or asks for more methods or seeds, goes on from them."""
NO_CONCEPTS = ("linear_probe", "nearest_mean", "zero_shot", "descriptions")
"""Baselines without a budget of concepts."""
_MEASURED = 10_000


@dataclass(frozen=True)
class CompareResult(Result):
    """What `compare_run` found.

    Attributes
    ----------
    output : Path
        Folder with ``compare.json``, ``compare.png`` and ``compare.html``.
    rows : tuple of dict
        For each method and budget: ``method``, ``nec`` (asked), means over seeds of ``accuracy``, ``weights`` (a
        class), ``active`` (concepts with a weight that are not zero in a picture), ``used`` (in its decision),
        ``survival``, ``plausibility``, ``seconds`` (of CPU) and ``megabytes`` of fitting all budgets; ``sd`` of the
        accuracy; with the control ``meaningless`` (its accuracy), ``advantage``, ``low`` and ``high``; ``anec``, the
        mean accuracy over the budgets.
    skipped : dict of str to str
        Methods that were not run, and why.
    n_images : int
        Test pictures.
    split : str
    seeds : int
    seconds : float
    """

    output: Path
    rows: tuple[dict[str, Any], ...]
    skipped: dict[str, str]
    n_images: int
    split: str
    seeds: int
    seconds: float


def compare_run(
    config: RunConfig,
    *,
    methods: Sequence[str] | None = None,
    nec: Sequence[int] = (5,),
    seeds: int = 1,
    control: bool = True,
) -> CompareResult:
    """Fit every method for every budget, and the same on as many meaningless directions.

    Parameters
    ----------
    config : RunConfig
        Its data, concepts and seed; `config.model` takes no part.
    methods : sequence of str, optional
        Names in `sparsecbm._base.parts.METHODS` and `NO_CONCEPTS`; None: all.
    nec : sequence of int
        Concepts a class.
    seeds : int
        Fits of each method, each beside one draw of meaningless directions (through the method's own recipe).
    control : bool
        Whether to fit the meaningless directions.

    Raises
    ------
    InputError
        If a method is unknown, or there are no labelled pictures to measure on.
    """
    from sparsecbm import __version__
    from sparsecbm._base.checkpoint import Steps

    start = time.perf_counter()
    names = list(methods or (*METHODS, *NO_CONCEPTS))
    for name in names:
        if name not in NO_CONCEPTS:
            try:
                METHODS.check(name)
            except InputError as error:
                raise unknown("method", name, (*METHODS, *NO_CONCEPTS)) from error
    budgets = sorted(set(nec))
    output = Path(config.output or Path("runs") / f"{config.name}-compare")
    with output_folder(output, RESULTS, lambda folder: (folder / KEPT).is_dir()):
        inputs = prepare(config)
        trial = _Trial.of(inputs)
        steps = Steps(output / KEPT, __version__, trial.X, trial.y, trial.X_test, trial.y_test, trial.bank)
        with ProgressBar("methods", len(names) * seeds) as bar:
            for name in names:
                for seed in range(config.seed, config.seed + seeds):
                    bar.update(0, name)
                    trial.run(steps, name, seed, budgets, control)
                    bar.update(1)
        rows = trial.rows(budgets)
        made = (output, rows, trial.skipped, len(trial.y_test), trial.split, seeds, time.perf_counter() - start)
        result = CompareResult(*made)
        publish(output, RESULTS, lambda folder: _write(folder, config.name, result, inputs.notes))
    return result


@dataclass
class _Trial:
    """Data, and what the fits left."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    bank: np.ndarray
    inputs: Inputs
    split: str
    found: dict[str, list[dict[str, Any]]]
    skipped: dict[str, str]

    @classmethod
    def of(cls, inputs: Inputs) -> _Trial:
        usable = (name for name in ("test", "validation") if name in inputs.splits)
        split = next((name for name in usable if inputs.splits[name].labels is not None), None)
        if split is None:
            raise InputError("methods are compared on test or validation pictures with labels: there are none")
        parts = [inputs.splits["train"], inputs.splits[split]]
        vectors = [np.array(part.vectors, dtype=np.float32) for part in parts]
        labels = [np.asarray(part.labels) for part in parts]
        return cls(vectors[0], labels[0], vectors[1], labels[1], inputs.bank.vectors, inputs, split, {}, {})

    def run(self, steps: Steps, name: str, seed: int, budgets: list[int], control: bool) -> None:
        if name in NO_CONCEPTS:
            fit = self._bare(name)
            if fit is not None and name not in self.found:
                self.found[name] = [steps.result(name, lambda: self._measure(lambda: [fit()]))]
            return
        if name in self.found and not getattr(METHODS.find(name), "draws", True):
            found = self.found[name][0]
        else:
            found = steps.result(f"{name}-{seed}", lambda: self._fit(name, seed, budgets), budgets)
        if control:
            rng = np.random.default_rng(seed)
            drawn = matched_directions(self.bank, rng).astype(np.float32)

            def meaningless() -> dict[str, Any]:
                return {"right": np.stack([self._right(m) for m in self._models(name, drawn, None, seed, budgets)])}

            found = {**found, "meaningless": steps.result(f"{name}-{seed}-drawn", meaningless, budgets)["right"]}
        self.found.setdefault(name, []).append(found)

    def _models(self, name: str, bank: np.ndarray, names: list[str] | None, seed: int, budgets: list[int]) -> list[Any]:
        model = METHODS.find(name)(bank, names, concepts_per_class=budgets[0], random_state=seed)
        if "verbose" in model.get_params(deep=False):
            model.set_params(verbose=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of meaningless directions, mostly; the table says it
            model.fit(self.X, self.y)
            rest = budgets[1:]
            if rest and hasattr(model, "budgets"):
                return [model, *model.budgets(self.X, self.y, rest)]
            return [model, *(model.refit(self.X, self.y, concepts_per_class=k) for k in rest)]

    def _fit(self, name: str, seed: int, budgets: list[int]) -> dict[str, Any]:
        return self._measure(lambda: self._models(name, self.bank, list(self.inputs.bank.names), seed, budgets))

    def _bare(self, name: str) -> Callable[[], Any] | None:
        """Fit of a baseline without a budget; None where it cannot be had."""
        from sklearn.neighbors import NearestCentroid

        from sparsecbm.estimators import DescriptionClassifier, LinearProbe, ZeroShotClassifier

        texts, relevance = self.inputs.class_texts, self.inputs.bank.relevance
        if name == "linear_probe":
            return lambda: LinearProbe().fit(self.X, self.y)
        if name == "nearest_mean":
            return lambda: NearestCentroid().fit(self.X, self.y)
        if name == "zero_shot" and texts is not None:
            return lambda: ZeroShotClassifier().fit(texts)
        if name == "descriptions" and relevance is not None and (relevance > 0).any(axis=1).all():
            return lambda: DescriptionClassifier().fit([self.bank[row > 0] for row in relevance])
        needed = {"zero_shot": "texts of the classes", "descriptions": "a concept file that says whose concepts it has"}
        self.skipped[name] = f"it needs {needed[name]}"
        return None

    def _right(self, model: Any) -> np.ndarray:
        return (np.asarray(model.predict(self.X_test)) == self.y_test).astype(np.uint8)

    def _measure(self, fit: Callable[[], list[Any]]) -> dict[str, Any]:
        """What fitting a model a budget costs, its hits (budgets, n) and, where it has concepts, what they do."""
        with _peak() as used:
            start = time.process_time()
            models = fit()
            seconds = time.process_time() - start
        told = [self._concepts(model) for model in models if hasattr(model, "head_weights_")]
        right = np.stack([self._right(model) for model in models])
        return {"right": right, "told": told, "seconds": seconds, "megabytes": used[0]}

    def _concepts(self, model: Any) -> dict[str, Any]:
        from sparsecbm.evaluation import plausibility, survival, used_in_decision

        X = self.X_test[evenly_spaced(len(self.X_test), _MEASURED)]
        A, W, rows = model.transform(X), model.head_weights_, model.concept_embeddings_
        weighed = (W != 0).any(axis=0)
        predicted = np.searchsorted(model.classes_, model.predict(X))
        told: dict[str, Any] = {
            "weights": float(np.count_nonzero(W) / len(W)),
            "active": float((A[:, weighed] != 0).sum(axis=1).mean()),
            "used": used_in_decision(A, W, predicted).mean,
            "survival": None,
            "plausibility": None,
        }
        if weighed.any():
            told["survival"] = survival(model.units(X)[:, weighed], X @ rows[weighed].T).mean
        if self.inputs.class_texts is not None:
            found = plausibility(A, W, predicted, self.inputs.class_texts[model.classes_], rows)
            told["plausibility"] = found if np.isfinite(found) else None
        return told

    def rows(self, budgets: list[int]) -> tuple[dict[str, Any], ...]:
        """Means over seeds, a row for each method and budget, the most accurate first."""
        from sparsecbm.evaluation import paired_difference

        rows = []
        for name, runs in self.found.items():
            asked: list[int | None] = [None] if name in NO_CONCEPTS else list(budgets)
            for place, k in enumerate(asked):
                right = np.stack([run["right"][place] for run in runs]).astype(float)
                row: dict[str, Any] = {"method": name, "nec": k, "accuracy": float(right.mean())}
                row["sd"] = float(right.mean(axis=1).std(ddof=1)) if len(runs) > 1 else None
                told = [run["told"][place] for run in runs if run["told"]]
                for key in ("weights", "active", "used", "survival", "plausibility"):
                    known = [of[key] for of in told if of[key] is not None]
                    row[key] = float(np.mean(known)) if known else None
                row.update({key: float(np.mean([run[key] for run in runs])) for key in ("seconds", "megabytes")})
                row.update(dict.fromkeys(("meaningless", "advantage", "low", "high", "anec")))
                drawn = [run["meaningless"][place] for run in runs if "meaningless" in run]
                if drawn:
                    gap = paired_difference(right.mean(axis=0), drawn)
                    row["meaningless"] = float(np.mean(drawn))
                    row.update(advantage=gap["difference"], low=gap["low"], high=gap["high"])
                if k is not None and len(budgets) > 1:
                    row["anec"] = float(np.mean([run["right"].mean() for run in runs]))
                rows.append(row)
        return tuple(sorted(rows, key=lambda row: (row["nec"] is None, row["nec"] or 0, -row["accuracy"])))


@contextlib.contextmanager
def _peak() -> Iterator[list[float]]:
    """Megabytes of memory that the body took at most beyond what was held before, looked at every 5 ms."""
    import psutil

    process, used, done = psutil.Process(), [0.0], threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not done.wait(0.005):
            used[0] = max(used[0], (process.memory_info().rss - before) / 2**20)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        done.set()
        thread.join()


def _write(folder: Path, title: str, result: CompareResult, notes: Sequence[str]) -> None:
    from sparsecbm.explain.compare_plot import plot_methods
    from sparsecbm.explain.pages.compare_page import ComparePage

    figure = plot_methods(result.rows, title=f"{title}: {result.n_images:,} {result.split} pictures")
    figure.savefig(folder / "compare.png", format="png", dpi=130)
    page = ComparePage(
        title=f"{title}: methods under one protocol",
        summary=f"Accuracy on {result.n_images:,} {result.split} pictures, fits of each: {result.seeds}; the same "
        "embeddings, concepts, budgets and control for all.",
        rows=result.rows,
        notes=notes,
        picture=(folder / "compare.png").read_bytes(),
        facts={name: f"left out: {why}" for name, why in result.skipped.items()},
    )
    write_text(folder / "compare.html", page.render())
    write_json(folder / "compare.json", plain(result.to_json()))
