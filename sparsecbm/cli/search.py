"""``sparsecbm search``."""

from __future__ import annotations

import json

from sparsecbm.cli.commands import AsJson, Config, Debug, Output, Set, _command, _print_json, app


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

    overrides = [*(set_ or ()), *([f"output={json.dumps(str(output))}"] if output is not None else [])]
    result = runs.search_run(load_search_config(config, overrides))
    if as_json:
        _print_json(result.to_json())
    else:
        terminal.show_search(result)
