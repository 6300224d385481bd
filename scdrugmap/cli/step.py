"""``scdrugmap step``: the steps of a benchmark, as workflow engines run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scdrugmap.cli.options import PATH, compose, output_option, quiet_option

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig

config_argument = click.argument("config", metavar="CONFIG.yaml", type=PATH)
place_options = compose(
    click.option(
        "--data",
        multiple=True,
        type=PATH,
        metavar="FILE",
        help="Where the files of cells are, in the order of CONFIG; repeatable [default: where it "
        "says].",
    ),
    click.option(
        "--weights",
        multiple=True,
        type=PATH,
        metavar="DIR",
        help="Where the folders of weights that CONFIG names are, in its order; repeatable.",
    ),
)
splits_option = click.option(
    "--splits", type=PATH, required=True, metavar="FOLDER", help="Folder splits of `step plan`."
)


def _read(config: Path, data: tuple[Path, ...], weights: tuple[Path, ...]) -> BenchmarkConfig:
    from scdrugmap.run.tasks import read_located

    return read_located(config, data, weights)


@click.group()
def command() -> None:
    """Run one step of a benchmark on any machine, from files to files.

    `scdrugmap benchmark --executor cwl` and the workflow cwl/workflows/benchmark.cwl call these; by
    hand, `scdrugmap benchmark` does all of them. The order is plan, embed, join, train, finish.
    """


@command.command(epilog="Example: scdrugmap step plan bench.yaml --shards 4 -o plan")
@config_argument
@place_options
@click.option(
    "--shards",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Shares into which the cells of each network are divided.",
)
@click.option(
    "--output-object",
    type=PATH,
    metavar="OUT.json",
    help="Write the list of steps as CWL engines read it.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Folder to make.")
@quiet_option
def plan(
    config: Path,
    data: tuple[Path, ...],
    weights: tuple[Path, ...],
    shards: int,
    output_object: Path | None,
    output: Path,
    quiet: bool,
) -> None:
    """Divide the cells, and list the tasks of all models, protocols and folds."""
    from scdrugmap.files import check_output, write_json
    from scdrugmap.run.tasks import as_output_object, write_plan

    if output_object is not None:
        check_output(output_object, overwrite=False, inputs=[config, *data])
    listed = write_plan(_read(config, data, weights), output, shards=shards, quiet=quiet)
    if output_object is not None:
        write_json(output_object, as_output_object(listed, output))


@command.command(
    epilog="Example: scdrugmap step embed bench.yaml --splits plan/splits --network 0 --shard 1/4 "
    "-o shard1.npz"
)
@config_argument
@place_options
@splits_option
@click.option(
    "--network", type=click.IntRange(min=0), required=True, help="Its number in the plan."
)
@click.option("--shard", required=True, metavar="I/N", help="Embed this share of the cells.")
@output_option
@quiet_option
def embed(
    config: Path,
    data: tuple[Path, ...],
    weights: tuple[Path, ...],
    splits: Path,
    network: int,
    shard: str,
    output: Path,
    quiet: bool,
) -> None:
    """Embed a share of the cells that take part, with one network."""
    from scdrugmap.model.parts import Shard
    from scdrugmap.run.steps import embed_shard

    embed_shard(
        _read(config, data, weights),
        splits,
        output,
        network=network,
        shard=Shard.parse(shard),
        quiet=quiet,
    )


@command.command(
    epilog="Example: scdrugmap step join shard1.npz shard2.npz --splits plan/splits "
    "-o embeddings.npy"
)
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...", type=PATH)
@splits_option
@output_option
def join(shards: tuple[Path, ...], splits: Path, output: Path) -> None:
    """Join the shards of one network, given in any order."""
    from scdrugmap.run.steps import join_shards

    join_shards(shards, splits, output)


@command.command(
    epilog="Example: scdrugmap step train bench.yaml --splits plan/splits "
    "--task plan/tasks/0000-7fb37c0a39ce.json -o 0000-7fb37c0a39ce.tsv.gz"
)
@config_argument
@place_options
@splits_option
@click.option(
    "--task", type=PATH, required=True, metavar="TASK.json", help="One of the tasks of `step plan`."
)
@click.option(
    "--embeddings", type=PATH, metavar="NPY", help="Of the task's network, from `step join`."
)
@output_option
@quiet_option
def train(
    config: Path,
    data: tuple[Path, ...],
    weights: tuple[Path, ...],
    splits: Path,
    task: Path,
    embeddings: Path | None,
    output: Path,
    quiet: bool,
) -> None:
    """Train one model on one fold with all seeds, and predict its test cells.

    What cannot be trained on these cells is told and left out: it is no error of the step. Name the
    output after the task: `step finish` knows it by that.
    """
    from scdrugmap.run.steps import run_task

    run_task(
        _read(config, data, weights),
        task,
        splits,
        output,
        embeddings=embeddings,
        quiet=quiet,
    )


@command.command(
    epilog="Example: scdrugmap step finish bench.yaml --part 0000-7fb37c0a39ce.tsv.gz "
    "--embeddings embeddings.npy -o run"
)
@config_argument
@place_options
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=PATH,
    metavar="TSV",
    help="Predictions of `step train`; repeatable. What is missing is done here.",
)
@click.option(
    "--embeddings",
    multiple=True,
    type=PATH,
    metavar="NPY",
    help="Of each network, in the order of the plan; repeatable.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the run to make.")
@quiet_option
def finish(
    config: Path,
    data: tuple[Path, ...],
    weights: tuple[Path, ...],
    parts: tuple[Path, ...],
    embeddings: tuple[Path, ...],
    output: Path,
    quiet: bool,
) -> None:
    """Evaluate what was predicted, and write the folder of the run with its report."""
    from scdrugmap.run.finish import finish_run

    finish_run(
        _read(config, data, weights), output, parts=parts, embeddings=embeddings, quiet=quiet
    )
