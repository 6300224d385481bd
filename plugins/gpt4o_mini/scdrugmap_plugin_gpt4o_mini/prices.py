"""The dated table of prices; ``--price`` overrides it."""

from __future__ import annotations

import json
import re
from importlib import resources

from scdrugmap.text.budget import Price

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def known_price(name: str) -> tuple[Price | None, str]:
    """Return the price of a model, dated names included, and the month of the table."""
    text = resources.files(__package__).joinpath("prices.json").read_text("utf-8")
    table = json.loads(text)
    found = table["usd_per_million_tokens"].get(_DATE.sub("", name))
    return (None if found is None else Price(**found)), table["as_of"]
