"""``sparsecbm demo``, ``embed`` and ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import _OUT, AsJson, Config, Debug, Output, Set, _command, _overrides, _say, app
from sparsecbm.cli.terminal import _ledger, make_console, metric_rows, show_metrics

if TYPE_CHECKING:
    from sparsecbm.runs import (
        EmbedResult,
        TrainResult,
    )


@app.command()
@_command("finished embeddings and the training checkpoint are kept; the same command goes on from there")
def demo(
    output: Annotated[Path, _OUT] = Path("sparsecbm-demo"),
    set_: Set = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Paint birds, embed them, train a sparse concept bottleneck, and explain it; no network, no data.

    Example:  [bold]sparsecbm demo --output my-first-model[/bold]
    """
    from sparsecbm import runs

    result = runs.demo_run(output, overrides=set_ or ())
    _say(result, as_json, show_demo)


@app.command()
@_command("finished shards of embeddings are kept; the same command goes on from there")
def embed(config: Config, set_: Set = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Turn the pictures and concepts of a configuration into stored embeddings, once.

    Example:  [bold]sparsecbm embed birds_gumbel --set images.max_train=500[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.config.reading import load_config

    result = runs.embed_run(load_config(config, set_ or ()))
    _say(result, as_json, show_embedding)


@app.command()
@_command("finished embeddings and the training checkpoint are kept; the same command goes on from there")
def train(
    config: Config, output: Output = None, set_: Set = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Train a sparse concept bottleneck and write model, metrics, configuration as run, and report.

    Example:  [bold]sparsecbm train birds_gumbel --set model.max_active_concepts=6[/bold]

    Several devices:  [bold]accelerate launch -m sparsecbm train CONFIG[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.config.reading import load_config

    result = runs.train_run(load_config(config, _overrides(set_, output=output)))
    _say(result, as_json, show_training)


def show_training(result: TrainResult) -> None:
    """Print the metrics of a run and where its files lie."""
    console = make_console()
    metrics = result.metrics["test"]
    if metrics is not None:
        show_metrics(console, metric_rows(metrics), title=f"{escape(result.metrics['config'])}: test pictures")
        for line in metrics.get("warnings") or []:
            console.print(f"[yellow]note[/yellow] {escape(line)}")
    seconds = result.metrics["seconds"]
    console.print(f"[dim]{', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())}[/dim]")
    console.print()
    for what, path in (
        ("model", result.model),
        ("metrics", result.output / "metrics.json"),
        ("configuration", result.output / "config.yaml"),
        ("report", result.report),
    ):
        console.print(f"  {what:<14} {escape(str(path))}")


def show_demo(result: TrainResult) -> None:
    """Print a finished training, one explained picture, and what to try next."""
    show_training(result)
    console = make_console()
    if result.example is not None:
        console.print("\n[bold]One picture, explained[/bold]")
        _ledger(console, result.example, k=8)
    folder = escape(str(result.output))
    console.print(f"\nOpen {escape(str(result.report))} in a browser, or try:")
    console.print(f"  sparsecbm evaluate {folder}")
    console.print(f"  sparsecbm explain {folder} YOUR_PICTURE.png")
    console.print("  sparsecbm train birds_gumbel --set model.max_active_concepts=4")


def show_embedding(result: EmbedResult) -> None:
    """Print what was embedded."""
    console = make_console()
    table = Table(title=f"{escape(result.encoder)}, {result.dim} dimensions", title_justify="left")
    for column, justify in (("split", "left"), ("pictures", "right"), ("skipped", "right"), ("seconds", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for split, row in result.splits.items():
        table.add_row(split, f"{row['images']:,}", f"{row['skipped']:,}", f"{row['seconds']:.2f}")
    console.print(table)
    console.print(f"{result.concepts:,} concepts embedded; {result.seconds:.1f} s in all")
