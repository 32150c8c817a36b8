"""The ``vol3d`` program: subcommands, and how errors become exit codes.

Exit codes: 0 done, 1 a defect of vol3d, 2 usage, 3 a file, case or bundle was refused, 4 stopped part-way,
5 this machine lacks something, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

import vol3d
from vol3d.cli import bundles, cache, check, demo, doctor, evaluate, predict, share, train
from vol3d.cli.console import configure_logging, err, out
from vol3d.cli.failure import deliberate_error, describe_error
from vol3d.cli.interruption import EXIT_CODE, stop_on_signals

logger = logging.getLogger(__name__)
app = typer.Typer(
    name="vol3d",
    help="Run, check and share trained 3D networks on CT and MR volumes. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    bundles.bundles,
    predict.predict,
    evaluate.evaluate,
    train.train,
    check.check,
    demo.demo,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(cache.app, name="cache")
app.add_typer(share.app, name="share")


def _version(requested: bool) -> None:
    if requested:
        out.print(f"vol3d {vol3d.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    configure_logging(debug)


def main() -> None:
    """Run the command line; any deliberate error is one line on stderr and its class's exit code."""
    stop_on_signals()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        # Users add --debug at the end of the line that failed; typer knows it only before the subcommand.
        # Typer ends a command that was interrupted with this exit code.
        exit_code = app(["--debug", *arguments] if debug else arguments, standalone_mode=False)
    except typer.TyperException as refusal:
        message = refusal.format_message()
        if message:  # else typer has printed the help of a command group that was called without a command
            err.print(f"error: {' '.join(message.split())}; see --help", style="red")
        sys.exit(refusal.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or end of input at a question
        exit_code = EXIT_CODE
    except Exception as error:
        logger.debug("command failed", exc_info=True)
        err.print(f"error: {describe_error(error)}", style="red")
        deliberate = deliberate_error(error)
        if deliberate is None:
            err.print("this is a defect of vol3d: run again with --debug and report what it prints")
        sys.exit(1 if deliberate is None else deliberate.exit_code)
    if exit_code == EXIT_CODE:
        err.print(
            "interrupted; what is finished is whole, run the same command again to go on (vol3d train: with --resume)"
        )
    sys.exit(exit_code)
