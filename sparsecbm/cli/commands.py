"""The ``sparsecbm`` command.

Every command reads its input, calls one function of `sparsecbm.runs`, and shows the typed result. Nothing heavy is
imported before a command runs, so ``sparsecbm --help`` answers at once.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from sparsecbm._launch import is_main_process

Result = TypeVar("Result")

app = typer.Typer(
    name="sparsecbm",
    help="Image classifiers you can read: sparse concept bottlenecks on frozen CLIP.\n\n"
    "Start with [bold]sparsecbm demo[/bold]: it needs no network and no data.",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
concepts_app = typer.Typer(help="Build, look at, check and filter concept sets.", rich_markup_mode="rich")
app.add_typer(concepts_app, name="concepts")

_DEBUG = typer.Option("--debug", help="Show the full traceback of an error.")
_JSON = typer.Option("--json", help="Print one JSON document instead of tables.")
_SET = typer.Option(
    "--set", "-s", metavar="KEY=VALUE", help="Override a configuration key, such as model.loss=l1; may be repeated."
)
_OUT = typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")
_DEVICE = typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")
Debug = Annotated[bool, _DEBUG]
AsJson = Annotated[bool, _JSON]
Set = Annotated[list[str] | None, _SET]
Output = Annotated[Path | None, _OUT]
Device = Annotated[str, _DEVICE]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or the output folder of train or demo.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")]
EncoderSpec = Annotated[str | None, typer.Option(help="Encoder spec, if it lies elsewhere than at training.")]
OnError = Annotated[
    str, typer.Option("--on-error", metavar="raise|skip", help="What to do with an unreadable picture.")
]
Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a built-in configuration.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 internal error, 2 bad input, 130 interrupted."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="sparsecbm", standalone_mode=False)
    except Exception as error:
        # typer's own usage errors (an unknown option, a missing argument) know their message and exit code.
        if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            hint = f" (see: {context.command_path} --help)" if context is not None else ""
            message = error.format_message() or "nothing to do"
            _fail(f"{' '.join(message.split())}{hint}", getattr(error, "exit_code", 2))
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _command(kept: str = "nothing was written") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn what a command raises into one line and an exit code; `kept` says what an interruption leaves."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def guarded(*args: Any, **kwargs: Any) -> None:
            from sparsecbm._errors import InputError

            try:
                command(*args, **kwargs)
            except KeyboardInterrupt:
                _fail(f"interrupted: {kept}", 130)
            except InputError as error:
                if kwargs.get("debug"):
                    raise
                _fail(" ".join(str(error).split()), 2)
            except BrokenPipeError:
                # The reader (head, less) has gone; Python must not complain about it again at exit.
                sys.stdout = None  # type: ignore[assignment]
                raise typer.Exit(0) from None
            except typer.Exit:
                raise
            except Exception as error:
                if kwargs.get("debug"):
                    raise
                text = " ".join(str(error).split())
                _fail(f"internal error: {type(error).__name__}: {text[:300]} (add --debug for the traceback)", 1)

        return guarded

    return decorate


def _fail(message: str, code: int) -> NoReturn:
    from sparsecbm._errors import printable

    # Not through rich: markup in a file name must not be interpreted, and the line must stay one line.
    print(printable(f"error: {message}" if code != 130 else message), file=sys.stderr)
    raise SystemExit(code)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _say(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print a result once, however many processes there are: as JSON, or as `show` lays it out."""
    if not is_main_process():
        return
    if as_json:
        _print_json(result.to_json())
    else:
        show(result)


def _overrides(set_: Sequence[str] | None, **paths: Path | None) -> list[str]:
    """Join the `--set` assignments with those that an option of its own stands for."""
    return [*(set_ or ()), *(f"{key}={json.dumps(str(path))}" for key, path in paths.items() if path is not None)]


def _version(wanted: bool) -> None:
    if wanted:
        from sparsecbm import __version__

        print(f"sparsecbm {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@concepts_app.callback(invoke_without_command=True)
def _concepts_root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
@_command("finished embeddings and the training checkpoint are kept; the same command goes on from there")
def demo(
    output: Annotated[Path, _OUT] = Path("sparsecbm-demo"),
    set_: Set = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Paint birds, embed them, train a sparse concept bottleneck, and explain it; no network, no data.

    Example:  [bold]sparsecbm demo --output my-first-model[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.demo_run(output, overrides=set_ or ())
    _say(result, as_json, terminal.show_demo)


@app.command()
@_command("finished shards of embeddings are kept; the same command goes on from there")
def embed(config: Config, set_: Set = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Turn the pictures and concepts of a configuration into stored embeddings, once.

    Example:  [bold]sparsecbm embed birds_gumbel --set images.max_train=500[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal
    from sparsecbm.config import load_config

    result = runs.embed_run(load_config(config, set_ or ()))
    _say(result, as_json, terminal.show_embedding)


@app.command()
@_command("finished embeddings and the training checkpoint are kept; the same command goes on from there")
def train(
    config: Config, output: Output = None, set_: Set = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Train a sparse concept bottleneck and write model, metrics, configuration as run, and report.

    Example:  [bold]sparsecbm train birds_gumbel --set model.max_active_concepts=6[/bold]

    Several devices:  [bold]accelerate launch -m sparsecbm train CONFIG[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal
    from sparsecbm.config import load_config

    result = runs.train_run(load_config(config, _overrides(set_, output=output)))
    _say(result, as_json, terminal.show_training)


@app.command()
@_command("finished heads and controls are kept; the same command goes on from there")
def evaluate(
    model: Model,
    images: Annotated[str | None, typer.Option(help="Image spec; by default the one it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    max_images: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="File of vectors made elsewhere, in place of pictures.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Train controls and follow accuracy against NEC, or not.")
    ] = True,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of the random controls and of the recipe.")] = 1,
    nec: Annotated[
        str | None, typer.Option(metavar="5,10,...", help="Concepts per class of the path; 0 leaves it out.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Unrelated words for a control: text, or .npz of embeddings."),
    ] = None,
    train_split: Annotated[
        str | None, typer.Option(help="Split to train the controls on, where it is not that of training.")
    ] = None,
    output: Output = None,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure a model beside its controls, and write metrics, confusion matrix and a plot of accuracy against NEC.

    Controls: random words and random directions in place of the concepts, by
    the model's own recipe on its own training data; shuffled names; a linear
    probe and the nearest class mean. Files go to evaluation/ beside the model.

    Example:  [bold]sparsecbm evaluate sparsecbm-demo --seeds 3[/bold]

    In a hurry:  [bold]sparsecbm evaluate sparsecbm-demo --no-controls[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import evaluation

    result = runs.evaluate_run(
        model,
        images=images,
        split=split,
        max_images=max_images,
        embeddings=embeddings,
        encoder=encoder,
        device=device,
        controls=controls,
        train_split=train_split,
        words=words,
        seeds=seeds,
        nec=None if nec is None else _numbers(nec),
        output=runs.default_output(model) if output is None else output,
    )
    _say(result, as_json, evaluation.show_evaluation)


def _numbers(text: str) -> list[int]:
    from sparsecbm._errors import InputError

    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--nec {text!r}: expected whole numbers with commas between them, such as 5,10,30") from None
    return [] if values == [0] else values


@app.command()
@_command()
def predict(
    model: Model,
    images: Images,
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each picture.")] = 3,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what is in pictures.

    Example:  [bold]sparsecbm predict sparsecbm-demo bird.png photos/[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.predict_run(model, images, top=top, encoder=encoder, on_error=on_error, device=device)
    _say(result, as_json, terminal.show_predictions)


@app.command()
@_command()
def explain(
    model: Model,
    images: Images,
    target: Annotated[str | None, typer.Option("--class", help="Explain this class, not the predicted one.")] = None,
    against: Annotated[str | None, typer.Option(help="Explain the score difference to this class.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts named for each picture.")] = 10,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw each ledger into this folder.")] = None,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show why pictures got their class: bias plus one signed contribution a concept, adding up to the score.

    Example:  [bold]sparsecbm explain sparsecbm-demo bird.png --against "Farrow jay"[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.explain_run(
        model, images, target=target, against=against, encoder=encoder, on_error=on_error, device=device
    )
    drawn = runs.plot_ledgers(result, plot, k=top) if plot is not None else []
    if as_json:
        _print_json(result.to_json(k=top))
    else:
        terminal.show_ledgers(result, k=top, drawn=drawn)


@app.command()
@_command()
def report(
    model: Model,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")] = None,
    images: Annotated[str | None, typer.Option(help="Image spec; by default the one it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="Split to report on.")] = "test",
    max_images: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    embeddings: Annotated[Path | None, typer.Option(metavar="FILE", help="Vectors made elsewhere.")] = None,
    examples: Annotated[int, typer.Option(min=0, max=200, help="Pictures explained.")] = 12,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Compare with the training pictures, to find cues.")
    ] = True,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write one self-contained HTML page about a model: metrics, explained pictures, cues, classes, concepts.

    Example:  [bold]sparsecbm report sparsecbm-demo --examples 40[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal

    result = runs.report_run(
        model,
        output=output,
        images=images,
        split=split,
        max_images=max_images,
        embeddings=embeddings,
        examples=examples,
        training=training,
        encoder=encoder,
        device=device,
    )
    _say(result, as_json, terminal.show_report)


@app.command()
@_command("the training checkpoint is kept; the same command goes on from there")
def vae(
    config: Config,
    output: Output = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of mnist/ or omniglot_small/; data.folder for short.")
    ] = None,
    set_: Set = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a discrete-latent VAE and measure its likelihood, with an interval, by hard samples.

    Example:  [bold]sparsecbm vae vae_digits_gumbolt --set objective.samples=5[/bold]

    Several devices:  [bold]accelerate launch -m sparsecbm vae CONFIG[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli.vae import show_vae
    from sparsecbm.config import load_vae_config

    overrides = _overrides(set_, **{"output": output, "data.folder": data_dir})
    result = runs.vae_run(load_vae_config(config, overrides))
    _say(result, as_json, show_vae)


@app.command()
@_command()
def info(
    cache: Annotated[bool, typer.Option("--cache", help="List the stored embeddings instead.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show versions, devices, the cache folder, and what can be chosen by name.

    Example:  [bold]sparsecbm info --json[/bold]
    """
    from sparsecbm import runs
    from sparsecbm.cli import terminal
    from sparsecbm.cli.cache import print_cache

    if cache:
        print_cache(runs.cache_run(), as_json)
        return
    result = runs.info_run()
    _say(result, as_json, terminal.show_info)
