"""The cell map: deterministic, blind to labels, drawn from finished steps when it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scdrugmap.config import make_config
from scdrugmap.run import cellmap
from scdrugmap.run.cohort import open_sources, read_cohort
from scdrugmap.testing import synthetic_adata


def make(folder: Path, *, n_cells: int = 120, flip: bool = False) -> tuple[np.ndarray, list[str]]:
    folder.mkdir()
    adata = synthetic_adata(n_cells, 600, n_patients=4)
    if flip:
        adata.obs["response"] = adata.obs["response"].cat.rename_categories(
            {"sensitive": "resistant", "resistant": "sensitive"}
        )
    adata.write_h5ad(folder / "cohort.h5ad")
    fields = {"data": str(folder / "cohort.h5ad"), "label": "response", "group": "patient"}
    config = make_config(fields)
    with open_sources(config) as sources:
        table = cellmap.cell_map(read_cohort(config), sources, folder)
    return table[["x", "y"]].to_numpy(), [path.name for path in folder.glob("map-*")]


def test_the_map_is_deterministic_and_blind_to_labels(tmp_path: Path) -> None:
    one, kept = make(tmp_path / "a")
    two, _ = make(tmp_path / "b", flip=True)
    assert np.array_equal(one, two)
    assert one.shape == (120, 2)
    assert len(kept) == 1


def test_a_kept_map_is_read_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    points, [name] = make(tmp_path / "a")
    config = make_config(
        {"data": str(tmp_path / "a" / "cohort.h5ad"), "label": "response", "group": "patient"}
    )
    path = tmp_path / "a" / name
    before = path.read_bytes()
    with open_sources(config) as sources:
        cohort = read_cohort(config)
        path.write_bytes(before[:50])
        again = cellmap.cell_map(cohort, sources, tmp_path / "a")
        assert path.read_bytes() == before
        assert np.array_equal(again[["x", "y"]].to_numpy(), points)


def test_large_files_are_drawn_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cellmap, "MOST_CELLS", 50)
    points, _ = make(tmp_path / "a")
    assert len(points) == 50
    assert "50 of 120 cells" in cellmap.map_method(120)


@pytest.mark.slow
def test_umap_is_used_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("umap")
    threads = torch.get_num_threads()
    one, _ = make(tmp_path / "a", n_cells=520)
    two, _ = make(tmp_path / "b", n_cells=520)
    assert np.array_equal(one, two)
    assert cellmap.map_method(520).startswith("UMAP of 520 cells")
    assert torch.get_num_threads() == threads  # the bits of whatever is trained next hang on it
