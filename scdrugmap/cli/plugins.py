"""``scdrugmap plugins``: what is installed, why something is not, and how to begin a new one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from scdrugmap.cli.options import PATH, json_option, parse_settings, print_json
from scdrugmap.cli.text import columns
from scdrugmap.errors import PluginError
from scdrugmap.registry import PluginRecord, get_registry

_MARKS = {"passed": "pass", "failed": "FAIL", "skipped": "skip"}


@click.group(epilog="Example: scdrugmap plugins new my_model")
def command() -> None:
    """List, show, check and start plugins."""


@command.command("list", epilog="Example: scdrugmap plugins list --json")
@json_option
def list_plugins(as_json: bool) -> None:
    """List all plugins; a broken one is listed with its reason and hurts nobody.

    SCDRUGMAP_PLUGINS=a,b loads these plugins only, SCDRUGMAP_PLUGINS= the built-in ones only.
    """
    records = get_registry().plugins
    if as_json:
        print_json([asdict(record) for record in records])
        return
    rows: list[tuple[str, ...]] = [
        ("PLUGIN", "VERSION", "DISTRIBUTION", "CONTRACT", "HOOKS", "STATUS", "PROVIDES")
    ]
    rows += [_row(record) for record in records]
    reasons = [(), *(record.reasons for record in records)]
    for line, notes in zip(columns(rows), reasons, strict=True):
        click.echo(line)
        for note in notes:
            click.echo(f"    {note}")


@command.command("show", epilog="Example: scdrugmap plugins show baselines")
@click.argument("name")
@json_option
def show_plugin(name: str, as_json: bool) -> None:
    """Show one plugin: where it comes from, what it provides, what is wrong with it."""
    records = get_registry().plugin(name)
    if as_json:
        print_json([asdict(record) for record in records])
        return
    for record in records:
        for line in _lines(record):
            click.echo(line)


@command.command("check", epilog="Example: scdrugmap plugins check randproj")
@click.argument("name")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Option of the model; repeatable."
)
@click.option("--only", multiple=True, metavar="CHECK", help="Run this check only; repeatable.")
@json_option
def check_model(name: str, settings: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """Run the conformance kit on a model, by default on its variant `tiny`.

    Exit code 4 if a check fails.
    """
    from scdrugmap.testing.checks import run_checks
    from scdrugmap.testing.subject import Subject

    subject = Subject.from_settings(
        get_registry().model(name), parse_settings(settings, (name,))[name]
    )
    results = []
    for result in run_checks(subject, only):
        results.append(result)
        if not as_json:
            reason = f"\n      {result.reason}" if result.reason else ""
            click.echo(f"{_MARKS[result.status]}  {result.name}: {result.description}{reason}")
    if as_json:
        print_json([asdict(result) for result in results])
    failed = [result.name for result in results if result.status == "failed"]
    if failed:
        raise PluginError(
            f"{name}: {len(failed)} of {len(results)} checks failed: {', '.join(failed)}"
        )


@command.command(
    "new",
    epilog="Example: scdrugmap plugins new my_model --into plugins; pip install -e plugins/my_model; scdrugmap plugins check my_model",
)
@click.argument("name")
@click.option(
    "--into", type=PATH, default=Path(), help="Folder to write to; default: the current one."
)
@click.option("--title", default="", help="Name as people write it; default: from NAME.")
def new_plugin(name: str, into: Path, title: str) -> None:
    """Write a working plugin with one model into a new folder NAME."""
    from scdrugmap.testing.scaffold import new_plugin as write_plugin

    click.echo(write_plugin(name, into, title=title))


def _row(record: PluginRecord) -> tuple[str, ...]:
    return (
        record.name or "-",
        record.version or "-",
        record.distribution or "-",
        ", ".join(map(str, record.contracts)) or "-",
        ", ".join(hook.removeprefix("scdrugmap_") for hook in record.hooks) or "-",
        record.status,
        ", ".join(item.partition(":")[2] for item in record.provides) or "-",
    )


def _lines(record: PluginRecord) -> Iterator[str]:
    yield f"{record.name} ({record.status})"
    facts = [
        ("distribution", f"{record.distribution} {record.version}".strip() or "-"),
        ("module", record.module or "-"),
        ("contract", ", ".join(map(str, record.contracts)) or "-"),
        ("hooks", ", ".join(record.hooks) or "-"),
        ("provides", ", ".join(record.provides) or "-"),
        *(("reason", reason) for reason in record.reasons),
    ]
    yield from columns([(f"  {name}", value) for name, value in facts])
