"""``scdrugmap benchmark``: models, baselines and protocols, from cells to a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scdrugmap.cli.options import (
    PATH,
    cell_options,
    compose,
    device_option,
    model_options,
    overwrite_option,
    parse_pair,
    parse_settings,
    parse_weights,
    quiet_option,
    split_list,
)
from scdrugmap.cli.text import show
from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig

matrix_options = compose(
    click.option(
        "--data",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="File of labelled cells; repeatable. Needed without CONFIG.",
    ),
    click.option(
        "--samplesheet",
        type=PATH,
        metavar="CSV",
        help="Table with a line per sample: file, label, donor, ...; instead of --data.",
    ),
    click.option("--label", help="Column of obs with the response. Needed without CONFIG."),
    click.option("--sensitive", metavar="A[,B]", help="Labels that mean sensitive."),
    click.option("--resistant", metavar="C[,D]", help="Labels that mean resistant."),
    click.option("--drop", metavar="E[,F]", help="Labels of cells to set aside."),
    click.option(
        "--group", metavar="COLUMN", help="Column of donors: patients, animals, cultures."
    ),
    click.option("--sample", metavar="COLUMN", help="Column of samples [default: the group]."),
    click.option("--study", metavar="COLUMN", help="Column of studies [default: the file's name]."),
    click.option(
        "--cell-line", metavar="COLUMN", help="Cells of one line in a study stay together."
    ),
    click.option("--control", metavar="COLUMN", help="Cells of one shared control stay together."),
    click.option("--tissue", metavar="COLUMN", help="Column of tissues; groups results."),
    click.option("--cancer-type", metavar="COLUMN", help="Column of cancer types, for loco."),
    click.option("--drug-type", metavar="COLUMN", help="Column of kinds of treatment."),
    click.option("--drug", metavar="COLUMN", help="Column of drugs or regimens, for lodrug."),
    click.option(
        "--collection", metavar="COLUMN", help="Column of primary and external, for external."
    ),
    click.option(
        "--models",
        metavar="A[,B]",
        help="Models and estimators [default: all built-in estimators and randproj].",
    ),
    click.option(
        "--protocol",
        "protocols",
        multiple=True,
        metavar="NAME",
        help="How cells are divided; repeatable; paper: as its authors did, with their settings "
        "per model [default: pooled-group].",
    ),
    click.option("--folds", type=int, help="Folds of a protocol [default: 5; of paper 10]."),
    click.option(
        "--target",
        "targets",
        multiple=True,
        metavar="NAME",
        help="What is held out; repeatable [default: everything in turn].",
    ),
    click.option("--shot-draws", type=int, help="Draws of few-shot protocols [default: 10]."),
    click.option(
        "--validation", is_flag=True, help="Set groups aside for thresholds and early stopping."
    ),
    click.option(
        "--strategy",
        "strategies",
        metavar="A[,B]",
        help="How models are used: frozen, lora, full, prompt [default: frozen; prompt for text "
        "models].",
    ),
    click.option(
        "--tune",
        "tuning",
        multiple=True,
        metavar="KEY=VALUE",
        help="Setting of lora and full, for all models: epochs, max_steps, patience, "
        "learning_rate, r, ...; repeatable.",
    ),
    click.option("--shots", type=click.IntRange(min=0), help="Examples per label of prompt."),
    click.option(
        "--controls",
        metavar="A[,B]|all|none",
        help="What runs beside the models: constant, technical, pseudobulk, untrained, permuted "
        "[default: all].",
    ),
    click.option(
        "--permutations", type=click.IntRange(min=1), help="Permutations of labels [default: 1]."
    ),
    click.option("--split-seed", type=int, help="Seed of the splits [default: 0]."),
    click.option(
        "--seeds", metavar="0[,1]", help="Seeds of training, on one split [default: 0,1,2]."
    ),
    click.option(
        "--head",
        type=click.Choice(["logistic", "mlp"]),
        help="What is trained on embeddings [default: logistic; mlp under the paper's protocols].",
    ),
    click.option("--max-cells", type=int, help="Most cells in all, drawn by group and label."),
    click.option("--draws", type=int, help="Bootstrap draws of the intervals [default: 2000]."),
    cell_options,
    model_options,
    device_option,
    click.option(
        "--precision", type=click.Choice(["float32", "bfloat16"]), help="Of the networks."
    ),
    click.option("--token-budget", type=click.IntRange(min=1), help="Most tokens in a batch."),
    click.option(
        "--allow-network", is_flag=True, help="Cells may be sent to the servers of text models."
    ),
    click.option(
        "--max-cost",
        type=float,
        metavar="USD",
        help="Most that text models may cost in the whole run; answers are kept.",
    ),
    click.option(
        "--price",
        metavar="READ/WRITTEN",
        help="Of a text model: USD per million tokens [default: of a table of known models].",
    ),
    click.option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable with the key of a text model's server [default: "
        "OPENAI_API_KEY for OpenAI, none for other servers].",
    ),
)
"""What a benchmark is made of: become a configuration through :func:`configure`."""


engine_options = compose(
    click.option(
        "--runner",
        type=click.Choice(["cwltool", "toil"]),
        help="With --executor cwl: the engine [default: cwltool].",
    ),
    click.option(
        "--batch-system",
        metavar="NAME",
        help="With --runner toil: slurm, kubernetes, aws_batch, ... [default: single_machine].",
    ),
    click.option(
        "--container",
        type=click.Choice(["none", "docker", "singularity", "podman"]),
        help="With --executor cwl: what steps run in [default: none, the scdrugmap on PATH].",
    ),
    click.option(
        "--shards",
        type=click.IntRange(1, 100_000),
        help="With --executor cwl: jobs into which the embedding of each network is divided "
        "[default: 1].",
    ),
    click.option(
        "--runner-arg",
        "runner_args",
        multiple=True,
        metavar="TEXT",
        help="With --executor cwl: one more word for the engine's command line; repeatable.",
    ),
)
"""How a workflow engine runs the steps."""


def configure(path: Path | None, given: dict[str, Any]) -> BenchmarkConfig:
    """Make a configuration of a YAML file, of flags, or of both: flags win.

    Parameters
    ----------
    path : Path or None
        YAML file.
    given : dict
        Values of :data:`matrix_options`.

    Raises
    ------
    UsageError
        Neither file nor ``--data`` and ``--label``; a value that cannot be.
    """
    from scdrugmap.config import CONTROLS, default_models, make_config, read_config
    from scdrugmap.registry import get_registry
    from scdrugmap.specs import ModelSpec

    start: dict[str, Any] = {}
    if path is not None:
        start = read_config(path).model_dump(exclude_unset=True)
    elif given["samplesheet"] is None and not (given["data"] and given["label"]):
        raise UsageError(
            "name a YAML file, or give --data FILE and --label COLUMN",
            hint="as in: scdrugmap benchmark --data cohort.h5ad --label response --group patient "
            "-o runs/first",
        )
    for name in ("sensitive", "resistant", "drop", "models", "strategies"):
        given[name] = split_list(given[name])
    controls, tuning = split_list(given.pop("controls")), given.pop("tuning")
    seeds, head = given.pop("seeds"), given.pop("head")
    weights, settings = given.pop("weights"), given.pop("settings")
    flags = {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and value != ()
    }
    if seeds:
        flags["seeds"] = tuple(_whole(text) for text in split_list(seeds))
    if head:
        flags["heads"] = {"sound": head, "paper": head}
    if controls:
        words = {"all": True, "none": False}
        flags["controls"] = words.get(controls[0], controls) if len(controls) == 1 else controls
    if tuning:
        flags["tuning"] = {
            **start.get("tuning", {}),
            **dict(parse_pair(text, "--tune") for text in tuning),
        }
    models = get_registry().models
    names = flags.get("models") or start.get("models") or default_models()
    embedders = tuple(name for name in names if isinstance(models.get(name), ModelSpec))
    names = tuple(dict.fromkeys((*names, *(name for one in CONTROLS.values() for name in one))))
    if weights:
        flags["weights"] = parse_weights(weights, embedders)
    if settings:
        flags["settings"] = _settings(settings, names, embedders or names)
    return make_config({**start, **flags})


def _settings(
    settings: tuple[str, ...], names: tuple[str, ...], plain: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Sort ``--set`` by model; without a model it holds for `plain`, the embedding models."""
    named = [text for text in settings if "." in text.partition("=")[0]]
    chosen = parse_settings(tuple(named), names)
    for name, options in parse_settings(
        tuple(text for text in settings if text not in named), plain
    ).items():
        chosen[name] = {**options, **chosen[name]}
    return {name: options for name, options in chosen.items() if options}


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--seeds: {text!r} is no seed", hint="whole numbers, as in --seeds 0,1,2")
    return int(text)


@click.command(
    epilog="Example: scdrugmap benchmark --data cohort.h5ad --label response --group patient "
    "--models constant,pca-logreg,randproj --protocol pooled-group --protocol paper-pooled "
    "-o runs/first"
)
@click.argument("config", required=False, metavar="[CONFIG.yaml]", type=PATH)
@matrix_options
@click.option("-o", "--output", type=PATH, help="Folder of the run.")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="local|processes:N|cwl",
    help="Where jobs run; the results are the same. cwl: a workflow engine runs them.",
)
@engine_options
@click.option("--dry-run", is_flag=True, help="Show the jobs and what they may cost, run none.")
@overwrite_option
@quiet_option
def command(
    config: Path | None,
    output: Path | None,
    executor: str,
    runner: Literal["cwltool", "toil"] | None,
    batch_system: str | None,
    container: Literal["none", "docker", "singularity", "podman"] | None,
    shards: int | None,
    runner_args: tuple[str, ...],
    dry_run: bool,
    overwrite: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Run models and baselines under one or more protocols, and report.

    What to run comes from CONFIG.yaml, from options, or from both (options win). The same
    command on the same folder goes on where it stopped.
    """
    chosen = configure(config, given)
    if dry_run:
        from scdrugmap.run.plan import plan_with_costs
        from scdrugmap.run.plan_text import describe_plan

        for line in describe_plan(plan_with_costs(chosen)):
            show(line)
        return
    if output is None:
        raise UsageError("name the folder of the run with -o", hint="as in -o runs/first")
    how: dict[str, Any] = {
        "runner": runner,
        "batch_system": batch_system,
        "container": container,
        "shards": shards,
        "arguments": runner_args,
    }
    engine = {name: value for name, value in how.items() if value not in (None, ())}
    if executor == "cwl":
        from scdrugmap.run.cwl import Engine, run_with_engine

        run = run_with_engine(chosen, output, Engine(**engine), overwrite=overwrite, quiet=quiet)
    elif engine:
        option = next(iter(engine)).replace("arguments", "runner_arg").replace("_", "-")
        raise UsageError(
            f"--{option} has no meaning with --executor {executor}",
            hint="add --executor cwl",
        )
    else:
        from scdrugmap.run.execute import run_benchmark

        run = run_benchmark(chosen, output, executor=executor, overwrite=overwrite, quiet=quiet)
    click.echo(run.report)
