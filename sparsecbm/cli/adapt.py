"""``sparsecbm adapt``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.terminal import make_console

if TYPE_CHECKING:
    from sparsecbm.runs import AdaptResult


@command("a checkpoint is kept; the same command goes on from there")
def adapt(
    config: Config,
    other: Annotated[
        str | None, typer.Option("--other", metavar="SPEC", help="Pictures on which the drift of concepts is measured.")
    ] = None,
    output: Output = None,
    set_: Set = None,
) -> Any:
    """Teach an encoder to see the concepts: low-rank adapters of its image tower (needs the extra: adapt).

    Example:  [bold]sparsecbm adapt birds_gumbel --set images.max_train=400 --set adapt.max_iter=100[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    return runs.adapt_run(configs.load_config(config, overrides(set_, output=output)), other=other)


def show_adapt(result: AdaptResult) -> None:
    """Print what it gained, what it cost, and how to use it."""
    console = make_console()
    for name, word in (("accuracy", "accuracy of a linear read-out of the concepts"), ("concept_auc", "concept AUC")):
        if name in result.before:
            console.print(f"{word}: {result.before[name]:.3f} before, [bold]{result.after[name]:.3f}[/bold] after")
    console.print(
        f"drift on {result.drift['pictures']:,} other pictures: concept scores agree with the frozen encoder's at "
        f"{result.drift['alignment']:.3f} (correlation), {result.drift['survival']:.2f} of their top pictures stay"
    )
    console.print(f"[dim]concepts held by {escape(result.concept_loss)}; {result.seconds:.0f} s[/dim]\n")
    console.print(f"use it: --set encoder.spec={escape(result.encoder)}")
