"""Values, depths and the choice of genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scdrugmap.data.genes import Genes
from scdrugmap.errors import UsageError
from scdrugmap.model.load import parse_options
from scdrugmap.modelkit import Tokens, synthetic_vocabulary
from scdrugmap_plugin_scfoundation import Options
from scdrugmap_plugin_scfoundation.tokenizer import Tokenizer

NAMES = synthetic_vocabulary("symbol")[:6]
T, S = 6, 7


def tokenise(rows: list[list[float]], genes: tuple[str, ...] = NAMES, **options: object) -> Tokens:
    tokenizer = Tokenizer(
        {name: token for token, name in enumerate(NAMES)}, Options.model_validate(options)
    )
    tokenizer.bind(Genes.from_names(list(genes), kind="symbol"))
    matrix = csr_matrix(np.array(rows, np.float32))
    return tokenizer.encode(matrix, np.array([f"cell {n}" for n in range(len(rows))], object))


def as_dict(tokens: Tokens, cell: int = 0) -> dict[int, float]:
    """Token id to value."""
    part = slice(tokens.start[cell], tokens.start[cell + 1])
    ids, values = tokens.flat["id"][part], tokens.flat["value"][part]
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def test_a_cell_is_its_depths_and_its_genes_in_the_order_of_the_list() -> None:
    tokens = tokenise([[5, 0, 2, 3, 0, 0]], NAMES[::-1])
    assert tokens.flat["id"].tolist() == [S, T, 2, 3, 5]
    assert tokens.flat["column"].tolist() == [-1, -1, 3, 2, 0]


def test_counts_are_scaled_to_ten_thousand_and_logged() -> None:
    found = as_dict(tokenise([[5, 0, 2, 3, 0, 0]]))
    expected = {
        S: np.log10(10),
        T: 4,
        0: np.log1p(5000),
        2: np.log1p(2000),
        3: np.log1p(3000),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_genes_outside_the_list_do_not_count() -> None:
    with_unknown = tokenise([[5, 0, 2, 3, 0, 0, 70]], (*NAMES, "NO-GENE"))
    assert as_dict(with_unknown) == as_dict(tokenise([[5, 0, 2, 3, 0, 0]]))


@pytest.mark.parametrize(
    ("resolution", "target"),
    [("t4", 4), ("t3.5", 3.5), ("f2", np.log10(20)), ("f0.5", np.log10(5)), ("a1.5", 2.5)],
)
def test_target_depth_follows_the_resolution(resolution: str, target: float) -> None:
    found = as_dict(tokenise([[5, 0, 2, 3, 0, 0]], target_resolution=resolution))
    assert found[T] == pytest.approx(target)
    assert found[S] == pytest.approx(1)


@pytest.mark.parametrize("text", ["4", "t", "t0", "f0", "f-2", "x4", "t4 ", "t1e3", "t103"])
def test_a_resolution_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="target_resolution="):
        parse_options(Options, {"target_resolution": text}, "scfoundation")


@pytest.mark.parametrize("row", [[1, 0, 0, 0, 0, 0], [0.5, 0.25, 0, 0, 0, 0]])
def test_depths_of_0_and_less_stay(row: list[float]) -> None:
    tokens = tokenise([row], target_resolution="a0", pre_normalized=False)
    assert tokens.flat["id"][:2].tolist() == [S, T]
    assert tokens.flat["value"][:2].tolist() == pytest.approx([np.log10(sum(row))] * 2)


def test_log_normalised_cells_are_told_by_their_own_values() -> None:
    logs = [0.5, 0, 2, 1.5, 0, 0]
    tokens = tokenise([logs, [5, 0, 2, 3, 0, 0]])
    assert as_dict(tokens) == pytest.approx({S: np.log10(4), T: 4, 0: 0.5, 2: 2, 3: 1.5})
    assert as_dict(tokens, 1) == as_dict(tokenise([[5, 0, 2, 3, 0, 0]]))


def test_what_the_user_says_of_the_values_wins() -> None:
    assert as_dict(tokenise([[5, 0, 2, 3, 0, 0]], pre_normalized=True))[0] == 5
    fractions = as_dict(tokenise([[0.5, 0, 0.2, 0.3, 0, 0]], pre_normalized=False))
    assert fractions[0] == pytest.approx(np.log1p(5000))


@pytest.mark.parametrize(("text", "value"), [("T", True), ("F", False), ("none", None)])
def test_the_letters_of_the_original_are_understood(text: str, value: bool | None) -> None:
    parsed = parse_options(Options, {"pre_normalized": text}, "scfoundation")
    assert parsed == Options(pre_normalized=value)


def test_the_highest_genes_stay_and_the_depth_counts_all() -> None:
    tokens = tokenise([[4, 1, 2, 2, 1, 0], [0, 0, 0, 0, 3, 7]], max_genes=2)
    whole = tokenise([[4, 1, 2, 2, 1, 0], [0, 0, 0, 0, 3, 7]])
    assert list(as_dict(tokens)) == [S, T, 0, 2]
    assert as_dict(tokens).items() <= as_dict(whole).items()
    assert as_dict(tokens, 1) == as_dict(whole, 1)


def test_cell_without_known_genes_is_marked_unusable() -> None:
    tokens = tokenise([[0] * 6, [1] * 6, [0] * 6])
    assert tokens.usable.tolist() == [False, True, False]


def test_no_cells_give_no_tokens() -> None:
    tokenizer = Tokenizer({name: token for token, name in enumerate(NAMES)}, Options(max_genes=2))
    tokenizer.bind(Genes.from_names(list(NAMES), kind="symbol"))
    tokens = tokenizer.encode(csr_matrix((0, 6), dtype=np.float32), np.empty(0, object))
    assert tokens.n_cells == 0
    assert tokens.start.tolist() == [0]
