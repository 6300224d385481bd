"""The contract of a text model: questions about cells in, one answer per question out.

Two kinds of models speak it: a :class:`~scdrugmap.specs.TextModelSpec`, whose factory is
``build(options)`` and gives a :class:`TextModel`; and a :class:`~scdrugmap.specs.ModelSpec` with the
capability CLASSIFY, whose :class:`~scdrugmap.modelkit.contract.CellModel` is a :class:`TextModel`
as well. The core ranks the genes, filters the fields, chooses the examples and owns cache, budget
and files; the model turns a question into its prompt and the reply into an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from scdrugmap.text.patience import Patience

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.run.store import Store
    from scdrugmap.text.ledger import Ledger

State = Literal["answered", "abstained", "invalid"]
Label = Literal["sensitive", "resistant"]
Flag = Literal["", "p_censored", "p_hard"]

P_CENSORED: Flag = "p_censored"
"""The probability rests on a bound: part of the answer's distribution was not given."""

P_HARD: Flag = "p_hard"
"""The probability is 1 or 0 from the label: no distribution was given."""


@dataclass(frozen=True)
class Example:
    """A labelled cell shown before the question.

    Attributes
    ----------
    genes : tuple of str
        Symbols, highest first.
    label : {"sensitive", "resistant"}
    fields : mapping of str to str
        As those of a question.
    """

    genes: tuple[str, ...]
    label: Label
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What is asked about one cell.

    Attributes
    ----------
    cell : str
        Name of the cell; never sent, but randomness may depend on it.
    genes : tuple of str
        Symbols of the expressed genes, highest first; no more than the model reads.
    fields : mapping of str to str
        Further facts (``tissue``, ``cancer_type``, ``drug``), already filtered.
    examples : tuple of Example
        Labelled cells of training groups, in the order they are shown; empty: zero-shot.
    """

    cell: str
    genes: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What became of one question.

    Attributes
    ----------
    state : {"answered", "abstained", "invalid"}
    p_sensitive : float
        NaN unless answered.
    reason : str
        Empty if answered; else one word (``unsure``, ``refused``, ``length``, ...).
    answer_mass : float
        Probability of all allowed answers together, as the model reported it; NaN if it did not.
    flag : {"", "p_censored", "p_hard"}
        How far `p_sensitive` can be trusted as a probability.
    raw : str
        The reply as it came; empty for models that score answers instead of writing one.
    prompt_hash : str
        SHA-256 (hex) of all that the answer depends on.
    served_by : str
        What answered, as it names itself.
    """

    state: State
    p_sensitive: float = float("nan")
    reason: str = ""
    answer_mass: float = float("nan")
    flag: Flag = ""
    raw: str = ""
    prompt_hash: str = ""
    served_by: str = ""


@dataclass(frozen=True)
class Asking:
    """How questions may be asked; what changes an answer is an option of the model instead.

    Attributes
    ----------
    seed : int
        Of waiting times.
    device, precision, token_budget
        For models on this machine, as in embedding (the precision does change numbers a little).
    store : Store, optional
        Where answers are kept; None: nowhere.
    allow_network : bool
        Hosts other than loopback may be asked.
    yes : bool
        Costs are accepted without a question.
    confirm : callable, optional
        Asks a person whether to go on; None: nobody is there.
    max_cost : float, optional
        Budget in USD; the run stops before the request that would exceed it.
    ledger : Ledger, optional
        Where what is spent of a budget is written down, if several calls share it.
    key_variable : str
        Environment variable with the key; empty: the model's own.
    concurrency : int
        Requests at a time.
    requests_per_minute, tokens_per_minute : float, optional
        Limits; None: none but the server's.
    timeout_s : float
        Longest wait for one reply.
    patience : Patience
        How often and how long to try again.
    price : (float, float), optional
        USD per million tokens read and written; None: the model's own table.
    retry_invalid : bool
        Ask again where the kept answer is invalid.
    quiet : bool
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    token_budget: int | None = None
    store: Store | None = None
    allow_network: bool = False
    yes: bool = False
    confirm: Callable[[str], bool] | None = None
    max_cost: float | None = None
    ledger: Ledger | None = None
    key_variable: str = ""
    concurrency: int = 4
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 60.0
    patience: Patience = field(default_factory=Patience)
    price: tuple[float, float] | None = None
    retry_invalid: bool = False
    quiet: bool = False


@runtime_checkable
class TextModel(Protocol):
    """A model that answers questions about cells."""

    @property
    def template(self) -> Template:
        """The template of its prompts; its hash enters predictors and cache keys."""

    @property
    def n_genes(self) -> int:
        """Most genes of a cell that it reads (its ``top_k``)."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Facts that it is told where they are known: columns of obs, fields of the template."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must know of its answers, one line each; empty: nothing."""

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        """Answer every question, in the order given.

        Raises
        ------
        ResourceError
            The budget is used up or the server does not answer; finished answers are kept.
        UsageError
            The network is not allowed, or the costs were not accepted.
        PluginError
            The server refuses the key, the model or the request.
        """

    def preview(self, question: Question) -> str:
        """Return the prompt of a question, exactly as it would be read or sent."""


@runtime_checkable
class RemoteTextModel(TextModel, Protocol):
    """A text model that asks a server."""

    def forecast(self, questions: Sequence[Question], asking: Asking) -> list[str]:
        """Say what would be sent where and what it would cost, one line each; sends nothing."""
