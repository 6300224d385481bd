"""Each conformance check catches a deliberately broken model; correct ones pass all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # the toy models are imported by name, here and in child processes

from toy_models import GROUP_SPEC, SPEC, ForgetfulOptions, Options  # noqa: E402

from scdrugmap.errors import UsageError  # noqa: E402
from scdrugmap.specs import Capability, ModelSpec  # noqa: E402
from scdrugmap.testing import ModelConformance, Subject, all_checks, run_checks  # noqa: E402

# fault, the check that must catch it, a part of the reason
FAULTS = [
    ("needs_weights", "builds_without_weights", "FileNotFoundError: no weights"),
    ("ignores_seed", "builds_without_weights", "the seed does not change the random tensors"),
    ("draws_without_seed", "builds_without_weights", "two builds with one seed differ in "),
    ("no_layers", "builds_without_weights", "no submodule `layers`"),
    ("numpy_rng", "global_rng_untouched", "generator of numpy"),
    ("python_rng", "global_rng_untouched", "generator of random"),
    ("torch_rng", "global_rng_untouched", "generator of torch"),
    ("opens_socket", "no_network", "tries to use the network: connect to ('198.51.100.7', 443)"),
    ("coverage", "binding", "n_matched is 599, matched holds 600 True"),
    ("binding_remembers", "binding", "after another file was bound before"),
    ("no_column", "token_arrays", "flat['column']"),
    ("last_of_block", "tokens_ignore_block_borders", "in blocks of 1 cells, flat['value']"),
    ("scales_by_block", "tokens_ignore_block_borders", "in blocks of 1 cells, flat['value']"),
    ("draws_by_place", "tokens_ignore_other_cells", "in another order, flat['gene']"),
    ("last_of_block", "tokens_ignore_other_cells", "in another order, flat['value']"),
    ("tokens_of_unknown_genes", "tokens_ignore_unknown_genes", "with unknown genes between"),
    ("column_order", "column_order_changes_nothing", "with the columns shuffled, flat['value']"),
    ("draws_by_column", "column_order_changes_nothing", "with the columns shuffled, flat["),
    ("index_type", "storage_changes_nothing", "from read-only rows with 64-bit indices"),
    ("changes_input", "input_unmodified", "encode() changed rows.data in place"),
    ("never_cuts", "long_cell_is_cut", "has 364 tokens; traits.max_tokens is 64"),
    ("redraws", "long_cell_is_cut", "the second time, flat['gene']"),
    ("all_usable", "unusable_cell", "is not marked cell['usable'] = False"),
    ("padding_averaged", "padding_and_batch_size_change_nothing", "the embedding of cell"),
    ("padding_attended", "padding_and_batch_size_change_nothing", "the embedding of cell"),
    ("batch_normalised", "padding_and_batch_size_change_nothing", "the embedding of cell"),
    ("double_precision", "output", "the network returns torch.float64"),
    ("constant", "output", "have the same embedding"),
    ("too_wide", "output", "returns a tensor of shape"),
    ("infinite", "output", "not finite"),
    ("always_dropout", "eval_is_deterministic", "the second time, the embedding of cell"),
    ("unused_parameter", "gradients_reach_parameters", "decoder.weight, decoder.bias"),
    ("detached", "gradients_reach_parameters", "gene.weight, value.weight, value.bias"),
    ("hidden_tensor", "state_dict_round_trip", "after load_state_dict, the output of cell"),
    ("caches_table", "state_dict_round_trip", "after load_state_dict, the output of cell"),
    ("no_targets", "lora_targets_exist", "match none of the 2 linear layers"),
    ("stock_layers", "lora_targets_exist", "has no effect: torch.nn.modules.transformer"),
    ("reads_weight", "lora_gradients", "adapter layers.0.attention.q_proj has no effect"),
    ("weak_adapter", "lora_gradients", "the median is"),
    ("adapter_gone_in_eval", "lora_acts_in_eval", "the two effects differ by"),
    ("short_cut", "lora_short_cuts", "in inference mode, the output of cell"),
    ("reads_weight_too", "lora_merge", "with merged adapters, the output of cell"),
    ("caches_adapter", "lora_file_round_trip", "with adapters from a file, the output of cell"),
]


def outcome(spec: ModelSpec, check: str, options: Options | None = None) -> tuple[str, str]:
    (result,) = run_checks(Subject(spec, options), [check])
    return result.status, result.reason


@pytest.mark.parametrize(("fault", "check", "reason"), FAULTS)
def test_check_catches(fault: str, check: str, reason: str) -> None:
    status, said = outcome(SPEC, check, Options(fault=fault))
    assert (status, reason in said) == ("failed", True), said
    assert "\n" not in said


def test_options_in_a_heavy_module_are_caught() -> None:
    from toy_networks import HeavyOptions

    spec = SPEC.model_copy(update={"options": HeavyOptions})
    status, reason = outcome(spec, "light_import")
    assert status == "failed"
    assert "importing toy_networks imports " in reason
    assert "torch" in reason


def test_a_plugin_that_cannot_be_imported_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_broken").mkdir()
    (tmp_path / "toy_broken" / "__init__.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = SPEC.model_copy(update={"factory": "toy_broken.model:build"})
    status, reason = outcome(spec, "light_import")
    assert status == "failed"
    assert "No module named 'no_such_module_at_all'" in reason


def test_options_that_change_in_json_are_caught() -> None:
    spec = SPEC.model_copy(update={"options": ForgetfulOptions})
    assert outcome(spec, "spec_survives_json") == (
        "failed",
        "the options change on their way through JSON: places",
    )


def test_an_options_class_that_cannot_be_found_again_is_caught() -> None:
    class Local(Options):
        pass

    status, reason = outcome(SPEC.model_copy(update={"options": Local}), "spec_survives_json")
    assert status == "failed"
    assert "<locals>" in reason


def test_options_of_another_class_are_caught() -> None:
    spec = SPEC.model_copy(update={"options": ForgetfulOptions})
    status, reason = outcome(spec, "spec_survives_json", Options())
    assert (status, "not the spec's ForgetfulOptions" in reason) == ("failed", True)


def test_finetune_without_targets_is_caught() -> None:
    spec = SPEC.model_copy(update={"lora": None})
    assert outcome(spec, "lora_targets_exist") == (
        "failed",
        "the spec declares finetune, but its `lora` is None",
    )


def test_a_group_model_that_remembers_the_group_before_is_caught() -> None:
    status, reason = outcome(
        GROUP_SPEC, "padding_and_batch_size_change_nothing", Options(fault="remembers_groups")
    )
    assert status == "failed"
    assert "the embedding of cell" in reason


def test_a_length_model_whose_cells_see_each_other_is_caught() -> None:
    spec = GROUP_SPEC.model_copy(update={"cell_batching": "length"})
    status, reason = outcome(spec, "padding_and_batch_size_change_nothing")
    assert status == "failed"
    assert "in small batches, the embedding of cell" in reason


def test_every_check_has_a_model_that_it_catches() -> None:
    elsewhere = {"light_import", "spec_survives_json"}
    assert {check.name for check in all_checks()} == {check for _, check, _ in FAULTS} | elsewhere


def test_the_kit_has_a_check_for_each_promise_of_the_contract() -> None:
    assert [check.name for check in all_checks()] == [
        "light_import",
        "spec_survives_json",
        "builds_without_weights",
        "global_rng_untouched",
        "no_network",
        "binding",
        "token_arrays",
        "tokens_ignore_block_borders",
        "tokens_ignore_other_cells",
        "tokens_ignore_unknown_genes",
        "column_order_changes_nothing",
        "storage_changes_nothing",
        "input_unmodified",
        "long_cell_is_cut",
        "unusable_cell",
        "padding_and_batch_size_change_nothing",
        "output",
        "eval_is_deterministic",
        "gradients_reach_parameters",
        "state_dict_round_trip",
        "lora_targets_exist",
        "lora_gradients",
        "lora_acts_in_eval",
        "lora_short_cuts",
        "lora_merge",
        "lora_file_round_trip",
    ]
    assert all(check.description for check in all_checks())


def test_the_documentation_lists_each_check_with_its_description() -> None:
    page = Path(__file__).parents[1] / "docs" / "how-to" / "add_a_model.md"
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    listed = [f"| `{check.name}` | {check.description} |" for check in all_checks()]
    assert [row for row in rows if row.count("|") == 3 and ".py" not in row] == listed


def test_a_model_without_finetune_skips_the_adapter_checks_with_that_reason() -> None:
    spec = SPEC.model_copy(update={"capabilities": frozenset({Capability.EMBED}), "lora": None})
    results = run_checks(Subject(spec), [c.name for c in all_checks() if "lora" in c.name])
    assert {(result.status, result.reason) for result in results} == {
        ("skipped", "the model does not declare finetune")
    }


def test_an_unknown_check_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no check named colour") as caught:
        list(run_checks(Subject(SPEC), ["colour"]))
    assert "light_import" in caught.value.hint


def test_checks_leave_the_network_unblocked() -> None:
    import socket

    before = socket.create_connection, socket.getaddrinfo
    assert outcome(SPEC, "no_network") == ("passed", "")
    assert (socket.create_connection, socket.getaddrinfo) == before


class TestToy(ModelConformance):
    spec = SPEC
    options = Options()


class TestGroupToy(ModelConformance):
    spec = GROUP_SPEC


class TestToyOfLognorm(ModelConformance):
    spec = SPEC.model_copy(update={"accepts": frozenset({"lognorm"})})


class TestExpectedFailure(ModelConformance):
    spec = SPEC
    options = Options(fault="unused_parameter")
    expected_failures = {"gradients_reach_parameters": "the decoder is not used here"}  # noqa: RUF012


CASE = """
import sys
sys.path.insert(0, {here!r})
from toy_models import SPEC, Options
from scdrugmap.testing import ModelConformance

class TestCase(ModelConformance):
    spec = SPEC
    options = Options(fault={fault!r})
    expected_failures = {expected!r}
"""


def run_kit(folder: Path, fault: str, expected: dict[str, str], *select: str) -> str:
    (folder / "test_case.py").write_text(CASE.format(here=HERE, fault=fault, expected=expected))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", *select, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.slow
def test_a_failed_check_is_a_failed_test_with_its_reason(tmp_path: Path) -> None:
    output = run_kit(tmp_path, "no_column", {}, "-k", "token_arrays or output")
    assert "1 failed, 1 passed" in output
    assert "CheckFailed: flat['column']" in output


@pytest.mark.slow
def test_an_expected_failure_that_passes_is_a_failed_test(tmp_path: Path) -> None:
    output = run_kit(tmp_path, "", {"output": "because"}, "-k", "output")
    assert "output passes, but expected_failures says: because" in output


@pytest.mark.slow
def test_an_expected_failure_of_an_unknown_check_is_an_error(tmp_path: Path) -> None:
    output = run_kit(tmp_path, "", {"colour": "because"}, "-k", "output")
    assert "expected_failures names no check: colour" in output
