"""Explain predictors on a file; what ``scdrugmap explain`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import DataError, UsageError
from scdrugmap.explanation.differential import differential_expression
from scdrugmap.explanation.drawing import draw_cells
from scdrugmap.explanation.explained import Explained, explain_cells
from scdrugmap.explanation.methods import refuse_unexplainable
from scdrugmap.explanation.result import CONSENSUS, Explanation
from scdrugmap.explanation.settings import Explaining
from scdrugmap.progress import say

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.data.cells import Cells
    from scdrugmap.data.labels import LabelMap
    from scdrugmap.explanation.settings import Image, TestUnit
    from scdrugmap.run.store import Store
    from scdrugmap.train.predictor import Predictor

FIGURES = ("explain_bars", "explain_dots", "explain_stability", "explain_expression")
"""Names of the figures' files, without their ending."""


def explain(
    source: str | Path | AnnData,
    predictors: Mapping[str, Predictor],
    *,
    settings: Explaining | None = None,
    sample: str | None = None,
    label: str | None = None,
    labels: LabelMap | None = None,
    unit: TestUnit = "auto",
    weights: Mapping[str, str] | None = None,
    store: Store | None = None,
    device: str = "auto",
    token_budget: int | None = None,
    min_genes: int | None = None,
    allow_mismatch: bool = False,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Explanation:
    """Explain which genes drive the answers of predictors to the cells of a file.

    Parameters
    ----------
    source : path or AnnData
    predictors : mapping of str to Predictor
        One or several; several are compared and averaged.
    settings : Explaining, optional
    sample : str, optional
        Column of obs with the sample; default: the one named in training, if there is one.
    label : str, optional
        Column of obs with the response; without it the classes are those that are predicted.
    labels : LabelMap, optional
        What its words mean.
    unit : {"auto", "sample", "cell"}
        Of the test of differential expression.
    weights : mapping of str to str, optional
        Model to folder.
    store, device, token_budget, min_genes, allow_mismatch
        See :meth:`scdrugmap.train.predictor.Predictor.scorer`.
    reading : mapping, optional
        Arguments of :func:`scdrugmap.data.cells.open_cells`.
    quiet : bool

    Raises
    ------
    UsageError
        A predictor of which no gene can be named; a column that does not exist; a test without
        labels.
    DataError
        The cells cannot be used.
    PluginError, WeightsError
        The model or its weights are missing or others; captum is missing.
    """
    settings = settings or Explaining()
    if not predictors:
        raise UsageError("no predictor to explain", hint="name one with --predictor")
    for predictor in predictors.values():
        refuse_unexplainable(predictor.info)
    first = next(iter(predictors.values()))
    parts: list[Explained] = []
    drawn = differential = None
    for name, predictor in predictors.items():
        with _opened(source, predictor, sample, dict(reading or {})) as cells:
            if drawn is None:
                for notice in cells.notices:
                    say(f"Notice: {notice}", quiet=quiet)
                remembered = first.info.sample_column
                drawn = draw_cells(
                    cells,
                    most=settings.max_cells,
                    seed=settings.seed,
                    sample=sample or (remembered if remembered in cells.obs.columns else None),
                    label=label,
                    meaning=labels,
                )
                for notice in drawn.notices:
                    say(f"Notice: {notice}", quiet=quiet)
                differential = differential_expression(cells, drawn, unit=unit, seed=settings.seed)
                place = (cells.name, cells.mapping.column, cells.matrix.location)
                genes = cells.genes.identity()
            elif list(cells.genes.identity()) != list(genes):
                raise DataError(
                    f"{name} reads other genes of {cells.where} than the first predictor does",
                    hint="name the values that all shall read: --layer, --values",
                )
            scorer = predictor.scorer(
                weights=(weights or {}).get(predictor.info.name),
                store=store,
                device=device,
                token_budget=token_budget,
                min_genes=min_genes,
                allow_mismatch=allow_mismatch,
                quiet=quiet,
            )
            parts.append(
                explain_cells(name, predictor, scorer, cells, drawn, settings, quiet=quiet)
            )
    assert drawn is not None
    return Explanation.of(parts, drawn, differential, settings, *place)


def explain_file(
    source: Path,
    predictors: Mapping[str, Predictor],
    output: Path,
    *,
    figures: Path | None = None,
    image: Image = "svg",
    summary: Path | None = None,
    quiet: bool = False,
    **how: Any,
) -> Explanation:
    """Explain predictors on a file and write the table, the figures and the summary.

    Parameters
    ----------
    source : Path
    predictors : mapping of str to Predictor
    output : Path
        Table, :data:`~scdrugmap.explanation.result.COLUMNS`.
    figures : Path, optional
        Folder, made if need be.
    image : {"svg", "png"}
    summary : Path, optional
        :meth:`Explanation.record` as JSON.
    quiet, how
        See :func:`explain`.
    """
    from scdrugmap.files import together, write_json
    from scdrugmap.tables import write_table

    found = explain(source, predictors, quiet=quiet, **how)
    told = set(found.drawn.notices)
    for notice in found.notices:
        if notice not in told:
            say(f"Notice: {notice}", quiet=quiet)
    drawn = [] if figures is None else [figures / f"{name}.{image}" for name in FIGURES]
    with together(*drawn, summary, output):
        if figures is not None:
            write_figures(found, figures, image)
        if summary is not None:
            write_json(summary, found.record())
        write_table(found.table, output)
    for line in found.lines():
        say(line, quiet=quiet)
    return found


def write_figures(found: Explanation, folder: Path, image: Image = "svg") -> None:
    """Write all figures of an explanation into a folder."""
    from scdrugmap.files import atomic_path

    folder.mkdir(parents=True, exist_ok=True)
    for picture in found.pictures(image):
        with atomic_path(folder / f"{picture.file}.{image}") as temporary:
            temporary.write_bytes(picture.image)


def name_predictors(paths: Sequence[Path]) -> dict[str, Path]:
    """Name predictors after their files; those of one name get a number.

    Raises
    ------
    UsageError
        A file is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a predictor is given twice", hint="give different files")
    named: dict[str, Path] = {}
    for path in paths:
        name, number = path.stem, 2
        while name in named or name == CONSENSUS:
            name, number = f"{path.stem} ({number})", number + 1
        named[name] = path
    return named


def _opened(
    source: str | Path | AnnData, predictor: Predictor, sample: str | None, reading: dict[str, Any]
) -> Cells:
    from scdrugmap.train.predict import open_like_training

    return open_like_training(source, predictor.info, sample=sample, **reading)  # type: ignore[arg-type]
