"""``sparsecbm vae``: discrete-latent VAEs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm.cli.base import Config, Output, Set, command, overrides
from sparsecbm.cli.terminal import make_console, make_table, print_seconds, show_metrics

if TYPE_CHECKING:
    from sparsecbm.runs import VaeResult


@command("the training checkpoint is kept; the same command goes on from there")
def vae(
    config: Config,
    output: Output = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of mnist/ or omniglot_small/; data.folder for short.")
    ] = None,
    set_: Set = None,
) -> Any:
    """Train a discrete-latent VAE and measure its likelihood, with an interval, by hard samples.

    Example:  [bold]sparsecbm vae vae_digits_gumbolt --set objective.samples=5[/bold]

    Several devices:  [bold]accelerate launch -m sparsecbm vae CONFIG[/bold]
    """
    from sparsecbm import config as configs
    from sparsecbm import runs

    changes = overrides(set_, **{"output": output, "data.folder": data_dir})
    return runs.vae_run(configs.load_config(config, changes, configs.VaeConfig))


def show_vae(result: VaeResult) -> None:
    """Print the likelihood with its interval, or the toy's table, and where the files lie."""
    console = make_console()
    metrics = result.metrics
    if metrics["task"] == "toy":
        title = f"{escape(metrics['config'])}: nats a picture, and one-sample gradients against the exact one"
        columns = ("trained by", ">it says", ">exact bound", ">exact log p(x)", ">states used", ">bias", ">spread")
        table = make_table(*columns, title=title)
        for name, row in metrics["versions"].items():
            nats = (f"{row[key]:.1f}" for key in ("objective", "elbo", "log_likelihood", "used"))
            table.add_row(name, *nats, f"{row['gradient']['bias']:.3f}", f"{row['gradient']['spread']:.2f}")
        console.print(table)
    else:
        title = f"{escape(metrics['config'])}: {metrics['test']['n_pictures']:,} test pictures, hard samples"
        show_metrics(console, _rows(metrics), title=title)
        if metrics["data"]["note"]:
            console.print(f"[dim]{escape(metrics['data']['name'])}: {escape(metrics['data']['note'])}[/dim]")
    print_seconds(console, metrics["seconds"])
    for path in sorted(result.output.iterdir()):
        if not path.name.startswith("."):
            console.print(f"  {escape(str(path))}")


def _rows(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    test = metrics["test"]
    wide = test["population_interval"]
    if "accuracy" in test:
        return [("accuracy", f"{test['accuracy']:.2%}", f"95% interval {wide[0]:.2%} to {wide[1]:.2%}")]
    value = f"{test['log_likelihood']:.2f} nats"
    if wide is None:
        rows = [("log-likelihood", f">= {value}", "a lower bound, in expectation: the samples support no interval")]
    else:
        population = f"95% interval {wide[0]:.2f} to {wide[1]:.2f}, over the choice of test pictures too"
        rows = [("log-likelihood", value, population)]
    size = ("effective samples", f"{test['effective_sample_size']:.0f}", f"median picture, of {test['samples']:,}")
    if "interval" not in test:
        return [*rows, size]
    own, log_z = test["interval"], test["log_partition"]
    if own is not None:
        half = f"+- {(own[1] - own[0]) / 2:.3f}"
        rows.append(("", half, f"of these pictures: {test['samples']:,} samples each, and log Z"))
    if test["bracket"] is not None:
        note = f"{test['steps']:,} steps; of the model's own pictures, from below and from above"
        rows.append(("annealed over z", f"{test['bracket']['lower']:.2f} to {test['bracket']['upper']:.2f}", note))
    rows += [("ELBO", f"{test['elbo']:.2f} nats", "one sample"), size]
    if log_z["method"] != "normalised":
        ways = {"enumeration": "every state", "ais": "annealed importance sampling"}
        note = ways.get(log_z["method"], log_z["method"])
        if log_z["method"] == "ais":
            note += f", +- {log_z['standard_error']:.3f}, {log_z['effective_sample_size']:.0f} effective chains"
            if log_z["reverse"] is not None:
                note += f"; the larger of {log_z['forward']:.2f} forward and {log_z['reverse']:.2f} in reverse"
        rows.append(("log Z", f"{log_z['value']:.2f}", note))
    return rows
