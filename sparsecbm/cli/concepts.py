"""``sparsecbm concepts``: build, filter, check and show concept sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm._base.names import name_list
from sparsecbm.cli.base import Device, Force, add_group, command
from sparsecbm.cli.terminal import head, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from sparsecbm.concepts import ConceptSet
    from sparsecbm.config.schema import FiltersConfig
    from sparsecbm.runs import (
        BuildResult,
        CheckResult,
        DiscoverResult,
        FilterResult,
    )


concepts_app = add_group("concepts", "Build, look at, check and filter concept sets.")

ConceptFile = Annotated[Path, typer.Argument(metavar="FILE", help="Concept file: .txt, .json, .yaml or .safetensors.")]
Classes = Annotated[
    str | None, typer.Option(metavar="FILE|SPEC", help="Class names, a name a line; or pictures, such as birds.")
]
Encoder = Annotated[str | None, typer.Option(help="Encoder that compares texts and pictures, such as bundled.")]
Images = Annotated[str | None, typer.Option(help="Pictures to compare concepts with, such as birds.")]
MaxImages = Annotated[int | None, typer.Option(min=1, help="Use no more of those pictures than this.")]
Templates = Annotated[str | None, typer.Option(help="Template with one {}, or the name of a template set.")]
Thresholds = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Filter threshold, such as max_length=40; null: off."),
]
Select = Annotated[int | None, typer.Option(min=1, help="Keep this many concepts, those that cover the classes best.")]
Times = Annotated[int, typer.Option(min=1, help="How many selected concepts each class should have.")]


@command("answers so far are kept; the same command goes on from there", name="build", group=concepts_app)
def concepts_build(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=".json or .yaml file to write.")],
    classes: Classes = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask a transformers text model: a folder, or a hub repository.")
    ] = None,
    conceptnet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read a ConceptNet dump (assertions, .csv.gz).")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rank a plain list of words by --classes or --images.")
    ] = None,
    encoder: Encoder = None,
    images: Images = None,
    max_images: MaxImages = 2000,
    templates: Templates = None,
    filters: Annotated[bool, typer.Option("--filter", help="Apply the label-free filters, as does --set.")] = False,
    set_: Thresholds = None,
    select: Select = None,
    times: Times = 1,
    per_class: Annotated[int, typer.Option(min=1, help="Names for each class from ConceptNet or a vocabulary.")] = 30,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the text model.")] = 160,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the most probable answer.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of answers, with a temperature above 0.")] = 0,
    device: Device = "auto",
    force: Force = False,
) -> Any:
    """Build a concept set for your classes, with where each name comes from.

    Example:  [bold]sparsecbm concepts build --vocabulary words.txt --classes birds --encoder bundled -o my.yaml[/bold]

    A text model is asked three questions a class (features, surroundings, superclass):
    [bold]sparsecbm concepts build --model Qwen/Qwen3-4B-Instruct-2507 --classes classes.txt -o mine.yaml[/bold]

    A ConceptNet dump is read once, a few minutes for the whole of it:
    [bold]sparsecbm concepts build --conceptnet assertions.csv.gz --classes classes.txt --select 200 -o mine.yaml[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    thresholds = options.pop("set_")
    options["filters"] = _filters(thresholds) if filters or thresholds else None
    return runs.build_concepts(**options)


@command("the same command goes on from there", name="discover", group=concepts_app)
def concepts_discover(
    images: Annotated[str, typer.Option(help="Pictures to find concepts in, such as birds or folder:PICTURES.")],
    encoder: Annotated[str, typer.Option(help="Encoder that looks at them, such as bundled.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=".safetensors file to write.")],
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Words to name them by: a word a line, or .npz with embeddings.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your concepts come first; others are found for the rest."),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Concepts to find.")] = 512,
    active: Annotated[int, typer.Option(min=1, help="Concepts a picture may use.")] = 16,
    kind: Annotated[str, typer.Option(help="Of dictionary: matryoshka, top_k, batch_top_k, concrete, k_means, ...")] = (
        "matryoshka"
    ),
    max_iter: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 2000,
    restarts: Annotated[
        int, typer.Option(min=1, help="Trainings of which the concepts that recur are kept; each costs one more.")
    ] = 1,
    max_images: MaxImages = None,
    templates: Templates = None,
    seed: Annotated[int, typer.Option(min=0, help="Of training.")] = 0,
    force: Force = False,
    device: Device = "auto",
) -> Any:
    """Find concepts in pictures without labels, name those that can be named, and show them on a page beside the file.

    Example:  [bold]sparsecbm concepts discover --images birds --encoder bundled --size 64 --vocabulary words.txt -o
    found.safetensors[/bold]

    Then as any concepts: [bold]sparsecbm train --images birds --encoder bundled --concepts found.safetensors[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    return runs.discover_concepts(**options)


@command(name="show", group=concepts_app)
def concepts_show(
    path: ConceptFile,
    limit: Annotated[int, typer.Option(min=1, help="Names shown.")] = 50,
) -> Any:
    """List the concepts of a file as they will be used, and where they come from.

    Example:  [bold]sparsecbm concepts show my-concepts.txt --limit 10[/bold]
    """
    from sparsecbm import runs

    return runs.check_concepts(path)


@command(name="check", group=concepts_app)
def concepts_check(
    path: ConceptFile,
    max_length: Annotated[int, typer.Option(min=1, help="Name longer concepts, in characters.")] = 30,
    classes: Classes = None,
    encoder: Encoder = None,
    images: Images = None,
    max_images: MaxImages = None,
    templates: Templates = None,
    set_: Thresholds = None,
) -> Any:
    """Say what is odd about a concept file: repetitions, long names, class names, redundant or never seen concepts.

    With labelled pictures, also what the set is worth before training: how much of the classes five concepts a class
    hold, beyond as many meaningless directions, and which classes they cannot tell apart.

    Example:  [bold]sparsecbm concepts check my-concepts.txt --classes birds --encoder bundled --images birds[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    filters = _filters(options.pop("set_"))
    return runs.check_concepts(**options, filters=filters)


@command(name="filter", group=concepts_app)
def concepts_filter(
    path: ConceptFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write what is kept.")
    ] = None,
    classes: Classes = None,
    encoder: Encoder = None,
    images: Images = None,
    max_images: MaxImages = None,
    templates: Templates = None,
    set_: Thresholds = None,
    select: Select = None,
    times: Times = 1,
    force: Force = False,
) -> Any:
    """Drop concepts that are long, name a class, repeat each other, or never show; say which and why.

    Example:  [bold]sparsecbm concepts filter raw.txt --classes classes.txt --encoder bundled -o kept.txt[/bold]

    Then, of what is left, the few that cover all classes:
    [bold]sparsecbm concepts filter raw.txt --classes birds --encoder bundled --select 20 -o kept.yaml[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    filters = _filters(options.pop("set_"))
    return runs.filter_concepts(**options, filters=filters)


def _filters(overrides: list[str] | None) -> FiltersConfig | None:
    from sparsecbm.config import build_config

    keys = [f"concepts.filters.{override}" for override in overrides or ()]
    return build_config({"concepts": {"filters": {}}}, keys, what="--set").concepts.filters


def show_concepts_show(result: CheckResult, limit: int) -> None:
    """Print concept names, by group where there are groups."""
    console, concepts = make_console(), result.concepts
    groups = concepts.groups or (None,) * len(concepts.names)
    for name, group in list(zip(concepts.names, groups))[:limit]:
        console.print(escape(name) if group is None else f"[dim]{escape(str(group))}[/dim]  {escape(name)}")
    if len(concepts.names) > limit:
        console.print(f"[dim]and {len(concepts.names) - limit:,} more[/dim]")
    if concepts.provenance:
        console.print("\n[bold]Where they come from[/bold]")
        for key, value in concepts.provenance.items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            console.print(f"  [dim]{escape(str(key))}[/dim]  {escape(head(' '.join(shown.split()), 160))}")


def show_concepts_check(result: CheckResult) -> None:
    """Print what is odd about a concept file."""
    console = make_console()
    console.print(f"[bold]{escape(result.path)}[/bold]: {len(result.concepts):,} concepts")
    for group, count in result.groups.items():
        console.print(f"  [dim]{escape(group)}[/dim] {count:,}")
    for line in result.changes:
        console.print(f"  {escape(line)}")
    for name in result.long:
        console.print(f"  long ({len(name)} characters): {escape(name)}")
    for problem in result.problems:
        console.print(f"  {problem.kind}: {escape(problem.detail)}")
    words = {"class": "near a class", "mutual": "redundant", "activation": "never active"}
    for drop in result.seen.dropped if result.seen is not None else ():
        console.print(f"  {words.get(drop.filter, drop.filter)}: {escape(repr(drop.name))}, {escape(drop.reason)}")
    for line in result.seen.not_run if result.seen is not None else ():
        console.print(f"  [dim]{escape(line)}[/dim]")
    if not result.odd:
        console.print("  nothing odd")
    if result.judged is not None:
        _show_judged(console, result)


def _show_judged(console: Console, result: CheckResult) -> None:
    made, names = result.judged, result.concepts.names
    assert made is not None
    reached = sum(made.meaningless) / len(made.meaningless)
    gap, low, high = (100 * made.advantage[key] for key in ("difference", "low", "high"))
    console.print(
        f"[bold]Before training[/bold], by {made.concepts_per_class} concepts a class (plain scores, held out): "
        f"{made.accuracy:.1%}, which is {made.information:.0%} of what a black box gets from the same embeddings "
        f"({made.probe:.1%})."
    )
    console.print(
        f"As many meaningless directions reach {reached:.1%}: these concepts are worth {gap:+.1f} points "
        f"(95% interval {low:+.1f} to {high:+.1f})."
    )
    for a, b, alike in made.redundant[:10]:
        console.print(
            f"  says the same as {escape(repr(names[b]))}: {escape(repr(names[a]))} (correlation {alike:.2f})"
        )
    for a, b, share in made.confused[:10]:
        console.print(
            f"  not told apart: {escape(repr(a))} and {escape(repr(b))} ({share:.0%} on the right side of the two)"
        )
    for rest, what in ((made.redundant[10:], "redundant"), (made.confused[10:], "pairs of classes")):
        if rest:
            console.print(f"  [dim]and {len(rest):,} more {what}; --json lists them[/dim]")


def _show_short(console: Console, asked: int | None, concepts: ConceptSet) -> None:
    if asked is not None and len(concepts) < asked:
        console.print(f"  asked for {asked:,}, found {len(concepts):,}: no more are left of what was given")


def show_concepts_build(result: BuildResult) -> None:
    """Print what a build found and kept."""
    from sparsecbm.concepts.cleaning import dropped_lines

    console = make_console()
    of = f" for {len(result.classes):,} classes" if result.classes else ""
    console.print(f"[bold]{len(result.concepts):,} concepts[/bold]{of}, of {result.found:,} found")
    _show_short(console, result.asked, result.concepts)
    if result.without:
        console.print(f"  no concept for {len(result.without):,} classes: {escape(name_list(result.without))}")
    lines = dropped_lines(result.concepts.provenance.get("dropped", {}))
    for line in lines[:20]:
        console.print(f"  {escape(line)}")
    if len(lines) > 20:
        console.print(f"  [dim]and for {len(lines) - 20:,} more reasons; the file names all[/dim]")
    for line in result.not_run:
        console.print(f"  [dim]{escape(line)}[/dim]")
    console.print(f"  [dim]such as[/dim] {escape(', '.join(result.concepts.names[:8]))}")
    console.print(f"written: {escape(str(result.output))}")


def show_concepts_discover(result: DiscoverResult) -> None:
    """Print what was found."""
    console = make_console()
    console.print(
        f"[bold]{result.found:,} concepts[/bold] rebuild {result.variance:.0%} of the variance of {result.pictures:,} "
        f"pictures; {result.named:,} have a name"
    )
    if names := [one["name"] for one in result.concepts.provenance["found"] if one.get("named")]:
        console.print(f"  [dim]such as[/dim] {escape(', '.join(names[:8]))}")
    console.print(f"written: {escape(str(result.output))}\nlook at them: {escape(str(result.page))}")


def show_concepts_filter(result: FilterResult) -> None:
    """Print what the filters kept and dropped."""
    console = make_console()
    summary, *rest = result.report.lines
    rest = [f"dropped {name!r}: {reason}" for name, reason in result.repeated] + rest
    console.print(f"[bold]{escape(summary)}[/bold]")
    for line in rest:
        console.print(f"  {escape(line)}")
    _show_short(console, result.asked, result.concepts)
    if len(result.concepts) < len(result.report.kept):
        console.print(f"selected {len(result.concepts)} of these, which cover the classes best")
        console.print(f"  {escape(', '.join(result.concepts.names))}")
    if result.output is not None:
        console.print(f"written: {escape(str(result.output))}")
