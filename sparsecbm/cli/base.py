"""The ``sparsecbm`` command.

Every command reads its input, calls one function of `sparsecbm.runs`, and shows the typed result. Nothing heavy is
imported before a command runs, so ``sparsecbm --help`` answers at once.
"""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from sparsecbm._base.launch import is_main_process

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
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:
        # typer's own usage errors (an unknown option, a missing argument) know their message and exit code.
        if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            hint = f" (see: {context.command_path} --help)" if context is not None else ""
            message = error.format_message() or "nothing to do"
            _fail(f"{' '.join(message.split())}{hint}", getattr(error, "exit_code", 2))
        raise
    if code == 130:  # typer's word for an interrupt while it read the arguments
        _interrupted()
    sys.exit(code if isinstance(code, int) else 0)


def _command(kept: str = "nothing was written") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn what a command raises into one line and an exit code; `kept` says what an interruption leaves."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def guarded(*args: Any, **kwargs: Any) -> None:
            from sparsecbm._base.errors import InputError

            try:
                with warnings.catch_warnings():
                    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
                    command(*args, **kwargs)
            except KeyboardInterrupt:
                _interrupted(kept)
            except InputError as error:
                if kwargs.get("debug"):
                    raise
                # In the words of the command: an option of its own, else of the configuration.
                skip = "--on-error skip" if "on_error" in kwargs else "--set images.on_error=skip"
                _fail(" ".join(str(error).replace("on_error='skip'", skip).split()), 2)
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


def _show_warning(usual: Callable[..., None], message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Show what people should know about their data in one line, without the line of code that found it out."""
    from sparsecbm._base.errors import DataWarning, printable

    if not issubclass(category, DataWarning):
        usual(message, category, *rest)
    elif is_main_process():
        print(printable(f"warning: {message}"), file=sys.stderr)


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
