"""The `onnxplain` command: its subcommands, and how errors become exit statuses.

Status 0: done. 1: a check failed, or a result is NaN or infinite. 2: bad usage or bad input, with one line on
stderr. 128 + n: ended by signal n, with one line too, such as 130 by Ctrl-C and 143 by SIGTERM; without one where
whoever reads the output has closed it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from analyzer.cli.commands import Commands
from analyzer.cli.limits import taken, within
from analyzer.cli.terminal import UserError
from converters.system.text import fitted, printable

app = typer.Typer(
    cls=Commands,
    help="Attributions of any ONNX, PyTorch or TensorFlow model: proved complete, checked across frameworks.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CHECK_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT


class _Ended(BaseException):
    """A signal has asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        print(f"onnxplain {version('onnxplain')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    limits: Annotated[
        str | None,
        typer.Option(
            "--limits",
            metavar="seconds=60,bytes=4GiB,nodes=500000",
            help="What preparing a model may take, of any command: seconds, bytes of constants that the file does not "
            "hold, nodes of functions and loops. Default: by the size of the file.",
        ),
    ] = None,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    limits, given = taken(given)
    # TensorFlow's start-up banner is no message of ours, and must not bury one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _ending_in_order(), within(limits), _notes_alone(debug):
            result = typer.main.get_command(app).main(
                args=[item for item in given if item != "--debug"],
                prog_name="onnxplain",
                standalone_mode=False,
            )
            sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except _Ended as ended:
        status = ended.status
    except Exception as error:
        if debug:
            raise
        print(fitted(f"onnxplain: {_line(error)}", sys.stderr), file=sys.stderr)
        return _status(error)
    if status > 128:
        # Typer may have caught the interrupt itself, and says nothing.
        print("onnxplain: interrupted: no file is left half written", file=sys.stderr)
    return status


@contextlib.contextmanager
def _notes_alone(debug: bool) -> Iterator[None]:
    """Show the warnings that are notes to users, a line each on stderr, and no other ones. debug: show all of them."""
    from analyzer.errors import Note

    with warnings.catch_warnings():
        if debug:
            yield
            return
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", Note)
        told: set[str] = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if (text := str(message)) not in told:
                told.add(text)
                line = f"onnxplain: note: {' '.join(printable(text).split())}"
                print(fitted(line, sys.stderr), file=sys.stderr)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Turn the signals that end a process into an exception, so that files in work are removed."""

    def end(number: int, _: Any) -> None:
        raise _Ended(number)

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        # Only the main thread may ask for signals; Windows has no SIGHUP; nohup asked to ignore it.
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    if hasattr(signal, "SIGPIPE"):
        # As other commands do. Click would exit with the status of a failed check.
        with contextlib.suppress(ValueError):
            before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(error: Exception) -> int:
    """A result that is not finite is a failed check: neither the usage nor the inputs are wrong."""
    from analyzer.errors import UndefinedResult
    from converters.errors import NoFiniteOutput

    return CHECK_FAILED if isinstance(error, (UndefinedResult, NoFiniteOutput)) else BAD_INPUT


def _line(error: Exception) -> str:
    """What to tell the user, on one line."""
    from analyzer.errors import AnalysisError
    from converters.errors import ConversionError

    if isinstance(error, (UserError, AnalysisError, ConversionError)):
        text = str(error)
    elif hasattr(error, "format_message"):  # a usage error, of whichever Click this Typer stands on
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "onnxplain"
        # Typer's types and their checker add words of their own.
        found = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(". ")
        # Typer and Click may both add their guess.
        found = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", found)
        text = f"{found}{'' if found.endswith('?') else '.'} Fix: see {command} --help"
    elif isinstance(error, OSError):
        found = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        text = (
            f"{found}. Fix: check that the path exists, that you may read and write there, and that the disk is not "
            "full"
        )
    elif isinstance(error, MemoryError):
        text = (
            f"the memory does not suffice ({error or 'no more is free'}). Fix: give fewer or smaller inputs"
        )
    else:
        text = (
            f"internal error, {type(error).__name__}: {error}. Fix: run again with --debug, and report the traceback "
            "to onnxplain"
        )
    return " ".join(printable(text).split())
