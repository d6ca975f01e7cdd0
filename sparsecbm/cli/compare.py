"""``sparsecbm compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.frontier import numbers
from sparsecbm.cli.terminal import make_console, make_table

if TYPE_CHECKING:
    from sparsecbm.runs import CompareResult

_SHOWN = {
    "nec": ("k", "d", 1),
    "accuracy": ("acc.", ".3f", 1),
    "sd": ("sd", ".3f", 1),
    "advantage": ("adv.", "+.1f", 100),
    "low": ("low", "+.1f", 100),
    "high": ("high", "+.1f", 100),
    "anec": ("ANEC", ".3f", 1),
    "active": ("active", ".0f", 1),
    "survival": ("surv.", ".2f", 1),
    "plausibility": ("plaus.", ".2f", 1),
    "seconds": ("CPU s", ".1f", 1),
    "megabytes": ("MB", ".0f", 1),
}
"""Columns: heading, format, factor."""


@command("finished fits are kept; the same command goes on from there")
def compare(
    config: Config,
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Such as label_free,labo,earned_8; by default all.")
    ] = None,
    nec: Annotated[str, typer.Option(metavar="K,K", help="Concepts a class, such as 5,10,15,20,25,30.")] = "5",
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each method, each with its own control.")] = 1,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Fit as many meaningless directions beside the concepts.")
    ] = True,
    output: Output = None,
    set_: Set = None,
) -> Any:
    """Compare published methods and baselines on the same embeddings, concepts, budgets and control.

    Example:  [bold]sparsecbm compare birds_gumbel --methods label_free,labo,earned_8 --nec 3[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    return runs.compare_run(
        configs.load_config(config, overrides(set_, output=output)),
        methods=None if methods is None else [name.strip() for name in methods.split(",")],
        nec=numbers(nec, "--nec") or (5,),
        seeds=seeds,
        control=control,
    )


def show_compare(result: CompareResult) -> None:
    """Print a line for each method and budget, the most accurate first."""
    console = make_console()
    console.print(
        f"{result.n_images:,} {result.split} pictures, {result.seeds} seed(s); adv.: points beyond meaningless "
        "directions, from low to high in 95%"
    )
    shown = [key for key in _SHOWN if any(row[key] is not None for row in result.rows)]
    table = make_table("method", *(f">{_SHOWN[key][0]}" for key in shown))
    table.columns[0].no_wrap = True
    for row in result.rows:
        cells = ["" if row[key] is None else format(_SHOWN[key][2] * row[key], _SHOWN[key][1]) for key in shown]
        table.add_row(escape(row["method"]), *cells)
    console.print(table)
    for name, why in result.skipped.items():
        console.print(f"[dim]{escape(name)} left out: {escape(why)}[/dim]")
    console.print(f"[dim]{result.seconds:.0f} s[/dim]\n\npage: {escape(str(result.output / 'compare.html'))}")
