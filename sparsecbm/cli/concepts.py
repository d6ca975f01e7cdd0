"""``sparsecbm concepts``: build, filter, check and show concept sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecbm.cli.commands import AsJson, Debug, Device, _command, _say, concepts_app

ConceptFile = Annotated[Path, typer.Argument(metavar="FILE", help="Concept file: .txt, .json or .yaml.")]
Classes = Annotated[
    str | None, typer.Option(metavar="FILE|SPEC", help="Class names, a name a line; or pictures, such as birds.")
]
Encoder = Annotated[str | None, typer.Option(help="Encoder that compares texts and pictures, such as bundled.")]
Images = Annotated[str | None, typer.Option(help="Pictures to compare concepts with, such as birds.")]
MaxImages = Annotated[int | None, typer.Option(min=1, help="At most so many of those pictures.")]
Templates = Annotated[str | None, typer.Option(help="Template with one {}, or the name of a template set.")]
Thresholds = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Filter threshold, such as max_length=40; null: off."),
]
Select = Annotated[int | None, typer.Option(min=1, help="Keep the so many concepts that cover the classes best.")]
Times = Annotated[int, typer.Option(min=1, help="How many selected concepts each class should have.")]


@concepts_app.command("build")
@_command("answers so far are kept; the same command goes on from there")
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
    per_class: Annotated[int, typer.Option(min=1, help="Names a class from ConceptNet or a vocabulary.")] = 30,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the text model.")] = 160,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the most probable answer.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of answers, with a temperature above 0.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build a concept set for your classes, with where each name comes from.

    Example:  [bold]sparsecbm concepts build --vocabulary words.txt --classes birds --encoder bundled -o my.yaml[/bold]

    A text model is asked three questions a class (features, surroundings, superclass):
    [bold]sparsecbm concepts build --model Qwen/Qwen3-4B-Instruct-2507 --classes classes.txt -o mine.yaml[/bold]

    A ConceptNet dump is read once, a few minutes for the whole of it:
    [bold]sparsecbm concepts build --conceptnet assertions.csv.gz --classes classes.txt --select 200 -o mine.yaml[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.build_concepts(
        output,
        classes=classes,
        model=model,
        conceptnet=conceptnet,
        vocabulary=vocabulary,
        encoder=encoder,
        images=images,
        max_images=max_images,
        templates=templates,
        filters=_filters(set_) if filters or set_ else None,
        select=select,
        times=times,
        per_class=per_class,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
    )
    _say(result, as_json, terminal.show_build)


@concepts_app.command("show")
@_command()
def concepts_show(
    file: ConceptFile,
    limit: Annotated[int, typer.Option(min=1, help="Names shown.")] = 50,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the concepts of a file as they will be used, and where they come from.

    Example:  [bold]sparsecbm concepts show my-concepts.txt --limit 10[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.check_concepts(file)
    _say(result, as_json, lambda result: terminal.show_concepts(result.concepts, limit))


@concepts_app.command("check")
@_command()
def concepts_check(
    file: ConceptFile,
    max_length: Annotated[int, typer.Option(min=1, help="Name longer concepts, in characters.")] = 30,
    classes: Classes = None,
    encoder: Encoder = None,
    images: Images = None,
    max_images: MaxImages = None,
    templates: Templates = None,
    set_: Thresholds = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what is odd about a concept file: repetitions, long names, class names, redundant or never seen concepts.

    Example:  [bold]sparsecbm concepts check my-concepts.txt --classes birds --encoder bundled --images birds[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.check_concepts(
        file,
        max_length,
        classes=classes,
        encoder=encoder,
        images=images,
        max_images=max_images,
        templates=templates,
        filters=_filters(set_),
    )
    _say(result, as_json, terminal.show_check)


@concepts_app.command("filter")
@_command()
def concepts_filter(
    file: ConceptFile,
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
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Drop concepts that are long, name a class, repeat each other, or never show; say which and why.

    Example:  [bold]sparsecbm concepts filter raw.txt --classes classes.txt --encoder bundled -o kept.txt[/bold]

    Then, of what is left, the few that cover all classes:
    [bold]sparsecbm concepts filter raw.txt --classes birds --encoder bundled --select 20 -o kept.yaml[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.filter_concepts(
        file,
        output,
        filters=_filters(set_),
        classes=classes,
        encoder=encoder,
        images=images,
        max_images=max_images,
        templates=templates,
        select=select,
        times=times,
    )
    _say(result, as_json, terminal.show_filter)


def _filters(overrides: list[str] | None):
    from sparsecbm.config import build_config

    keys = [f"concepts.filters.{override}" for override in overrides or ()]
    return build_config({"concepts": {"filters": {}}}, keys, what="--set").concepts.filters
