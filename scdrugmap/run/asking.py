"""How a benchmark may ask text models: what it allows, and one budget for all of its jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scdrugmap.errors import UsageError

if TYPE_CHECKING:
    from scdrugmap.config import BenchmarkConfig
    from scdrugmap.run.store import Store
    from scdrugmap.text.contract import Asking
    from scdrugmap.text.load import LoadedText

LEDGER_FILE = "spent.json"
"""File beside the finished jobs with what text models cost the run, over all of its processes."""


def make_asking(config: BenchmarkConfig, store: Store, jobs: Path) -> Asking:
    """Return what the configuration allows; nobody is asked again before each job.

    Parameters
    ----------
    config : BenchmarkConfig
    store : Store
        Where replies are kept.
    jobs : Path
        Folder of the run's finished jobs.
    """
    from scdrugmap.text.budget import read_price
    from scdrugmap.text.contract import Asking
    from scdrugmap.text.ledger import Ledger

    return Asking(
        device=config.device,
        precision=config.precision,
        token_budget=config.token_budget,
        store=store,
        allow_network=config.allow_network,
        yes=True,
        max_cost=config.max_cost,
        ledger=Ledger(jobs / LEDGER_FILE),
        key_variable=config.api_key_env or "",
        price=None if config.price is None else read_price(config.price),
        quiet=True,
    )


def check_askable(loaded: LoadedText, asking: Asking) -> None:
    """Refuse before any work what would be refused at the first question.

    Raises
    ------
    UsageError
        A server may be asked and nothing limits what that costs, the network is not allowed, or
        the key is missing.
    """
    if not loaded.remote:
        return
    if asking.allow_network and asking.max_cost is None:
        raise UsageError(
            f"{loaded.name} asks a server, and nothing limits what that costs",
            hint="give max_cost (--max-cost), the most US dollars that the run may cost",
        )
    loaded.model.classify([], asking)


def require_no_network(config: BenchmarkConfig) -> None:
    """Refuse what steps on several machines cannot keep to: a budget, and a key in one place.

    Raises
    ------
    UsageError
        A text model may ask a server somewhere else.
    """
    from scdrugmap.registry import get_registry
    from scdrugmap.specs import TextModelSpec

    models = get_registry().models
    for name in config.models:
        spec = models.get(name)
        if config.allow_network and isinstance(spec, TextModelSpec) and spec.remote:
            raise UsageError(
                f"{name} asks a server, and the steps of a workflow share neither a budget nor a key",
                hint="use --executor local or processes:N, or leave it out",
            )
