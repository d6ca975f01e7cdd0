"""``sparsecbm evaluate``: a model beside its controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import Device, EncoderSpec, ImageSpec, MaxImages, Model, Output, Split, Vectors, command
from sparsecbm.cli.terminal import WORDS, make_console, make_table, metric_rows, print_files, print_notes, show_metrics

if TYPE_CHECKING:
    from sparsecbm.runs import EvaluateResult


@command("finished heads and controls are kept; the same command goes on from there")
def evaluate(
    model: Model,
    images: ImageSpec = None,
    split: Split = "test",
    max_images: MaxImages = None,
    embeddings: Vectors = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Train controls and follow accuracy against NEC, or not.")
    ] = True,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of the random controls and of the recipe.")] = 1,
    nec: Annotated[
        str | None, typer.Option(metavar="5,10,...", help="Concepts per class of the path; 0 leaves it out.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Unrelated words for a control: text, or .npz of embeddings."),
    ] = None,
    train_split: Annotated[
        str | None, typer.Option(help="Split to train the controls on, where it is not that of training.")
    ] = None,
    output: Output = None,
    encoder: EncoderSpec = None,
    device: Device = "auto",
) -> Any:
    """Measure a model beside its controls, and write metrics, confusion matrix and a plot of accuracy against NEC.

    Controls: meaningless directions and random words in place of the concepts, by
    the model's own recipe on its own training data; shuffled names; a linear
    probe and the nearest class mean. Files go to evaluation/ beside the model.

    Example:  [bold]sparsecbm evaluate sparsecbm-demo --seeds 3[/bold]

    In a hurry:  [bold]sparsecbm evaluate sparsecbm-demo --no-controls[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    options["nec"] = None if nec is None else _numbers(nec)
    options["output"] = runs.default_output(model) if output is None else output
    return runs.evaluate_run(**options)


def _numbers(text: str) -> list[int]:
    from sparsecbm._base.errors import InputError

    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--nec {text!r}: expected whole numbers with commas between them, such as 5,10,30") from None
    return [] if values == [0] else values


def show_evaluate(result: EvaluateResult) -> None:
    """Print metrics, controls, accuracy against NEC, what to keep in mind, and where the files lie."""
    console = make_console()
    show_metrics(
        console,
        [*metric_rows(result.metrics), *_more(result.metrics)],
        title=f"{escape(result.images)}, {escape(result.split)}",
    )
    console.print(WORDS)
    if result.confused:
        pairs = [f"{row['class']} taken for {row['predicted']} ({row['count']})" for row in result.confused[:3]]
        console.print(f"[dim]most often {escape(', '.join(pairs))}[/dim]", soft_wrap=False)
    controls = result.controls
    if controls is not None:
        console.print()
        console.print(_controls(controls["table"], controls["labels"]))
        if controls["verdict"]:
            console.print(f"[bold]{escape(controls['verdict'])}[/bold]", soft_wrap=False)
        skipped = [f"{name.replace('_', ' ')}: {why}" for name, why in controls["skipped"].items()]
        print_notes(console, skipped, "skipped")
        if controls["paths"]:
            console.print()
            console.print(_paths(controls["paths"], controls["anec"], controls["labels"]))
    warned = result.metrics.get("warnings") or []
    rest = [line for line in (controls or {}).get("warnings", []) if line not in warned]
    print_notes(console, [*warned, *rest, *result.notes])
    console.print(f"[dim]{result.seconds:.1f} s[/dim]")
    if result.files:
        console.print()
        print_files(console, result.files)


def _advantage(result: EvaluateResult) -> dict[str, Any]:
    found = (result.controls or {}).get("advantage")
    return {"advantage": found} if found else {}


def _more(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows that a report's headline has no room for."""
    if "map" in metrics:
        return [("Calibration error", f"{metrics['ece']:.3f}", "ECE, mean over classes")]
    rows = [("Balanced accuracy", f"{metrics['balanced_accuracy']:.1%}", "mean over classes")]
    rows += [
        (f"Top-{key.split('_')[1]} accuracy", f"{value:.1%}", "")
        for key, value in metrics.items()
        if key.startswith("top_") and key.endswith("_accuracy")
    ]
    rows.append(("Calibration error", f"{metrics['ece']:.3f}", f"ECE; log loss {metrics['log_loss']:.3f} nats"))
    leak = metrics.get("leakage")
    if leak:
        said = "a leak" if leak["leak_alarm"] else "none found"
        nats = f", {leak['leak_nats']:.3f} nats" if leak["leak_alarm"] and "leak_nats" in leak else ""
        rows.append(("Leakage", f"p = {leak['leak_p_value']:.3f}", f"{said} beyond the concepts{nats}"))
    return rows


def _controls(rows: list[dict[str, Any]], labels: dict[str, str]) -> Table:
    with_truth = any(row["concept_auc"] is not None for row in rows)
    columns = ["", ">accuracy", ">model minus it", ">alignment", *([">concept AUC"] if with_truth else [])]
    table = make_table(*columns, title="[bold]Controls[/bold], on the same pictures")
    for row in rows:
        accuracy = f"{row['accuracy']:.1%}"
        if row["sd"] is not None and row["name"] not in ("shuffled_names", "linear_probe", "nearest_mean"):
            accuracy += f" ±{100 * row['sd']:.1f}"
        cells = [
            labels[row["name"]],
            accuracy,
            "" if row["difference"] is None or row["name"] == "shuffled_names" else _difference(row),
            "" if row["name_alignment"] is None else f"{row['name_alignment']:.3f}",
        ]
        if with_truth:
            cells.append("" if row["concept_auc"] is None else f"{row['concept_auc']:.3f}")
        table.add_row(*map(escape, cells), style="bold" if row["name"] == "concepts" else None)
    return table


def _difference(row: dict[str, Any]) -> str:
    points = [f"{100 * row[key]:+.1f}".replace("-", "\N{MINUS SIGN}") for key in ("difference", "low", "high")]
    return f"{points[0]} ({points[1]} to {points[2]})"


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return "100" if text == "100.0" else text  # ten columns must fit a narrow terminal


def _paths(paths: dict[str, list[dict[str, Any]]], anec: dict[str, float], labels: dict[str, str]) -> Table:
    columns = ["NEC", *(f">{point['nec']}" for point in next(iter(paths.values()))), *([">ANEC"] if anec else [])]
    title = "[bold]Accuracy against concepts per class[/bold] (NEC), a new head on the same activations"
    table = make_table(*columns, title=title)
    for name, path in paths.items():
        cells = [labels[name], *(_percent(point["accuracy"]) for point in path)]
        cells += [_percent(anec[name])] if anec else []
        table.add_row(*map(escape, cells), style="bold" if name == "concepts" else None)
    return table
