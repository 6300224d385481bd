"""Figures as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from scdrugmap.report import figures
from scdrugmap.report.export import file_name, write_figures
from scdrugmap.report.style import Picture


def picture(file: str = "overview") -> Picture:
    rows = pd.DataFrame(
        [("a <b>", "pooled-group", "sound", 0.6, 0.5, 0.7)],
        columns=["name", "protocol", "family", "value", "ci_low", "ci_high"],
    )
    return figures.intervals(
        rows, title="AUROC", reference=0.5, reference_name="constant", file=file
    )


def test_a_figure_is_written_for_print_with_its_table(tmp_path: Path) -> None:
    written = write_figures([picture()], tmp_path / "figures")
    assert [path.name for path in written] == ["overview.svg", "overview.pdf", "overview.tsv"]
    svg = (tmp_path / "figures" / "overview.svg").read_bytes()
    assert b"prefers-color-scheme" not in svg
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.text]
    assert "a <b>" in texts
    pdf = (tmp_path / "figures" / "overview.pdf").read_bytes()
    assert pdf[:5] == b"%PDF-"
    assert b"CreationDate" not in pdf
    assert b"0.6" in (tmp_path / "figures" / "overview.tsv").read_bytes()


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for place in ("one", "two"):
        write_figures([picture()], tmp_path / place)
    for name in ("overview.svg", "overview.pdf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_names_never_leave_the_folder_or_meet(tmp_path: Path) -> None:
    one = picture("../../etc/passwd")
    written = write_figures([one, replace(one, file="..\\..\\ETC passwd")], tmp_path / "figures")
    assert {path.parent for path in written} == {tmp_path / "figures"}
    assert len({path.name.lower() for path in written}) == 6
    assert file_name("///") == "figure"
    assert len(file_name("x" * 500)) == 100


def test_a_map_of_cells_stays_small_as_a_vector_file(tmp_path: Path) -> None:
    points = pd.DataFrame({"x": range(5000), "y": range(5000), "label": "sensitive"})
    drawn = figures.cell_map(points, title="Map", colour="label", method="PCA", file="map")
    write_figures([drawn], tmp_path / "figures")
    assert (tmp_path / "figures" / "map.svg").stat().st_size < 300_000
    assert (tmp_path / "figures" / "map.pdf").stat().st_size < 300_000
