"""``scdrugmap models``: what models are installed, what they can do and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from scdrugmap.cards import model_card, model_cards
from scdrugmap.cli.options import json_option, print_json
from scdrugmap.cli.text import columns
from scdrugmap.registry import get_registry

_LICENCE_NOTES = {False: "NON-COMMERCIAL USE ONLY", None: "commercial use: not stated", True: ""}


@click.group(epilog="Example: scdrugmap models list")
def command() -> None:
    """List and show models."""


@command.command("list", epilog="Example: scdrugmap models list --json")
@json_option
def list_models(as_json: bool) -> None:
    """List the installed models."""
    cards = model_cards(get_registry())
    if as_json:
        print_json(cards)
        return
    if not cards:
        click.echo("No model is installed. `scdrugmap plugins list` shows why.")
        return
    rows: list[tuple[str, ...]] = [
        ("MODEL", "CAN", "GENES", "ACCEPTS", "WEIGHTS", "LICENCE", "FROM")
    ]
    rows += [_row(card) for card in cards]
    for line in columns(rows):
        click.echo(line)


@command.command("show", epilog="Example: scdrugmap models show randproj")
@click.argument("name")
@json_option
def show_model(name: str, as_json: bool) -> None:
    """Show all that is known of one model, its options among it."""
    card = model_card(get_registry(), name)
    if as_json:
        print_json(card)
        return
    for line in _lines(card):
        click.echo(line)


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    licence = card.get("weights_licence") or card["code_licence"]
    if card.get("commercial_use") is False:
        licence += " (non-commercial)"
    return (
        card["name"],
        ", ".join(card["capabilities"]),
        card.get("gene_id", "-"),
        ", ".join(card.get("accepts", ["prompts"])),
        _state(card),
        licence,
        card["plugin"],
    )


def _state(card: dict[str, Any]) -> str:
    if card["kind"] == "text":
        return "remote" if card["remote"] else "-"
    if not card["weights"]:
        return "none needed"
    found = [weights["name"] for weights in card["weights"] if weights["found"]]
    return f"found: {', '.join(found)}" if found else "missing"


def _lines(card: dict[str, Any]) -> Iterator[str]:
    yield f"{card['name']}: {card['title']}"
    facts = [
        ("can", ", ".join(card["capabilities"])),
        ("from", card["plugin"]),
        ("contract, numerics", f"{card['contract']}, {card['numerics']}"),
        ("code licence", card["code_licence"]),
        ("homepage", card["homepage"]),
        ("citation", card["citation"]),
    ]
    if card["kind"] == "cell":
        facts += _cell_facts(card)
    else:
        facts.append(("remote", "cells leave this machine" if card["remote"] else "no"))
        facts.append(("secrets", ", ".join(card["secrets"]) or "none"))
    yield from columns([(f"  {name}", value) for name, value in facts])
    if card["kind"] == "cell":
        yield "variants (--set variant=NAME; the first is the default)"
        yield from columns([_variant(variant) for variant in card["variants"]])
        yield from _weights(card)
    if card["option_table"]:
        yield "options (--set key=value)"
        yield from columns([_option(option) for option in card["option_table"]])


def _cell_facts(card: dict[str, Any]) -> list[tuple[str, str]]:
    lora = card["lora"]
    batching = {"length": "cell by cell", "group": "cells of a group see each other"}
    facts = [
        ("genes", f"{card['gene_id']}, at least {card['min_genes']} known ones"),
        ("species", ", ".join(card["species"])),
        ("accepts", ", ".join(card["accepts"])),
        ("batches", batching[card["cell_batching"]]),
        ("adapters", f"r={lora['r']} on {lora['targets']}" if lora else "none"),
    ]
    if card["weights"]:
        note = _LICENCE_NOTES[card["commercial_use"]]
        licence = card["weights_licence"] or card["weights"][0]["licence"]
        facts.append(("weights licence", f"{licence} ({note})" if note else licence))
    return facts


def _variant(variant: dict[str, Any]) -> tuple[str, str, str]:
    sizes = ", ".join(f"{name}={size}" for name, size in variant["sizes"].items())
    return f"  {variant['name']}", variant["title"], sizes


def _option(option: dict[str, Any]) -> tuple[str, ...]:
    default = "" if option["default"] in ("", None) else f"default {option['default']}"
    return (f"  {option['name']}", option["type"], default, option["range"], option["description"])


def _weights(card: dict[str, Any]) -> Iterator[str]:
    if not card["weights"]:
        yield "weights: none needed"
        return
    yield "weights"
    yield from columns(
        [
            (
                f"  {weights['name']}",
                weights["found"] or "missing",
                f"{weights['homepage']}{', needs a login' if weights['needs_login'] else ''}",
                weights["notes"],
            )
            for weights in card["weights"]
        ]
    )
    missing = [weights for weights in card["weights"] if not weights["found"]]
    if missing:
        yield f"  to get {missing[0]['name']}: {missing[0]['how_to_get']}"
