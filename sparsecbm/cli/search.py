"""``sparsecbm search``."""

from __future__ import annotations

from sparsecbm.cli.commands import AsJson, Config, Debug, Output, Set, _command, _overrides, _say, app


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
    from sparsecbm.cli import terminal
    from sparsecbm.config import load_search_config

    result = runs.search_run(load_search_config(config, _overrides(set_, output=output)))
    _say(result, as_json, terminal.show_search)
