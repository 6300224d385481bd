"""Few-shot: labelled cells of training groups that are shown before every question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from scdrugmap.errors import DataError
from scdrugmap.text.contract import Example, Label
from scdrugmap.text.questions import GeneLists, facts_of
from scdrugmap.train.gather import Chosen
from scdrugmap.train.scores import empty_cells

if TYPE_CHECKING:
    import pandas as pd

    from scdrugmap.text.contract import TextModel

EXAMPLES_FILE = "examples.json"


class KeptExample(BaseModel):
    """An example as a predictor holds it: no name, no counts, its origin only as a hash.

    The hash tells a query's own sample from others. It hides a name from the reader's eye, not from
    someone who tries names: predictors with examples go where their cells may go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    genes: tuple[str, ...]
    label: Label
    fields: dict[str, str] = {}
    sample: str
    fingerprint: str

    def shown(self) -> Example:
        """Return it as it is put into a question."""
        return Example(self.genes, self.label, self.fields)


_KEPT = TypeAdapter(tuple[KeptExample, ...])


def dump_examples(examples: Sequence[KeptExample]) -> bytes:
    """Return the content of ``examples.json``."""
    rows = [example.model_dump(mode="json") for example in examples]
    return (json.dumps(rows, indent=1, sort_keys=True) + "\n").encode()


def read_examples(data: bytes) -> tuple[KeptExample, ...]:
    """Read ``examples.json``.

    Raises
    ------
    DataError
        It is damaged.
    """
    try:
        return _KEPT.validate_json(data)
    except ValidationError as err:
        first = err.errors()[0]
        raise DataError(
            f"{EXAMPLES_FILE} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="train the predictor again",
        ) from err


def sample_hash(sample: str) -> str:
    """Return what stands for the name of a sample, which is nobody's business."""
    return hashlib.sha256(sample.encode("utf-8", "surrogatepass")).hexdigest()


def choose_examples(
    chosen: Sequence[Chosen],
    splits: pd.DataFrame,
    model: TextModel,
    *,
    fold: int,
    shots: int,
    seed: int,
) -> tuple[tuple[KeptExample, ...], list[Chosen]]:
    """Draw `shots` training cells of each label, spread over groups, in a mixed order.

    Cells without counts are no examples. Groups that also have cells of another role in this fold (random splits) give no example, so
    none shares a group with a cell that is asked about for evaluation.

    Parameters
    ----------
    chosen : sequence of Chosen
        Training cells.
    splits : pandas.DataFrame
        The manifest, for the groups of the other roles.
    model : TextModel
    fold, shots, seed : int

    Returns
    -------
    examples : tuple of KeptExample
    used : list of Chosen
        The same cells.

    Raises
    ------
    DataError
        There are too few such cells of a label.
    """
    chosen = [part.take(~empty_cells(part.cells, part.index)) for part in chosen]
    others = splits[(splits["fold"] == fold) & (splits["role"] != "train")]
    taken = set(others["group"])
    random = np.random.default_rng([seed, shots])
    picked: list[tuple[int, int]] = []  # file, place in its `index`
    for label in ("sensitive", "resistant"):
        of_group: dict[str, list[tuple[int, int]]] = {}
        for number, part in enumerate(chosen):
            table = part.table
            for place in np.flatnonzero((table["label"] == label).to_numpy()):
                group = str(table["group"].iloc[place])
                if group not in taken:
                    of_group.setdefault(group, []).append((number, int(place)))
        n = sum(map(len, of_group.values()))
        if n < shots:
            raise DataError(
                f"fold {fold} has {n:,} {label} training cells in groups without other roles; "
                f"{shots} examples are wanted",
                hint="use fewer --shots, or a split by groups",
            )
        picked += _spread(of_group, shots, random)
    order = random.permutation(len(picked))
    files = [
        chosen[number].take(np.array(sorted(p for f, p in picked if f == number), np.int64))
        for number in range(len(chosen))
    ]
    kept: dict[tuple[int, int], KeptExample] = {}
    for number, part in enumerate(files):
        if len(part.index):
            places = sorted(p for f, p in picked if f == number)
            kept |= {
                (number, place): example
                for place, example in zip(places, _examples(part, model), strict=True)
            }
    examples = tuple(kept[picked[place]] for place in order)
    empty = sum(not example.genes for example in examples)
    if empty:
        raise DataError(
            f"{empty} of the {len(examples)} example cells express no known gene",
            hint="use another --seed; are the names human genes?",
        )
    return examples, [part for part in files if len(part.index)]


def _spread(
    of_group: dict[str, list[tuple[int, int]]], n: int, random: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw `n` cells, one group after the other as long as they last."""
    queues = [
        [cells[place] for place in random.permutation(len(cells))]
        for _, cells in sorted(of_group.items())
    ]
    queues = [queues[place] for place in random.permutation(len(queues))]
    drawn: list[tuple[int, int]] = []
    while len(drawn) < n:
        for queue in queues:
            if queue and len(drawn) < n:
                drawn.append(queue.pop())
    return drawn


def _examples(part: Chosen, model: TextModel) -> list[KeptExample]:
    cells = part.cells.subset(part.index)
    facts = facts_of(cells.obs, model.fields, {})
    lists = GeneLists(cells.genes, model).of(cells.rows(np.arange(cells.n_cells)))
    samples = part.table["sample"].where(part.table["sample"] != "", part.table["group"])
    return [
        KeptExample(
            genes=genes,
            label=label,
            fields=fields,
            sample=sample_hash(str(sample)),
            fingerprint=str(fingerprint),
        )
        for genes, label, fields, sample, fingerprint in zip(
            lists, part.table["label"], facts, samples, cells.fingerprints(), strict=True
        )
    ]
