"""From a cell to a text: versioned records that say how, shared by all language models.

A template is data (``modelkit/prompts/<id>-<version>.json``, or a file of the user). Its SHA-256 is
part of the name that options, cache keys and predictors hold, so a changed text never passes for
the old one. A published record is never edited: another text is another version.

The core or a tokenizer ranks the genes (:class:`scdrugmap.modelkit.ranking.NamedGenes`); a template
turns the ranked names into a text, or into the messages of a chat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scdrugmap.errors import UsageError
from scdrugmap.files import canonical_json, hash_json

FOLDER = Path(__file__).parent / "prompts"
"""Where the packaged records lie."""

GeneFilter = Literal["mitochondrial", "ribosomal", "malat1"]
AnswerLabel = Literal["sensitive", "resistant"]

_PLACE = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"(?P<id>[a-z][a-z0-9-]*)(?::(?P<version>\d+)(?::(?P<digest>[0-9a-f]{64}))?)?")
_GENES = "genes"
_FIELDS = "fields"


class Template(BaseModel):
    """How the genes of a cell, and perhaps a question about it, become a text.

    In texts, ``{genes}`` is the list of genes, ``{fields}`` the lines of those `fields` that are
    known of a cell, and ``{NAME}`` one field (empty where it is not known).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: int = Field(ge=1)
    kind: Literal["embed", "completion", "chat"]
    text: str = Field(description="the text, or what the user says in a chat")
    system: str = Field("", description="what a chat begins with")
    separator: str = Field(" ", description="between two genes")
    order: Literal["rank", "columns"] = Field(
        "rank", description="expressed genes, highest first; or all columns as in the file"
    )
    gene: Literal["{name}", "{name}{value}"] = Field("{name}", description="one gene")
    top_k: int | None = Field(None, ge=1, description="most genes; None: all")
    max_tokens: int | None = Field(None, ge=1, description="longest text, in tokens")
    cut: Literal["genes", "tokens"] = Field(
        "genes", description="what is dropped at the end of a text that is too long"
    )
    leave_out: tuple[GeneFilter, ...] = Field((), description="genes that are never named")
    fields: dict[str, str] = Field(
        default_factory=dict, description="field to its line, with {value}"
    )
    answers: dict[AnswerLabel, str] = Field(
        default_factory=dict, description="label to how it is written"
    )
    example_separator: str = Field("\n\n", description="between examples, if no chat")
    null_genes: str = Field("", description="what stands for the genes where no cell is shown")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "{genes}" not in self.text:
            raise ValueError("text does not name {genes}")
        if self.kind != "embed" and set(self.answers) != {"sensitive", "resistant"}:
            raise ValueError("answers must be given for sensitive and resistant")
        if self.kind != "chat" and self.system:
            raise ValueError("system is for kind chat only")
        known = {_GENES, _FIELDS, *self.fields}
        unknown = set(_PLACE.findall(self.text + self.system)) - known
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no field of the template")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the record in canonical JSON."""
        return hash_json(self.model_dump(mode="json"))

    @property
    def name(self) -> str:
        """``id:version``, for people."""
        return f"{self.id}:{self.version}"

    @property
    def key(self) -> str:
        """``id:version:sha256``, for options, cache keys and predictors."""
        return f"{self.name}:{self.digest}"

    def swapped(self) -> Template:
        """Return the template whose texts name the two answers in the other order.

        The answers themselves stay. A model that answers by the place of a word gives itself away.
        """
        words = {label: text.strip() for label, text in self.answers.items()}
        other = {words["sensitive"]: words["resistant"], words["resistant"]: words["sensitive"]}
        pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in other))

        def exchange(text: str) -> str:
            return pattern.sub(lambda found: other[found[0]], text)

        return self.model_copy(
            update={"text": exchange(self.text), "system": exchange(self.system)}
        )

    def list_genes(self, names: Sequence[str]) -> str:
        """Join the names of genes; of none: the text that stands for no cell."""
        return self.separator.join(names) if len(names) else self.null_genes

    def render(self, names: Sequence[str], fields: Mapping[str, str] | None = None) -> str:
        """Return the text of one cell (of a chat: what the user says).

        Parameters
        ----------
        names : sequence of str
            Genes in the order they are shown, at most `top_k`; empty: no cell.
        fields : mapping of str to str, optional
            Facts of the cell; those that the template does not name are left out.
        """
        return self.fill(self.text, names, fields or {})

    def fill(self, text: str, names: Sequence[str], fields: Mapping[str, str]) -> str:
        """Put genes and fields into their places; braces in them mean nothing."""
        lines = "".join(
            line.replace("{value}", fields[name])
            for name, line in self.fields.items()
            if fields.get(name)
        )

        def put(place: re.Match[str]) -> str:
            if place[1] == _GENES:
                return self.list_genes(names)
            return lines if place[1] == _FIELDS else fields.get(place[1], "")

        return _PLACE.sub(put, text)

    def frame(self, fields: Mapping[str, str] | None = None) -> tuple[str, str]:
        """Return what stands before and after the genes in :meth:`render`."""
        before, after = self.text.split("{genes}", 1)
        return self.fill(before, (), fields or {}), self.fill(after, (), fields or {})

    def with_examples(self, prompt: str, examples: Sequence[tuple[str, AnswerLabel]]) -> str:
        """Put answered prompts of other cells before a prompt (kind completion).

        Parameters
        ----------
        prompt : str
            From :meth:`render`.
        examples : sequence of (str, label)
            Rendered example cells with their labels, in the order they are shown.
        """
        answered = (text + self.answers[label] for text, label in examples)
        return self.example_separator.join([*answered, prompt])

    def messages(
        self,
        names: Sequence[str],
        fields: Mapping[str, str] | None = None,
        examples: Sequence[tuple[str, AnswerLabel]] = (),
    ) -> list[dict[str, str]]:
        """Return a chat: system text if any, example turns, and the question (kind chat).

        Returns
        -------
        list of {"role": "system" | "user" | "assistant", "content": str}
            Without the answer.
        """
        turns = []
        if self.system:
            turns.append(("system", self.fill(self.system, (), fields or {})))
        for text, label in examples:
            turns += [("user", text), ("assistant", self.answers[label])]
        turns.append(("user", self.render(names, fields)))
        return [{"role": role, "content": content} for role, content in turns]


def most_genes(n_genes: int, n_tokens: Callable[[int], int], budget: int, what: str) -> int:
    """Return how many of a cell's genes fit: the lowest-ranked are dropped, none is cut in two.

    Parameters
    ----------
    n_genes : int
        Genes of the cell, already at most ``top_k``.
    n_tokens : callable
        Length of the whole text with that many genes; must not decrease.
    budget : int
        Most tokens.
    what : str
        Template, for the message.

    Raises
    ------
    UsageError
        The text is too long without a single gene: nothing else of it may be cut.
    """
    if n_tokens(n_genes) <= budget:
        return n_genes
    fits, too_many = -1, n_genes
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if n_tokens(middle) <= budget:
            fits = middle
        else:
            too_many = middle
    if fits < 0:
        raise UsageError(
            f"template {what} has {n_tokens(0):,} tokens without a single gene; "
            f"at most {budget:,} are allowed",
            hint="allow more tokens (max_tokens), or show fewer examples",
        )
    return fits


@lru_cache(maxsize=1)
def packaged() -> dict[str, dict[int, Template]]:
    """Return the templates that come with scDrugMap, by id and version."""
    found: dict[str, dict[int, Template]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        template = Template.model_validate_json(path.read_bytes())
        found.setdefault(template.id, {})[template.version] = template
    return found


def load_template(value: str) -> Template:
    """Return a template.

    Parameters
    ----------
    value : str
        ``id`` (the newest version), ``id:version``, ``id:version:sha256``, the path of a JSON file,
        or the JSON of a record itself.

    Raises
    ------
    UsageError
        There is no such template, the record does not hold together, or the packaged one is not
        the one of that hash.
    """
    value = value.strip()
    if value.startswith("{"):
        return _parse(value, "the given template")
    named = _NAME.fullmatch(value)
    if named is None:
        path = Path(value).expanduser()
        try:
            return _parse(path.read_text("utf-8"), value)
        except (OSError, UnicodeDecodeError) as err:
            raise UsageError(
                f"template {value}: {type(err).__name__}: {err}",
                hint=f"name a JSON file, or one of {', '.join(packaged())}",
            ) from err
    versions = packaged().get(named["id"])
    if versions is None:
        raise UsageError(
            f"there is no template {named['id']!r}",
            hint=f"there are: {', '.join(packaged())}; or name a JSON file of your own",
        )
    version = int(named["version"] or max(versions))
    if version not in versions:
        raise UsageError(
            f"template {named['id']} has no version {version}",
            hint=f"there are: {', '.join(map(str, sorted(versions)))}",
        )
    template = versions[version]
    if named["digest"] and named["digest"] != template.digest:
        raise UsageError(
            f"template {template.name} is {template.digest[:12]} here, not {named['digest'][:12]}",
            hint="install the version of scdrugmap that the result was made with",
        )
    return template


def pin_template(value: str) -> str:
    """Return a text that stands for exactly one template, for an options class.

    Of a packaged one it is ``id:version:sha256``, of a file of the user the record itself: cache
    keys and predictors hold what was used, not where it lay.

    Raises
    ------
    ValueError
        As :func:`load_template`; a ValueError because pydantic's validators speak it.
    """
    try:
        template = load_template(value)
    except UsageError as err:
        raise ValueError(f"{err.message}; {err.hint}" if err.hint else err.message) from err
    if packaged().get(template.id, {}).get(template.version) == template:
        return template.key
    return canonical_json(template.model_dump(mode="json", exclude_defaults=True))


def _parse(text: str, where: str) -> Template:
    try:
        content: Any = json.loads(text)
        return Template.model_validate(content)
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where} is no template: {place + ': ' if place else ''}{first['msg']}",
            hint=f"see {FOLDER} for examples",
        ) from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{where} is no proper JSON: {err}") from err
