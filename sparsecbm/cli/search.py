"""``sparsecbm search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import AsJson, Config, Debug, Output, Set, _command, _overrides, _say, app
from sparsecbm.cli.terminal import _ledger, make_console

if TYPE_CHECKING:
    from sparsecbm.runs import SearchResult


@app.command()
@_command("finished shards of embeddings are kept; the same command goes on from there")
def search(
    config: Config, output: Output = None, set_: Set = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Classify without training, by Concept Matrix Search, and show which concepts decided.

    Example:  [bold]sparsecbm search search_birds --set search.similarity=sparse[/bold]

    Your own words, one a line:  [bold]sparsecbm search search_birds --set concepts.file=words.txt[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.config import SearchConfig, load_config

    result = runs.search_run(load_config(config, _overrides(set_, output=output), kind=SearchConfig))
    _say(result, as_json, show_search)


def show_search(result: SearchResult, k: int = 6) -> None:
    """Print the comparison, two explained pictures, and where the page lies."""
    console = make_console()
    found = result.metrics
    console.print(
        f"[bold]{escape(found['config'])}[/bold]: {found['pictures']:,} pictures, {found['classes']:,} classes, "
        f"{found['concepts']:,} concepts"
    )
    table = Table(box=None, pad_edge=False)
    for column, justify in (("method", "left"), ("accuracy", "right"), ("seconds", "right"), ("uses", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in result.methods:
        shown = "–" if row.accuracy is None else f"{row.accuracy:.1%}"
        style = "bold" if row.main else None
        table.add_row(escape(row.name), shown, f"{row.seconds:.3f}", f"[dim]{escape(row.note)}[/dim]", style=style)
    console.print(table)
    right = [ledger for ledger in result.examples if ledger.truth == ledger.target]
    wrong = [ledger for ledger in result.examples if ledger.truth != ledger.target]
    for ledger in [*right[:1], *wrong[:1]]:
        console.print()
        _ledger(console, ledger, k)
    console.print(f"\npage: {escape(str(result.page))}")
