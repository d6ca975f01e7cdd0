"""``sparsecbm demo``, ``embed`` and ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm._base.errors import InputError
from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.terminal import (
    WORDS,
    make_console,
    make_table,
    metric_rows,
    print_files,
    print_ledger,
    print_notes,
    print_seconds,
    show_metrics,
)

if TYPE_CHECKING:
    from sparsecbm.runs import EmbedResult, TrainResult

KEPT = "finished embeddings and the training checkpoint are kept; the same command goes on from there"


@command(KEPT)
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "sparsecbm-demo"
    ),
    set_: Set = None,
) -> Any:
    """Paint birds, embed them, train a sparse concept bottleneck, and explain it; no network, no data.

    Example:  [bold]sparsecbm demo --output my-first-model[/bold]
    """
    from sparsecbm import runs

    return runs.demo_run(output, overrides=set_ or ())


@command("finished shards of embeddings are kept; the same command goes on from there")
def embed(config: Config, set_: Set = None) -> Any:
    """Turn the pictures and concepts of a configuration into stored embeddings, once.

    Example:  [bold]sparsecbm embed birds_gumbel --set images.max_train=500[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    return runs.embed_run(configs.load_config(config, set_ or ()))


@command(KEPT)
def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG]", help="A YAML file or a built-in name; own_pictures with --images."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Your pictures: a folder with a folder a class, or any image spec.")
    ] = None,
    concepts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your words: .txt (one a line), .json or .yaml.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder spec, such as open_clip:ViT-B-32/openai.")] = None,
    output: Output = None,
    set_: Set = None,
) -> Any:
    """Train a sparse concept bottleneck and write model, metrics, configuration as run, and report.

    Example:  [bold]sparsecbm train birds_gumbel --set model.max_active_concepts=6[/bold]

    Your own pictures and words:  [bold]sparsecbm train --images folder:PICTURES --concepts words.txt -o museum[/bold]

    Several devices:  [bold]accelerate launch -m sparsecbm train CONFIG[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    if config is None:
        if images is None and concepts is None:
            raise InputError("nothing to train: give a CONFIG, such as birds_gumbel, or --images and --concepts")
        if images is None or concepts is None:
            wanted = (
                "--images, a folder with a folder a class" if images is None else "--concepts, a file of your words"
            )
            raise InputError(f"give {wanted}, too")
        config = "own_pictures"
    if images is not None and ":" not in images and Path(images).is_dir():
        images = f"folder:{images}"
    name = output.name if config == "own_pictures" and output is not None else None
    given = {"name": name, "concepts.file": concepts, "images.spec": images, "encoder.spec": encoder, "output": output}
    return runs.train_run(configs.load_config(config, [*overrides(None, **given), *(set_ or ())]))


def show_train(result: TrainResult) -> None:
    """Print the metrics of a run and where its files lie."""
    console = make_console()
    metrics = result.metrics["test"]
    if metrics is not None:
        show_metrics(console, metric_rows(metrics), title=f"{escape(result.metrics['config'])}: test pictures")
        console.print(WORDS)
        if metrics.get("verdict"):
            console.print(f"[bold]{escape(metrics['verdict'])}[/bold]", soft_wrap=False)
        print_notes(console, metrics.get("warnings") or ())
    print_notes(console, result.metrics["notes"])
    print_seconds(console, result.metrics["seconds"])
    files = {"metrics": result.output / "metrics.json", "configuration": result.output / "config.yaml"}
    print_files(console, {"model": result.model, **files, "report": result.report})


def show_demo(result: TrainResult) -> None:
    """Print a finished training, one explained picture, and what to try next."""
    show_train(result)
    console = make_console()
    if result.example is not None:
        console.print("\n[bold]One picture, explained[/bold]")
        print_ledger(console, result.example, k=8)
    from sparsecbm.runs.train import DEMO_PICTURE

    folder = escape(str(result.output))
    console.print(f"\nOpen {escape(str(result.report))} in a browser, or try:")
    console.print(f"  sparsecbm evaluate {folder}")
    console.print(f"  sparsecbm explain {folder} {escape(str(result.output / DEMO_PICTURE))}")
    console.print("  sparsecbm train birds_gumbel --set model.max_active_concepts=2")


def show_embed(result: EmbedResult) -> None:
    """Print what was embedded."""
    console = make_console()
    title = f"{escape(result.encoder)}, {result.dim} dimensions"
    table = make_table("split", ">pictures", ">skipped", ">seconds", title=title)
    for split, row in result.splits.items():
        table.add_row(split, f"{row['images']:,}", f"{row['skipped']:,}", f"{row['seconds']:.2f}")
    console.print(table)
    console.print(f"{result.concepts:,} concepts embedded; {result.seconds:.1f} s in all")
