"""The ``sparsecbm`` command.

Every command reads its input, calls one function of `sparsecbm.runs`, and shows the typed result. Nothing heavy is
imported before a command runs, so ``sparsecbm --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sparsecbm._base.launch import is_main_process

app = typer.Typer(
    name="sparsecbm",
    help="Image classifiers you can read: sparse concept bottlenecks on frozen CLIP.\n\n"
    "Start with [bold]sparsecbm demo[/bold]: it needs no network and no data.",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a built-in configuration.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Override a configuration key, such as model.loss=l1; may be repeated."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or the output folder of train or demo.")]
Pictures = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")]
OnError = Annotated[
    str, typer.Option("--on-error", metavar="raise|skip", help="What to do with an unreadable picture.")
]
ImageSpec = Annotated[str | None, typer.Option("--images", help="Image spec; by default the one it was trained on.")]
Split = Annotated[str, typer.Option("--split", help="Split of the pictures or vectors.")]
MaxImages = Annotated[int | None, typer.Option("--max-images", min=1, help="Use no more pictures than this.")]
Vectors = Annotated[
    Path | None,
    typer.Option("--embeddings", metavar="FILE", help="File of vectors made elsewhere, in place of pictures."),
]
EncoderSpec = Annotated[
    str | None, typer.Option("--encoder", help="Encoder spec, if it lies elsewhere than at training.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 internal error, 2 bad input, 130 interrupted."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="sparsecbm", standalone_mode=False)
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:
        # typer's own usage errors (an unknown option, a missing argument) know their message and exit code.
        message = getattr(error, "format_message", None)
        if message is not None:
            context = getattr(error, "ctx", None)
            hint = f" (see: {context.command_path} --help)" if context is not None else ""
            message = message() or "nothing to do"
            _fail(f"{' '.join(message.split())}{hint}", getattr(error, "exit_code", 2))
        raise
    if code == 130:  # typer's word for an interrupt while it read the arguments
        _interrupted()
    sys.exit(code if isinstance(code, int) else 0)


def command(
    kept: str = "nothing was written", *, name: str | None = None, group: typer.Typer = app
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Register a function as a command, with ``--json`` and ``--debug``.

    What it returns is printed once, however many processes there are: as JSON, or by the ``show_...`` of its name in
    its file, which may also take some of the command's options. What it raises becomes one line and an exit code.

    Parameters
    ----------
    kept : str
        What an interruption leaves.
    name : str, optional
        Of the command, where it is not the function's.
    group : typer.Typer
        Commands it belongs to.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        common = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for option, kind in (("as_json", AsJson), ("debug", Debug))
            if option not in signature.parameters
        ]

        @functools.wraps(function)
        def guarded(*, debug: bool = False, **options: Any) -> None:
            given = {option: value for option, value in options.items() if option in signature.parameters}
            # In the words of the command: an option of its own, else of the configuration.
            skip = "--on-error skip" if "on_error" in options else "--set images.on_error=skip"
            with _guard(kept, debug, skip):
                result = function(**given)
                if result is not None and is_main_process():
                    if options["as_json"]:
                        print_json(result.to_json())
                    else:
                        show = function.__globals__[f"show_{function.__name__}"]
                        wanted = list(inspect.signature(show).parameters)[1:]
                        show(result, **{option: given[option] for option in wanted})

        guarded.__annotations__ = {}
        vars(guarded)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *common])
        return group.command(name)(guarded)

    return decorate


@contextlib.contextmanager
def _guard(kept: str, debug: bool, skip: str) -> Iterator[None]:
    """Turn what a command raises into one line and an exit code; `skip` is how it leaves unreadable pictures out."""
    from sparsecbm._base.errors import InputError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show_warning, warnings.showwarning, set())
            yield
    except KeyboardInterrupt:
        _interrupted(kept)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not complain about it again at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
        raise typer.Exit(0) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        if isinstance(error, InputError):
            _fail(text.replace("on_error='skip'", skip), 2)
        _fail(f"internal error: {type(error).__name__}: {text[:300]} (add --debug for the traceback)", 1)


def _fail(message: str, code: int) -> NoReturn:
    from sparsecbm._base.errors import printable

    # Not through rich: markup in a file name must not be interpreted, and the line must stay one line.
    print(printable(f"error: {message}" if code != 130 else message), file=sys.stderr)
    raise SystemExit(code)


def _interrupted(kept: str = "nothing was written") -> NoReturn:
    import signal

    # A second Ctrl-C ends the process there and then, without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _fail(f"interrupted: {kept}", 130)


def _show_warning(
    usual: Callable[..., None], said: set[str], message: Warning | str, category: type[Warning], *rest: Any
) -> None:
    """Show what people should know about their data in one line and once, not the line of code that found it out."""
    from sparsecbm._base.errors import DataWarning, printable

    if not issubclass(category, DataWarning):
        usual(message, category, *rest)
    elif is_main_process() and str(message) not in said:
        said.add(str(message))
        print(printable(f"warning: {message}"), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def overrides(set_: Sequence[str] | None, **paths: str | Path | None) -> list[str]:
    """Join the `--set` assignments with those that an option of its own stands for."""
    return [*(set_ or ()), *(f"{key}={json.dumps(str(path))}" for key, path in paths.items() if path is not None)]


def add_group(name: str, text: str) -> typer.Typer:
    """Return a group of commands, which prints its help where none is named."""
    group = typer.Typer(help=text, rich_markup_mode="rich", callback=_help, invoke_without_command=True)
    app.add_typer(group, name=name)
    return group


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


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
    _help(context)
