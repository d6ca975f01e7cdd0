"""``sparsecbm frontier``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm._base.errors import InputError
from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.terminal import make_console, make_table
from sparsecbm.cli.train import show_train

if TYPE_CHECKING:
    from sparsecbm.runs import FrontierResult


@command("finished fits and points are kept; the same command goes on from there")
def frontier(
    config: Config,
    nec: Annotated[str | None, typer.Option(metavar="K,K", help="Concepts a class, such as 1,2,3,5,10,30.")] = None,
    active: Annotated[
        str | None, typer.Option(metavar="K,K", help="Concepts active in a picture, such as 2,4,8,16,32.")
    ] = None,
    ties: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="How far units may turn: exact, shared, earned, free.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Train as many meaningless directions beside the concepts.")
    ] = True,
    pick: Annotated[
        str | None, typer.Option(metavar="nec=5,active=8,tie=shared", help="Train and save this point.")
    ] = None,
    output: Output = None,
    set_: Set = None,
) -> Any:
    """Draw the accuracy of every number of concepts, and how much of it their names are worth; train the one you pick.

    Example:  [bold]sparsecbm frontier birds_gumbel --ties exact,earned[/bold]

    Then:  [bold]sparsecbm frontier birds_gumbel --ties exact,earned --pick nec=5,active=4,tie=exact[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    return runs.frontier_run(
        configs.load_config(config, overrides(set_, output=output)),
        nec=numbers(nec, "--nec"),
        active=numbers(active, "--active"),
        ties=None if ties is None else [name.strip() for name in ties.split(",")],
        control=control,
        pick=pick,
    )


def numbers(text: str | None, option: str) -> list[int] | None:
    """Read whole numbers with commas between."""
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"{option} {text!r}: expected whole numbers with commas between, such as 2,8,32") from None


def show_frontier(result: FrontierResult) -> None:
    """Print a table a tie: accuracy and, beside it, points beyond meaningless directions; then what was trained."""
    console = make_console()
    points = result.frontier.points
    active = sorted({point.active for point in points})
    console.print(
        f"{result.frontier.n_images:,} {result.split} pictures; accuracy, and points owed to what concepts mean"
    )
    for tie in dict.fromkeys(point.tie for point in points):
        table = make_table("a class", *(f">{count} active" for count in active), title=f"[bold]{escape(tie)}[/bold]")
        for nec in sorted({point.nec for point in points}):
            cells = []
            for count in active:
                point = result.frontier.find(nec=nec, active=count, tie=tie)
                gap = "" if point.advantage is None else f" [dim]{100 * point.advantage:+.1f}[/dim]"
                cells.append(f"{100 * point.accuracy:.1f}{gap}")
            table.add_row(str(nec), *cells)
        console.print(table)
    console.print(f"[dim]{result.seconds:.1f} s[/dim]\n\nto choose from: {escape(str(result.plot))}")
    if result.trained is None:
        point = points[-1]
        console.print(
            f"then: --pick nec={point.nec},active={point.active},tie={escape(point.tie)} trains and saves that point"
        )
    else:
        console.print()
        show_train(result.trained)
