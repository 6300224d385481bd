"""The command line: one thin file per verb, loaded when the verb is called.

The border where errors become one line and an exit code is :func:`main`.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from scdrugmap.errors import ScDrugMapError
from scdrugmap.plain import printable, printable_lines

VERBS: dict[str, tuple[str, str]] = {
    # verb: (module under scdrugmap.cli, one line of help)
    "doctor": ("doctor", "Show what this machine and installation can do."),
    "check": ("check", "Show what a file holds, what is wrong, and which models can use it."),
    "convert": ("convert", "Turn 10x files or tables into h5ad."),
    "embed": ("embed", "Embed cells with one or more models."),
    "merge": ("merge", "Join the shards of one embedding."),
    "split": ("split", "Divide labelled cells into folds that do not leak."),
    "train": ("train", "Train a predictor on one fold."),
    "predict": ("predict", "Predict which cells are sensitive."),
    "evaluate": ("evaluate", "Score predictions, with intervals."),
    "explain": ("explain", "Show which genes drive predictions, and how sure that is."),
    "plan": ("plan", "Show the jobs of a benchmark."),
    "benchmark": ("benchmark", "Run models, baselines and protocols, and report."),
    "step": ("step", "Run one step of a benchmark, as workflow engines do."),
    "report": ("report", "Make one HTML file of a finished run."),
    "throughput": ("throughput", "Measure cells per second, memory and machine share."),
    "models": ("models", "List and show models."),
    "datasets": ("datasets", "List, show, add, fetch, prepare and simulate datasets."),
    "plugins": ("plugins", "List, show, check and start plugins."),
    "weights": ("weights", "List, show, import and verify weights."),
    "predictor": ("predictor", "List and show trained predictors."),
    "cache": ("cache", "Show what is cached and why something is not."),
}

EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a verb's module only when that verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of a typical day, then those of plugins."""
        from scdrugmap.registry import get_registry

        return [*VERBS, *(name for name in get_registry().commands if name not in VERBS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one verb."""
        if name in VERBS:
            module = importlib.import_module(f"scdrugmap.cli.{VERBS[name][0]}")
            command: click.Command = module.command
            return command
        from scdrugmap.registry import get_registry
        from scdrugmap.specs import load_object

        spec = get_registry().commands.get(name)
        return None if spec is None else load_object(spec.factory)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when one is misspelt."""
        import difflib

        if self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with their one-line help, without importing them."""
        from scdrugmap.registry import get_registry

        rows = [(name, text) for name, (_, text) in VERBS.items()]
        extra = get_registry().commands
        rows += [(name, spec.help) for name, spec in extra.items() if name not in VERBS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `scdrugmap check FILE.h5ad`. Every command has --help with an example.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="scdrugmap")
def cli(debug: bool) -> None:
    """Predict, per single cell, whether it is sensitive or resistant to a drug."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the code of the error, if any."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # works anywhere
    # Output piped into `head` ends quietly; a terminated run unwinds, so that files are tidied.
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _terminate)
    try:
        code = cli.main(args=arguments, prog_name="scdrugmap", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except click.exceptions.Exit as err:
        sys.exit(err.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. Run the same command again to go on where it stopped.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as err:
        if debug:
            raise
        told = io.StringIO()
        err.show(file=told)
        click.echo(printable_lines(told.getvalue()), err=True, nl=False)
        sys.exit(err.exit_code)
    except ScDrugMapError as err:
        if debug:
            raise
        show_error(err.message, err.hint)
        sys.exit(err.exit_code)
    except MemoryError:
        if debug:
            raise
        show_error("out of memory", "use a smaller --token-budget or --block-size")
        sys.exit(5)
    except SystemExit as err:
        # click ends so when nobody reads its output any more, after hushing what is left of it;
        # the class that hushes is its own, of which only the name can be asked for
        hushed = type(sys.stdout).__name__.endswith("PacifyFlushWrapper")
        sys.exit(0 if hushed else err.code)
    except OSError as err:
        from scdrugmap.system_errors import resource_error

        short_of = resource_error(err, Path(str(err.filename or "this process")))
        if debug or short_of is None:
            _fail(err, debug)
        else:
            show_error(short_of.message, short_of.hint)
            sys.exit(short_of.exit_code)
    except Exception as err:  # the top of the program: our fault, said in one line
        _fail(err, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(err: Exception, debug: bool) -> NoReturn:
    if debug:
        raise err
    show_error(
        f"unexpected {type(err).__name__}: {' '.join(str(err).split())}",
        "this is a fault of scdrugmap; run again with --debug and report it",
    )
    sys.exit(1)


def show_error(message: str, hint: str) -> None:
    """Print an error as a line that says what and where, and one that says what next."""
    click.echo(f"Error: {printable(message)}", err=True)
    if hint:
        click.echo(f"       {printable(hint)}", err=True)


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
