"""Texts to token ids: the byte pairs of a published tokenizer, or words where there is none."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from scdrugmap.errors import WeightsError

_WORD = re.compile(r"\w[\w.-]*|[^\w\s]")

N_OTHER_WORDS = 1024
"""Ids that share all words which are no gene, where there is no published tokenizer."""


class TextIds(Protocol):
    """Turns plain text into token ids; nothing in a text is a control token."""

    n_ids: int
    """Ids are below this number."""

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without begin or end token."""

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of several texts, each on its own."""

    def spans(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text and the character at which each token ends."""


class BytePairs:
    """The tokenizer of a checkpoint (``tokenizer.json``).

    Text that looks like a special token is read as the characters it consists of: a gene called
    ``<|eot_id|>`` ends no turn.

    Parameters
    ----------
    content : mapping
        ``tokenizer.json``.
    source : str
        The folder, for messages.
    """

    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        self._json = json.dumps(content, ensure_ascii=False)
        self._source = source
        self._load()

    def _load(self) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(self._json)
        except Exception as err:  # the library raises bare Exception
            raise WeightsError(
                f"{self._source}: tokenizer.json is no tokenizer: {' '.join(str(err).split())[:200]}",
                hint="was the download complete?",
            ) from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.special: dict[str, int] = {
            token.content: number
            for number, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self.n_ids = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def __getstate__(self) -> dict[str, Any]:
        # The library's own pickle forgets that special tokens are plain text.
        return {"json": self._json, "source": self._source}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._json, self._source = state["json"], state["source"]
        self._load()

    def ids(self, text: str) -> list[int]:
        """See :class:`TextIds`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """See :class:`TextIds`."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [list(one.ids) for one in found]

    def spans(self, text: str) -> tuple[list[int], list[int]]:
        """See :class:`TextIds`."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return list(found.ids), [end for _, end in found.offsets]


class Words:
    """One id per gene, and a few for all other words: what random weights are used with.

    Parameters
    ----------
    genes : iterable of str
        Symbols.
    first : int
        Id of the first gene; smaller ones are special tokens.
    """

    def __init__(self, genes: Iterable[str], first: int) -> None:
        self._genes = {gene: number for number, gene in enumerate(genes, first)}
        self._others = first + len(self._genes)
        self.n_ids = self._others + N_OTHER_WORDS

    def ids(self, text: str) -> list[int]:
        """See :class:`TextIds`."""
        return self.spans(text)[0]

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """See :class:`TextIds`."""
        return [self.ids(text) for text in texts]

    def spans(self, text: str) -> tuple[list[int], list[int]]:
        """See :class:`TextIds`."""
        words = list(_WORD.finditer(text))
        return [self._id(word[0]) for word in words], [word.end() for word in words]

    def _id(self, word: str) -> int:
        found = self._genes.get(word)
        if found is None:
            found = self._others + zlib.crc32(word.encode("utf-8", "replace")) % N_OTHER_WORDS
        return found


def as_ids(ids: Sequence[int]) -> np.ndarray:
    """Return token ids as an array ((n,) int32)."""
    return np.asarray(ids, np.int32)
