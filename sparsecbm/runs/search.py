"""`search_run`: classify without training, beside the same-embedding baselines, and show by which concepts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import plain, write_json, write_text
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import unit_rows
from sparsecbm.config.reading import dump_config
from sparsecbm.config.schema import SearchConfig
from sparsecbm.explain import Ledger, Ledgers
from sparsecbm.explain.ledger import EVERYTHING_ELSE
from sparsecbm.explain.pages.base import Figure, in_turns
from sparsecbm.explain.pages.search_page import MethodRow, SearchPage
from sparsecbm.inputs.data import Inputs, prepare_search
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import output_folder, publish
from sparsecbm.runs.report import large_picture

RESULTS = ("config.yaml", "search.html", "search.json")


@dataclass(frozen=True, eq=False)
class SearchResult(Result):
    """What `search_run` found.

    Attributes
    ----------
    output : Path
        Folder with ``search.html``, ``config.yaml`` and ``search.json``.
    metrics : dict
        The content of ``search.json``.
    examples : Ledgers
        Explained pictures.
    """

    output: Path
    metrics: dict[str, Any]
    examples: Ledgers

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.output / "search.html"

    @property
    def methods(self) -> list[MethodRow]:
        """The comparison, the search first."""
        return [MethodRow(**row) for row in self.metrics["methods"]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain({"output": self.output, "page": self.page, "metrics": self.metrics})


def search_run(config: SearchConfig) -> SearchResult:
    """Search, compare, explain, and write the results.

    Parameters
    ----------
    config : SearchConfig

    Returns
    -------
    SearchResult

    Raises
    ------
    InputError
        If the configuration asks for something that is not there or does not fit.
    StoredFileError
        If the output folder cannot be written or holds other files of these names.
    """
    output = Path(config.output or Path("runs") / config.name)
    with output_folder(output, RESULTS, lambda folder: (folder / "search.html").exists()):
        task = prepare_search(config)
        classes = _class_texts(config, task)
        model, row, predicted = _search(config, task, classes)
        # Each method that reads concepts also meets directions that differ from them in meaning nothing, and in that
        # alone.
        controls = list(_meaningless(task, config.seed)) if config.control and task.truth is not None else []
        advantage = None
        with ProgressBar("Comparing", len(config.baselines) + len(controls), None) as bar:
            found = []
            for control in controls:
                found.append(_search(config, control, classes)[2])
                bar.update(note="meaningless directions")
            if controls:
                advantage = _advantage(task, predicted, found)
                row = replace(row, meaningless=advantage["accuracy"])
            methods = [row]
            for name in config.baselines:
                row = _baseline(name, config, task, classes)
                if controls and name in READ_CONCEPTS:
                    row = replace(row, meaningless=_baseline(name, config, controls[0], classes).accuracy)
                methods.append(row)
                bar.update(note=name)
        ledgers = _explain(config, task, model, predicted)
        metrics = _metrics(config, task, methods, ledgers, advantage)
        page = _page(config, task, methods, ledgers, metrics)

        def write(folder: Path) -> None:
            write_text(folder / "search.html", page)
            write_text(folder / "config.yaml", dump_config(config))
            write_json(folder / "search.json", plain(metrics))

        publish(output, RESULTS, write)
    return SearchResult(output, plain(metrics), ledgers)


def _class_texts(config: SearchConfig, task: Inputs) -> list[NDArray[np.float32]] | NDArray[np.float32] | None:
    use = config.classes.use
    if use == "descriptions" and task.descriptions is None:
        raise InputError("classes.use: descriptions, but there are none: give classes.descriptions")
    if use == "names" and task.class_texts is None:
        raise InputError("classes.use: names, but there are no class texts: give embeddings.classes")
    texts = task.class_texts if use == "names" or task.descriptions is None else task.descriptions
    if texts is None and not config.few_shot:
        raise InputError(
            "nothing says what the classes are: give class texts (embeddings.classes) or few_shot labelled pictures"
        )
    return texts


def _meaningless(task: Inputs, seed: int) -> Iterator[Inputs]:
    """Yield the same task over directions with the concepts' mean and covariance, drawn a few times."""
    from sparsecbm.evaluation import matched_directions

    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        yield replace(task, bank=replace(task.bank, vectors=matched_directions(task.bank.vectors, rng)))


def _advantage(task: Inputs, predicted: NDArray[np.int64], drawn: Sequence[NDArray[np.int64]]) -> dict[str, float]:
    """What the concepts reach beyond meaningless directions, on the same pictures."""
    from sparsecbm.evaluation import paired_difference

    right = [(made == task.truth).astype(float) for made in drawn]
    gap = paired_difference((predicted == task.truth).astype(float), right)
    return {"accuracy": float(np.mean(right)), **{key: gap[key] for key in ("difference", "low", "high")}}


def _search(config: SearchConfig, task: Inputs, classes: Any) -> tuple[Any, MethodRow, NDArray[np.int64]]:
    from sparsecbm.estimators import ConceptMatrixSearch

    start = time.perf_counter()
    reference = task.reference if config.reference else None
    model = ConceptMatrixSearch(
        task.bank.vectors,
        list(task.bank.names),
        reference_embeddings=None if reference is None else np.asarray(reference.vectors),
        **config.search.model_dump(),
    )
    shots = None if config.few_shot is None else _few_shot(config, task)
    model.fit(classes, list(task.class_names), shots=shots)
    trained = f"{config.few_shot} labelled pictures a class" if config.few_shot else "no training"
    texts = "" if classes is None else (" and descriptions" if classes is task.descriptions else " and class names")
    note = f"{len(task.bank.names):,} concepts{texts}; {trained}"
    predicted = _predict(model, task)
    row = _row(f"concept matrix search ({config.search.similarity})", predicted, task, start, note)
    return model, replace(row, main=True), predicted


def _few_shot(config: SearchConfig, task: Inputs) -> tuple[NDArray[np.float32], NDArray[Any]]:
    reference = task.reference
    if reference is None or reference.labels is None:
        raise InputError("few_shot needs labelled pictures: give a train split with labels")
    rng = np.random.default_rng(config.seed)
    labels = np.asarray(reference.labels)
    rows: list[int] = []
    for k, name in enumerate(task.class_names):
        own = np.flatnonzero(labels == k)
        if len(own) < (config.few_shot or 1):
            raise InputError(f"few_shot={config.few_shot}, but class {name!r} has {len(own)} training pictures")
        rows += rng.choice(own, config.few_shot, replace=False).tolist()
    return np.asarray(reference.vectors[rows]), np.asarray(task.class_names)[labels[rows]]


def _predict(model: Any, task: Inputs) -> NDArray[np.int64]:
    return _indices(model.predict(np.asarray(task.pictures.vectors)), task.class_names)


def _indices(names: Any, class_names: Sequence[str]) -> NDArray[np.int64]:
    position = {name: k for k, name in enumerate(class_names)}
    return np.array([position[str(name)] for name in names], dtype=np.int64)


def _row(name: str, predicted: NDArray[np.int64], task: Inputs, start: float, note: str) -> MethodRow:
    seconds = time.perf_counter() - start
    accuracy = None if task.truth is None else float((predicted == task.truth).mean())
    return MethodRow(name, accuracy, seconds, note)


def _baseline(name: str, config: SearchConfig, task: Inputs, classes: Any) -> MethodRow:
    start = time.perf_counter()
    label, found, note = BASELINE_RUNS[name](config, task, classes)
    predicted = found if isinstance(found, np.ndarray) else _predict(found, task)
    return _row(label, predicted, task, start, note)


def _needed(held: Any, name: str, what: str) -> Any:
    if held is None:
        raise InputError(f"baseline {name} needs {what}")
    return held


Baseline = tuple[str, Any, str]
"""Name of a method, its fitted model or what it predicts, and what it uses."""


def _run_zero_shot(config: SearchConfig, task: Inputs, classes: Any) -> Baseline:
    from sparsecbm.estimators import ZeroShotClassifier

    texts = _needed(task.class_texts, "zero_shot", "texts of the class names: give embeddings.classes")
    return "zero-shot CLIP", ZeroShotClassifier().fit(texts, list(task.class_names)), "texts of the class names"


def _run_descriptions(config: SearchConfig, task: Inputs, classes: Any) -> Baseline:
    from sparsecbm.estimators import DescriptionClassifier

    texts = _needed(task.descriptions, "descriptions", "classes.descriptions (class name: list of texts)")
    model = DescriptionClassifier().fit(texts, list(task.class_names))
    return "mean over descriptions", model, "descriptions of the classes"


def _run_decomposer(config: SearchConfig, task: Inputs, classes: Any) -> Baseline:
    from sparsecbm.estimators import SparseDecomposer

    reference = _needed(task.reference, "decomposer", "reference pictures for their mean: give a train split")
    _needed(classes, "decomposer", "class texts")
    options = config.decomposer.model_dump()
    model = SparseDecomposer(task.bank.vectors, list(task.bank.names), **options).fit(reference.vectors)
    found = model.decompose(np.asarray(task.pictures.vectors))
    rows = np.stack([np.atleast_2d(texts).mean(axis=0) for texts in classes])
    scores = model.reconstruct(found.codes) @ unit_rows(rows).T
    note = (
        f"{found.counts.mean():.1f} concepts a picture, then zero-shot; reconstruction cosine {found.cosine.mean():.2f}"
    )
    return "sparse decomposition", scores.argmax(axis=1), note


def _rule(similarity: str) -> Callable[[SearchConfig, Inputs, Any], Baseline]:
    def run(config: SearchConfig, task: Inputs, classes: Any) -> Baseline:
        from sparsecbm.estimators import ConceptMatrixSearch

        _needed(classes, similarity, "class texts")
        model = ConceptMatrixSearch(task.bank.vectors, list(task.bank.names), similarity=similarity)
        model.fit(classes, list(task.class_names))
        return f"published rule: {similarity}", model, f"{len(task.bank.names):,} concepts"

    return run


def _run_linear_probe(config: SearchConfig, task: Inputs, classes: Any) -> Baseline:
    from sparsecbm.estimators import LinearProbe

    what = "labelled pictures: give a train split with labels"
    reference = _needed(task.reference, "linear_probe", what)
    names = np.asarray(task.class_names)[np.asarray(_needed(reference.labels, "linear_probe", what))]
    model = LinearProbe().fit(np.asarray(reference.vectors), names)
    return "linear probe", model, f"black box, trained on {len(names):,} labelled pictures"


BASELINE_RUNS: dict[str, Callable[[SearchConfig, Inputs, Any], Baseline]] = {
    "zero_shot": _run_zero_shot,
    "descriptions": _run_descriptions,
    "decomposer": _run_decomposer,
    "cosine": _rule("cosine"),
    "cubed": _rule("cubed"),
    "max": _rule("max"),
    "linear_probe": _run_linear_probe,
}


READ_CONCEPTS = ("decomposer", "cosine", "cubed", "max")
"""Baselines that read the concepts."""

DRAWS = 3
"""Draws of the meaningless directions."""


def _explain(config: SearchConfig, task: Inputs, model: Any, predicted: NDArray[np.int64]) -> Ledgers:
    """Ledgers of the pictures shown: half of them wrong ones, if there are so many, over as many classes as can be."""
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(predicted))
    truth = task.truth
    right = order if truth is None else order[predicted[order] == truth[order]]
    wrong = order[:0] if truth is None else order[predicted[order] != truth[order]]
    right, wrong = in_turns(right, predicted), in_turns(wrong, predicted)
    n_wrong = min(len(wrong), max(config.examples // 2, config.examples - len(right)))
    rows = np.array([*right[: config.examples - n_wrong], *wrong[:n_wrong]], dtype=np.int64)
    names = task.class_names
    if not len(rows):  # a picture at least is explained; none of it is shown
        return model.explain(np.asarray(task.pictures.vectors[:1])).select([])
    return model.explain(
        np.asarray(task.pictures.vectors[rows]),
        sources=[task.pictures.ids[i] for i in rows],
        truths=None if truth is None else [names[truth[i]] for i in rows],
    )


def _metrics(
    config: SearchConfig,
    task: Inputs,
    methods: Sequence[MethodRow],
    ledgers: Ledgers,
    advantage: dict[str, float] | None,
) -> dict[str, Any]:
    from sparsecbm.evaluation import advantage_in_words

    accuracy = methods[0].accuracy
    said = None if advantage is None or accuracy is None else advantage_in_words(accuracy, {"own_recipe": advantage})
    return {
        "config": config.name,
        "seed": config.seed,
        "split": config.split,
        "pictures": len(task.pictures.vectors),
        "classes": len(task.class_names),
        "concepts": len(task.bank.names),
        "encoder": _encoder(task),
        "methods": [vars(row) for row in methods],
        "advantage": advantage,
        "verdict": said,
        "seconds": {"embedding": task.seconds, **{row.name: row.seconds for row in methods}},
        "examples": [_example(ledger) for ledger in ledgers],
        "concept_record": task.bank.record,
        **task.said(),
    }


def _example(ledger: Ledger, k: int = 10) -> dict[str, Any]:
    count, rest = ledger.rest(k)
    return {
        "image": ledger.source,
        "class": ledger.target,
        "truth": ledger.truth,
        "score": ledger.score,
        "bias": ledger.bias,
        "named_concepts": sum(entry.concept != EVERYTHING_ELSE for entry in ledger.entries),
        "share": ledger.share,
        "contributions": [entry._asdict() for entry in ledger.top(k)],
        "others": {"count": count, "contribution": rest},
    }


def _page(
    config: SearchConfig, task: Inputs, methods: Sequence[MethodRow], ledgers: Ledgers, metrics: Mapping[str, Any]
) -> str:
    main = methods[0]
    n = len(task.pictures.vectors)
    figures = []
    if main.accuracy is not None:
        figures.append(Figure("Accuracy", f"{main.accuracy:.1%}", f"{round(main.accuracy * n):,} of {n:,} pictures"))
    if metrics["advantage"] is not None:
        gap, low, high = (f"{100 * metrics['advantage'][part]:+.1f}" for part in ("difference", "low", "high"))
        reached = metrics["advantage"]["accuracy"]
        figures.append(Figure("Meaningless directions", f"{reached:.1%}", "as many, by the same search"))
        figures.append(Figure("Owed to what concepts mean", gap, f"points; 95% interval {low} to {high}"))
    if config.search.similarity in ("sparse", "contrast"):
        figures.append(
            Figure("Concepts a decision", str(config.search.max_active_concepts), "at most; nothing else decides")
        )
    figures.append(Figure("Seconds", f"{main.seconds:.2f}", f"to search {n:,} pictures, embeddings given"))
    figures.append(Figure("Concepts", f"{len(task.bank.names):,}", f"for {len(task.class_names):,} classes"))
    truth = task.truth
    labels = None
    if truth is not None and ledgers.truths is not None:
        labels = _indices(ledgers.truths, ledgers.classes)
    index = {name: i for i, name in enumerate(task.pictures.ids)}
    sources = ledgers.sources or ()
    how = "a few labelled pictures" if config.few_shot else "no training"
    page = SearchPage(
        ledgers,
        title=config.name,
        summary=f"{len(task.class_names):,} classes told apart by {len(task.bank.names):,} named concepts, with {how}. "
        f"{metrics['verdict'] or ''}".strip(),
        methods=methods,
        figures=figures,
        facts={
            "Pictures": f"{_spec(config)}, {config.split}, {n:,}",
            "Encoder": _encoder(task),
            "Concepts from": str(task.bank.record.get("source", "unknown")),
            "Rule": config.search.similarity,
            **_reference(config, task),
            "Seed": str(config.seed),
        },
        notes=task.notes,
        labels=labels,
        picture=lambda i: large_picture(task.pictures, index[sources[i]]),
    )
    return page.render()


def _reference(config: SearchConfig, task: Inputs) -> dict[str, str]:
    if task.reference is None or not config.reference:
        return {}
    return {"Reference": f"mean of {len(task.reference.vectors):,} train pictures, without their labels"}


def _spec(config: SearchConfig) -> str:
    return config.embeddings.path if config.embeddings is not None else config.images.spec


def _encoder(task: Inputs) -> str:
    return str((task.encoder or {}).get("spec") or "elsewhere")
