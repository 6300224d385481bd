"""What an endpoint can do, found out with two small requests and kept.

Some servers ignore the schema or the log-probabilities silently, with status 200; others refuse a
field that another model takes. So nothing is concluded from the absence of an error.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scdrugmap.text.budget import Usage
from scdrugmap.text.kept import KeptReplies
from scdrugmap_plugin_gpt4o_mini.answers import spoken
from scdrugmap_plugin_gpt4o_mini.endpoint import RefusedFieldError, refused
from scdrugmap_plugin_gpt4o_mini.prompts import Capabilities, closed

if TYPE_CHECKING:
    from scdrugmap_plugin_gpt4o_mini import Options
    from scdrugmap_plugin_gpt4o_mini.endpoint import Place
    from scdrugmap_plugin_gpt4o_mini.session import Session

_VERSION = 1
_WORD = "kolibri"  # nobody says it unless the schema makes them
_KEPT = f'{{"word":"{_WORD}"}}'
_LEAST_KEPT = 3  # characters of it that are no accident
_MESSAGES = [{"role": "user", "content": "Say the word hello."}]
_N_TOKENS = 64
_TOKENS = Usage(20, _N_TOKENS)
_MOST_TOKENS = Usage(400, _N_TOKENS)
_LEAST_ALTERNATIVES = 2


def _identity(place: Place, options: Options) -> dict[str, Any]:
    return {"endpoint": place.url, "model": options.model, "probe": _VERSION}


def kept_capabilities(kept: KeptReplies, place: Place, options: Options) -> Capabilities | None:
    """Return what was found out earlier, or None."""
    found = kept.get(_identity(place, options))
    return None if found is None else Capabilities(**found)


def probe(session: Session, options: Options) -> Capabilities:
    """Find out what the endpoint does with a schema and with log-probabilities.

    Raises
    ------
    PluginError
        It refuses even a plain request.
    TemporaryError
        It does not answer, after all tries.
    """
    schema = closed({"word": {"type": "string", "enum": [_WORD]}})
    can = Capabilities(logprobs=False)
    reply, can = _settled(session, options, can, schema)
    if reply is not None:
        said = re.sub(r"\s", "", spoken(reply).text)
        # Constrained white space is unbounded, so the text may have been cut.
        can = replace(can, schema=len(said) >= _LEAST_KEPT and _KEPT.startswith(said))
    reply, can = _settled(
        session, options, replace(can, logprobs=True), schema if can.schema else None
    )
    can = replace(can, logprobs=reply is not None and _has_alternatives(reply))
    session.kept.put(_identity(session.endpoint.place, options), can.record())
    return can


def _settled(
    session: Session, options: Options, can: Capabilities, schema: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, Capabilities]:
    """Ask, leaving out one field after the other that is refused; no reply if it was a feature."""
    while True:
        body = can.request(options, _MESSAGES, _N_TOKENS, schema, 5)
        try:
            return session.send(body, _TOKENS, _MOST_TOKENS), can
        except RefusedFieldError as err:
            said = str(err)
        if "max_completion_tokens" in said and can.limit == "max_tokens":
            can = replace(can, limit="max_completion_tokens")
        elif "temperature" in said and can.temperature:
            can = replace(can, temperature=False)
        elif "seed" in said and can.seed:
            can = replace(can, seed=False)
        elif can.logprobs:
            return None, replace(can, logprobs=False)
        elif can.schema and schema is not None:
            return None, replace(can, schema=False)
        else:
            refused(session.endpoint.place, said)


def _has_alternatives(reply: dict[str, Any]) -> bool:
    return any(
        isinstance(token.get("top_logprobs"), list)
        and len(token["top_logprobs"]) >= _LEAST_ALTERNATIVES
        for token in spoken(reply).tokens
    )
