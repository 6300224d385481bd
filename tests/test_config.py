"""A benchmark's configuration: read with line numbers, written, and read back as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from scdrugmap.config import (
    BenchmarkConfig,
    default_models,
    make_config,
    read_config,
    write_config,
)
from scdrugmap.errors import PluginError, UsageError

GOOD = """\
# a comment
data:
  - path: cells/a.h5ad
    study: S1
  - cells/b.h5ad
label: response
group: patient
models: [constant, randproj]
settings:
  randproj: {dim: 64}
folds: 4
seeds: [0, 1]
"""


def refusal(tmp_path: Path, text: str) -> UsageError:
    path = tmp_path / "bench.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(GOOD)
    config = read_config(tmp_path / "bench.yaml")
    assert [item.path for item in config.data] == [
        tmp_path / "cells/a.h5ad",
        tmp_path / "cells/b.h5ad",
    ]
    assert [item.dataset for item in config.data] == ["a", "b"]
    assert config.settings == {"randproj": {"dim": "64"}}


def test_a_written_configuration_is_read_back_as_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(GOOD)
    config = read_config(tmp_path / "bench.yaml").resolved()
    (tmp_path / "runs").mkdir()
    write_config(config, tmp_path / "runs" / "config.yaml")
    again = read_config(tmp_path / "runs" / "config.yaml")
    assert again.resolved() == config
    assert again.identity() == config.identity()
    assert "../cells/a.h5ad" in (tmp_path / "runs" / "config.yaml").read_text()


def test_where_the_files_lie_and_the_device_do_not_change_the_identity(tmp_path: Path) -> None:
    one = make_config({"data": "x/a.h5ad", "label": "response", "device": "cpu"})
    two = make_config({"data": "y/a.h5ad", "label": "response", "token_budget": 9})
    assert one.identity() == two.identity()
    assert one.identity() != make_config({"data": "x/a.h5ad", "label": "other"}).identity()


def test_unknown_key_names_line_key_and_the_nearest(tmp_path: Path) -> None:
    err = refusal(tmp_path, GOOD + "sedes: [3]\n")
    assert "line 13" in err.message
    assert "'sedes'" in err.message
    assert "seeds" in err.hint


def test_unknown_key_of_a_file_names_the_keys_of_files(tmp_path: Path) -> None:
    err = refusal(tmp_path, GOOD.replace("study: S1", "sudy: S1"))
    assert "line 4" in err.message
    assert "study" in err.hint
    assert "folds" not in err.hint


def test_bad_value_names_line_key_value_and_meaning(tmp_path: Path) -> None:
    err = refusal(tmp_path, GOOD.replace("folds: 4", "folds: 1"))
    assert "line 11" in err.message
    assert "folds = 1" in err.message
    assert "greater than or equal to 2" in err.message
    assert "folds of a protocol" in err.hint


def test_missing_key_is_named_with_its_meaning(tmp_path: Path) -> None:
    err = refusal(tmp_path, GOOD.replace("label: response\n", ""))
    assert "'label' is missing" in err.message
    assert "response" in err.hint


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("label: [", "no YAML"),
        ("- a\n- b\n", "holds no keys"),
        ("", "holds no keys"),
        ("label: a\nlabel: b\n", "line 2"),
        (GOOD.replace("cells/b.h5ad", "other/a.h5ad"), "two files are called 'a'"),
        (GOOD.replace("models: [constant, randproj]", "models: [constant]"), "randproj"),
        (GOOD.replace("seeds: [0, 1]", "seeds: [1, 1]"), "1 is there twice"),
        (GOOD.replace("seeds: [0, 1]", "seeds: [-1]"), "must not be negative"),
        (GOOD + "where: [patient]\n", "COLUMN=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, part: str) -> None:
    assert part in refusal(tmp_path, text).message


def test_aliases_that_grow_without_bound_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="more than 20,000 values"):
        read_config(path)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(UsageError, match="no text"):
        read_config(tmp_path / "binary.yaml")


def test_default_models_are_the_built_in_estimators_and_randproj() -> None:
    config = make_config({"data": "a.h5ad", "label": "response"}).resolved()
    assert config.models == default_models()
    assert {"constant", "technical", "hvg-logreg", "pseudobulk-logreg"} < set(config.models)
    assert config.models[-1] == "randproj"


def test_heads_are_logistic_for_sound_and_mlp_for_paper() -> None:
    config = make_config({"data": "a.h5ad", "label": "r", "heads": {"paper": "logistic"}})
    assert config.resolved().heads == {"sound": "logistic", "paper": "logistic"}
    assert make_config({"data": "a.h5ad", "label": "r"}).resolved().heads["paper"] == "mlp"


def test_models_and_protocols_that_do_not_exist_are_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError) as caught:
        make_config({"data": "a.h5ad", "label": "r", "models": "randprj"}).resolved()
    assert "randproj" in caught.value.hint
    with pytest.raises(UsageError, match="pooled-grop"):
        make_config({"data": "a.h5ad", "label": "r", "protocols": "pooled-grop"}).resolved()


def test_every_field_is_described() -> None:
    assert [
        name for name, field in BenchmarkConfig.model_fields.items() if not field.description
    ] == []


def test_paper_is_the_protocol_with_the_settings_of_its_authors() -> None:
    config = make_config({"data": "a.h5ad", "label": "r", "protocols": ["pooled-group", "paper"]})
    assert config.protocols == ("pooled-group", "paper-pooled")
    assert (config.n_folds("sound"), config.n_folds("paper")) == (5, 10)
    same = {"data": "a.h5ad", "label": "r", "protocols": ["paper", "paper-pooled"]}
    with pytest.raises(UsageError, match="is there twice"):
        make_config(same)


def test_strategies_are_those_of_training() -> None:
    from scdrugmap.train.settings import MODEL_STRATEGIES

    for strategy in (*MODEL_STRATEGIES, "prompt"):
        make_config({"data": "a.h5ad", "label": "r", "strategies": strategy})
    with pytest.raises(UsageError, match=r"strategies\.0 = 'lorra'") as caught:
        make_config({"data": "a.h5ad", "label": "r", "strategies": ["lorra"]})
    assert "'lora'" in caught.value.message


def test_controls_are_all_none_or_some() -> None:
    fields = {"data": "a.h5ad", "label": "r"}
    assert make_config({**fields, "controls": True}) == make_config(fields)
    assert make_config({**fields, "controls": False}).controls == ()
    assert make_config({**fields, "controls": "technical"}).controls == ("technical",)


def test_unknown_keys_of_nested_records_name_the_keys_there(tmp_path: Path) -> None:
    err = refusal(tmp_path, GOOD + "tuning:\n  patiance: 3\n")
    assert "line 14" in err.message
    assert "'tuning.patiance'" in err.message
    assert "did you mean patience?" in err.hint
    err = refusal(tmp_path, GOOD + "overrides:\n  randproj:\n    tuning: {epochs: 3}\n")
    assert "line 15" in err.message
    assert "learning_rate" in err.hint
    assert "folds" not in err.hint


def test_facts_of_a_file_win_over_those_of_the_papers_dataset() -> None:
    config = make_config(
        {
            "data": [
                {"path": "a.h5ad", "paper": "P33", "drug": "another"},
                {"path": "b.h5ad", "paper": "P99"},
            ],
            "label": "r",
        }
    )
    facts = config.data[0].facts()
    assert facts["drug"] == "another"
    assert facts["collection"] == "primary"
    assert facts["study"]
    with pytest.raises(UsageError, match="no dataset 'P99'"):
        config.data[1].facts()


def test_targets_need_a_protocol_that_holds_something_out() -> None:
    fields = {"data": "a.h5ad", "label": "r", "targets": ["a"]}
    with pytest.raises(UsageError, match="none of the protocols holds anything out"):
        make_config(fields).resolved()
    assert make_config({**fields, "protocols": ["lodo", "paper"]}).resolved().targets == ("a",)
