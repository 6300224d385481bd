"""Names that steer: cells, genes, samples, labels, datasets and files called what does harm.

Tried: tabs, line ends, formulas, markup, quotes, templates, `../`, ANSI sequences, marks that turn
a line round, halves of characters, in every place of a file that has a name, through a real
benchmark, predictor, prediction, explanation, report and crate. Must hold: every table has its
fields and gives the names back, no spreadsheet sees a formula, the report opens in a real browser
without a dialog, a breach of its policy or a request, nothing invisible reaches a terminal, and
nothing is written outside the folder that was named.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from scdrugmap.files import hash_json, write_json
from scdrugmap.plain import UNSEEN, ascii_escapes, printable, visible
from scdrugmap.progress import Progress, say
from scdrugmap.run.journal import HISTORY_FILE, RunFolder
from scdrugmap.run.record import read_run
from scdrugmap.tables import escape, read_table, unescape, write_table
from tests.faults.browser import CHROMIUM, Browser, browser
from tests.faults.hostile_names import (
    ALL,
    CLAIMS,
    DATASET,
    HOSTILE,
    WORDS,
    Elements,
    assert_harmless,
    assert_sound_svg,
    assert_sound_table,
    command,
    hostile_cells,
    raw_tables,
)


@dataclass(frozen=True)
class Made:
    """Where a benchmark of hostile names ended, and what it said."""

    home: Path
    data: Path
    run: Path
    out: str
    err: str
    outside: set[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    home = tmp_path_factory.mktemp("injection")
    work = home / "one" / "two" / "three" / "four"  # so that `../../../../evil` stays in the test
    work.mkdir(parents=True)
    data = work / "=cells $(touch ran) <b>'\x1b[31m\u202e\n.h5ad"
    hostile_cells(data)
    (work / "bench.yaml").write_text(
        json.dumps(
            {
                "data": [
                    {
                        "path": data.name,
                        "name": DATASET,
                        "study": ALL[10],
                        **dict(zip(("tissue", "cancer_type", "drug"), CLAIMS, strict=True)),
                    }
                ],
                "label": "response",
                "sensitive": WORDS[0],
                "resistant": WORDS[1],
                "group": "patient",
                "models": ["constant", "hvg-logreg", "randproj"],
                "controls": False,
                "folds": 2,
                "seeds": 0,
                "draws": 10,
                "min_genes": 1,
            }
        ),
        "utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "WEIGHTS", "DATA"):
            patch.setenv(f"SCDRUGMAP_{name}", str(home / name))
        patch.chdir(work)
        before = below(home)
        code, out, err = command("benchmark", "bench.yaml", "-o", "run")
        assert code == 0, err
        outside = {path for path in below(home) - before if not path.startswith(INSIDE)}
        yield Made(home, data, work / "run", out, err, outside)


INSIDE = ("one/two/three/four/run", "CACHE")


def below(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in home.rglob("*")}


@pytest.mark.parametrize("name", [*HOSTILE, "NUL", "half of a character"])
def test_a_name_in_a_table_is_one_field_and_comes_back(tmp_path: Path, name: str) -> None:
    text = {"NUL": "a\0b", "half of a character": "\udcff\ud800"}.get(name) or HOSTILE[name]
    assert unescape(escape(text)) == text
    target = tmp_path / "t.tsv"
    write_table(pd.DataFrame({text: [text, "x"], "n": [1, 2]}), target)
    assert len(assert_sound_table(target.read_bytes())) == 3
    found = read_table(target)
    assert found[text].tolist() == [text, "x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_on_a_terminal_or_a_page_is_shown_as_it_is(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HOSTILE[name]
    say(f"Notice: {text}")
    with Progress(text, 2) as progress:
        progress._spoke = -100.0  # as if time had passed
        progress.advance(1)
    told = capsys.readouterr().err
    assert told.count("\n") == 2
    assert_harmless(told)
    assert printable(text).isprintable()
    assert not re.search(f"[{UNSEEN}]", visible(text))
    coded = ascii_escapes(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(coded) == {text: [text]}
    assert_harmless(coded)


def test_a_benchmark_of_hostile_names_writes_in_its_folder_only(made: Made) -> None:
    assert made.outside == set()
    names = [path.name for path in made.run.rglob("*")]
    assert names
    for name in names:
        assert re.fullmatch(r"[\w.-]+", name), name


def test_what_a_benchmark_says_is_harmless(made: Made) -> None:
    assert made.out.strip().endswith("report.html")
    assert "labelled cells" in made.err
    assert_harmless(made.out)
    assert_harmless(made.err)


def test_tables_of_a_run_are_sound_and_give_names_back(made: Made) -> None:
    tables = raw_tables(made.run)
    assert len(tables) >= 4
    for raw in tables.values():
        assert_sound_table(raw)
    predictions = next(path for path in made.run.glob("predictions-*.tsv.gz"))
    found = read_table(predictions)
    assert set(found["cell"]) == {f"{ALL[i % len(ALL)]}{i}" for i in range(160)}
    assert set(found["dataset"]) == {DATASET}
    assert set(found["sample"]) == {ALL[i] for i in (0, 3, 9, 10, 16, 18, 22, 25)}


def test_json_of_a_run_is_harmless_and_gives_names_back(made: Made) -> None:
    files = sorted([*made.run.rglob("*.json"), *made.run.rglob("*.jsonl")])
    assert {"run.json", "history.jsonl"} <= {path.name for path in files}
    for path in files:
        assert_harmless(path.read_text("utf-8"))
    assert "\\u202e" in (made.run / "run.json").read_text("utf-8")
    assert [item.name for item in read_run(made.run).datasets] == [DATASET]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_json_is_harmless_and_comes_back(tmp_path: Path, name: str) -> None:
    text = HOSTILE[name]
    write_json(tmp_path / "a.json", {text: [text]})
    folder = RunFolder(tmp_path)
    folder.note("tried", name=text)
    for path, wanted in ((tmp_path / "a.json", {text: [text]}), (tmp_path / HISTORY_FILE, text)):
        written = path.read_text("utf-8")
        assert_harmless(written)
        found = json.loads(written)
        assert (found if path.suffix == ".json" else found["name"]) == wanted
    plain = json.dumps([text], ensure_ascii=False)
    assert hash_json([text]) == hashlib.sha256(plain.encode()).hexdigest(), "hashes stay"


def test_the_report_holds_names_as_text_and_nothing_that_runs_or_fetches(made: Made) -> None:
    page = (made.run / "report.html").read_text("utf-8")
    elements = Elements(page)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "link", "svg"}
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), value
    assert "<img src=x onerror=alert('dataset')>\\u202e\\x1b[31m../x" in elements.text
    assert not re.search(f"[{UNSEEN}]", page)
    policy = next(a["content"] for _, a in elements.found if "http-equiv" in a)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; img-src data:; base-uri 'none'; "
        r"form-action 'none'",
        str(policy),
    )


def test_tables_and_pictures_in_the_report_are_sound(made: Made) -> None:
    page = (made.run / "report.html").read_text("utf-8")
    found = re.findall(r"data:([\w/+.-]+);base64,([\w+/=]+)", page)
    kinds = {kind for kind, _ in found}
    assert {"image/svg+xml", "text/tab-separated-values"} <= kinds
    for kind, coded in found:
        raw = base64.b64decode(coded)
        if kind == "text/tab-separated-values":
            assert_sound_table(raw)
        elif kind == "image/svg+xml":
            assert_sound_svg(raw)


@pytest.mark.slow
def test_exported_figures_and_the_crate_have_harmless_names(made: Made, tmp_path: Path) -> None:
    code, _, err = command(
        *("report", made.run, "--figures", tmp_path / "figures", "--crate", tmp_path / "run.zip")
    )
    assert code == 0, err
    paths = list((tmp_path / "figures").iterdir())
    assert paths
    for path in paths:
        assert re.fullmatch(r"[\w-][\w.-]*", path.name), path.name
        if path.suffix == ".svg":
            assert_sound_svg(path.read_bytes())
        elif path.suffix == ".tsv":
            assert_sound_table(path.read_bytes())
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        for name in archive.namelist():
            assert re.fullmatch(r"[\w./-]+", name), name
            assert ".." not in name
        about = json.loads(archive.read("ro-crate-metadata.json"))
    for item in about["@graph"]:
        assert re.fullmatch(r"[\w./:;,#@?=&%~+-]+", item["@id"]), item["@id"]
    named = {item.get("name") for item in about["@graph"]}
    assert made.data.name in named or DATASET in named


STRICT = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:">
<body><script>alert('inline')</script><img src=x onerror="alert('handler')">
<img src="http://127.0.0.1:9/a.png">"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no page was opened in a real browser")
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.slow
def test_the_browser_tells_what_it_is_asked_to_tell(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "open.html").write_text(
        "<script>alert('ran'); nothing()</script><img src='http://127.0.0.1:9/a.png'>", "utf-8"
    )
    (tmp_path / "strict.html").write_text(STRICT, "utf-8")
    seen = chromium.visit((tmp_path / "open.html").as_uri())
    assert seen.dialogs == ["ran"]
    assert any("nothing" in text for text in seen.errors)
    assert "http://127.0.0.1:9/a.png" in seen.fetched
    seen = chromium.visit((tmp_path / "strict.html").as_uri())
    assert seen.dialogs == []
    assert len(seen.violations) >= 2


OPEN_ALL = """new Promise(done => {
  document.querySelectorAll('details').forEach(part => { part.open = true });
  setTimeout(() => done(document.querySelectorAll('.main-svg').length), 1500);
})"""
N_SCRIPTS = "document.querySelectorAll('script').length"


@pytest.mark.slow
@pytest.mark.parametrize("interactive", [False, True], ids=["plain", "interactive"])
def test_a_browser_opens_the_report_without_dialog_violation_or_request(
    made: Made, chromium: Browser, tmp_path: Path, interactive: bool
) -> None:
    path = made.run / "report.html"
    if interactive:
        path = tmp_path / "interactive.html"
        code, _, err = command("report", made.run, "--interactive", "-o", path)
        assert code == 0, err
    seen = chromium.visit(
        path.as_uri(), OPEN_ALL, N_SCRIPTS, "document.title", point_at="figure", settle_s=0.5
    )
    assert seen.dialogs == []
    assert seen.violations == []
    assert seen.errors == []
    assert seen.fetched == [path.as_uri()]
    n_plots, n_scripts, title = seen.answers
    assert n_scripts == int(interactive)
    assert (n_plots > 0) == interactive
    assert title == "run · scDrugMap report"


@pytest.fixture(scope="module")
def predictor(made: Made) -> Path:
    split, target = made.run.parent / "splits.tsv", made.run.parent / "predictor.zip"
    named = ("--label", "response", "--sensitive", WORDS[0], "--resistant", WORDS[1])
    for arguments in (
        ("split", made.data, *named, "--group", "patient", "--folds", 2, "-o", split),
        (
            *("train", made.data, "--splits", split, "--fold", 0),
            *("--estimator", "hvg-logreg", "-o", target),
        ),
    ):
        code, out, err = command(*arguments)
        assert code == 0, err
        assert_harmless(out + err)
    return target


def test_the_card_of_a_predictor_is_markdown_without_markup_of_others(predictor: Path) -> None:
    from markdown_it import MarkdownIt

    with zipfile.ZipFile(predictor) as archive:
        card = archive.read("README.md").decode("utf-8")
    assert not re.search(f"[{UNSEEN}]", card)
    head, body = card.split("---\n")[1:]
    assert [line.partition(":")[0] for line in head.splitlines()] == [
        "library_name",
        "license",
        "tags",
    ]
    page = Elements(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
    tags = {tag for tag, _ in page.found}
    assert tags <= {"h1", "h2", "p", "ul", "li", "code"}
    code, out, _ = command("predictor", "show", predictor)
    assert code == 0
    assert_harmless(out)


@pytest.mark.slow
def test_predictions_and_explanations_are_sound_tables(
    made: Made, predictor: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("predict", made.data, "--predictor", predictor, "-o", tmp_path / "p.tsv"),
        (
            *("explain", made.data, "--predictor", predictor, "-o", tmp_path / "e.tsv"),
            *("--figures", tmp_path / "figures", "--sample", "patient"),
        ),
    ):
        code, out, err = command(*arguments)
        assert code == 0, err
        assert_harmless(out + err)
    tables = raw_tables(tmp_path)
    assert len(tables) >= 2
    for raw in tables.values():
        assert_sound_table(raw)
    cells = read_table(tmp_path / "p.tsv")["cell"]
    assert set(cells) == {f"{ALL[i % len(ALL)]}{i}" for i in range(160)}
    figures = list((tmp_path / "figures").glob("*.svg"))
    assert figures
    for path in figures:
        assert_sound_svg(path.read_bytes())


@pytest.mark.slow
def test_what_a_check_says_of_hostile_names_is_harmless(made: Made) -> None:
    code, out, err = command("check", made.data)
    assert code == 0, err
    assert "label   response: " in out
    assert_harmless(out + err)
    code, out, _ = command("check", made.data, "--json")
    assert code == 0
    assert_harmless(out)
    labels = {word for label in json.loads(out)["labels"] for word in label["counts"]}
    assert set(WORDS) <= labels


ESC = "\x1b[31m\u202e\n=x"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", f"{ESC}.h5ad"),
        ("check", f"--{ESC}"),
        ("split", "DATA", "--label", ESC, "--group", "patient", "-o", "out.tsv"),
        ("split", "DATA", "--label", "response", "--group", ESC, "-o", "out.tsv"),
        ("check", "DATA", "--gene-id", ESC),
        (ESC,),
        ("embed", "DATA", "--model", ESC, "-o", "out.h5ad"),
        ("train", "DATA", "--model", ESC, "--splits", "s.tsv", "--fold", "0", "-o", "out.zip"),
        ("predict", "DATA", "--predictor", f"{ESC}.zip", "-o", "out.tsv"),
        ("benchmark", f"{ESC}.yaml", "-o", "out"),
        ("report", ESC, "-o", "out.html"),
        ("weights", "show", ESC),
        ("weights", "verify", "scgpt", ESC),
        ("datasets", "show", ESC),
        ("predictor", "show", ESC),
        ("plugins", "show", ESC),
        ("check", "DATA", "--where", f"{ESC}={ESC}"),
    ],
    ids=lambda given: " ".join(given[:2]).encode("unicode_escape").decode() if given else "",
)
def test_errors_about_hostile_names_are_harmless(made: Made, arguments: tuple[str, ...]) -> None:
    given = [made.data if text == "DATA" else text for text in arguments]
    code, out, err = command(*given)
    assert code in (2, 3, 4), err
    assert err
    assert_harmless(out + err)
