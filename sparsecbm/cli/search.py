"""``sparsecbm search``: Concept Matrix Search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.terminal import make_console, make_table, print_ledger

if TYPE_CHECKING:
    from sparsecbm.runs import SearchResult


@command("finished shards of embeddings are kept; the same command goes on from there")
def search(config: Config, output: Output = None, set_: Set = None) -> Any:
    """Classify without training, by Concept Matrix Search, and show which concepts decided.

    Example:  [bold]sparsecbm search search_birds --set search.max_active_concepts=4[/bold]

    Your own words, one a line:  [bold]sparsecbm search search_birds --set concepts.file=words.txt[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    return runs.search_run(configs.load_config(config, overrides(set_, output=output), configs.SearchConfig))


def show_search(result: SearchResult) -> None:
    """Print the comparison, two explained pictures, and where the page lies."""
    console = make_console()
    found = result.metrics
    console.print(
        f"[bold]{escape(found['config'])}[/bold]: {found['pictures']:,} pictures, {found['classes']:,} classes, "
        f"{found['concepts']:,} concepts"
    )
    table = make_table("method", ">accuracy", ">meaningless", ">seconds", "uses")
    for row in result.methods:
        shown = "–" if row.accuracy is None else f"{row.accuracy:.1%}"
        style = "bold" if row.main else None
        control = "" if row.meaningless is None else f"{row.meaningless:.1%}"
        table.add_row(
            escape(row.name), shown, control, f"{row.seconds:.3f}", f"[dim]{escape(row.note)}[/dim]", style=style
        )
    console.print(table)
    if found["verdict"]:
        console.print(f"[bold]{escape(found['verdict'])}[/bold]", soft_wrap=False)
    right = [ledger for ledger in result.examples if ledger.truth == ledger.target]
    wrong = [ledger for ledger in result.examples if ledger.truth != ledger.target]
    for ledger in [*right[:1], *wrong[:1]]:
        console.print()
        print_ledger(console, ledger, k=6)
    console.print(f"\npage: {escape(str(result.page))}")
