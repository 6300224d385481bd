"""``scdrugmap plan``: the jobs of a benchmark, and what they may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scdrugmap.cli.benchmark import configure, matrix_options
from scdrugmap.cli.options import PATH, json_option, print_json
from scdrugmap.cli.text import show


@click.command(
    epilog="Example: scdrugmap plan --data cohort.h5ad --label response --group patient "
    "--models hvg-logreg,randproj --seeds 0,1,2"
)
@click.argument("config", required=False, metavar="[CONFIG.yaml]", type=PATH)
@matrix_options
@json_option
def command(config: Path | None, as_json: bool, **given: Any) -> None:
    """Show the jobs of a benchmark without running them.

    The cells are read and divided, so that refused protocols show; each model embeds a few cells,
    so that hours are measured and not guessed.
    """
    from scdrugmap.run.plan import plan_with_costs
    from scdrugmap.run.plan_text import describe_plan, plan_record

    made = plan_with_costs(configure(config, given))
    if as_json:
        print_json(plan_record(made))
        return
    for line in describe_plan(made):
        show(line)
