"""One chat endpoint: where it is, who may be asked, and what its errors mean.

The key lives in this object and nowhere else: whatever a server sends back is searched for it
before anybody else sees the text, and errors of the client library, which hold the request, are
never chained.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from scdrugmap.errors import PluginError, ResourceError, UsageError
from scdrugmap.text.patience import TemporaryError
from scdrugmap_plugin_gpt4o_mini import KEY_VARIABLE, OPENAI

if TYPE_CHECKING:
    from scdrugmap.text.contract import Asking

_NO_KEY = "none"  # the client library insists on one; servers without keys ignore it
_HEADERS = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
}
_HEADERS_OF_LIBRARY = "x-stainless-"  # it also tells itself by them how a reply is wanted
_HEADERS_OF_OPENAI = {"openai-organization", "openai-project"}
_RETRIED = {408, 409, 429}
_MOST_TEXT = 200  # characters of a server's message in ours
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|too long|exceed_context", re.IGNORECASE)
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


class TooLongError(Exception):
    """The server cannot read a prompt of that length."""


class RefusedFieldError(Exception):
    """The server refuses the request (status 400); the message says why."""


@dataclass(frozen=True)
class Limits:
    """What a server said of its rate limits; -1: nothing.

    Attributes
    ----------
    requests, tokens : float
        How many remain.
    requests_reset_s, tokens_reset_s : float
        Seconds until they are given back.
    """

    requests: float = -1
    tokens: float = -1
    requests_reset_s: float = 0
    tokens_reset_s: float = 0


@dataclass(frozen=True)
class Place:
    """Where an endpoint is.

    Attributes
    ----------
    url : str
        Scheme, host, port and path, nothing else.
    host : str
    """

    url: str
    host: str

    @classmethod
    def parse(cls, base_url: str) -> Place:
        """Read a base URL.

        Raises
        ------
        UsageError
            It is no http(s) address, or holds a user, a password or a query.
        """
        try:
            parts = urlsplit(base_url.strip())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", None
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(
                "base_url is no http or https address",
                hint="give it as an OpenAI client takes it, for instance http://127.0.0.1:8080/v1",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(
                f"base_url of {host} holds more than scheme, host, port and path",
                hint="a key belongs into an environment variable (--api-key-env NAME)",
            )
        name = f"[{host}]" if ":" in host else host
        at = f":{port}" if port else ""
        return cls(f"{parts.scheme}://{name}{at}{parts.path.rstrip('/')}", host)

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI itself."""
        return self.host == urlsplit(OPENAI).hostname

    def check_allowed(self, asking: Asking) -> None:
        """Refuse to leave this machine unless the user allowed it.

        Raises
        ------
        UsageError
            The host is not loopback and the network is not allowed.
        """
        if not self.local and not asking.allow_network:
            raise UsageError(
                f"the expression of cells would be sent to {self.host}, and the network is not "
                "allowed",
                hint="look at what is sent with --dry-run, then add --allow-network",
            )
        if not self.local and self.url.startswith("http:"):
            raise UsageError(
                f"{self.url} is not encrypted: whoever is on the way reads cells and key",
                hint="use https, or a server on this machine",
            )

    def key_variable(self, asking: Asking) -> str:
        """Return the environment variable with the key; empty: this host gets none.

        A predictor may name any host, so the key of one provider is never sent to another unless
        the user says so.
        """
        if asking.key_variable:
            return asking.key_variable
        return KEY_VARIABLE if self.is_openai else ""

    def find_key(self, asking: Asking) -> str:
        """Read the key from the environment; empty: none is needed.

        Raises
        ------
        UsageError
            The variable is not set.
        """
        variable = self.key_variable(asking)
        if not variable:
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            raise UsageError(
                f"the key of {self.host} is missing: the environment variable {variable} is not "
                "set",
                hint=f"export {variable}=..., or name another one with --api-key-env",
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"the key in {variable} holds characters that no key has",
                hint="was it copied from formatted text? Set it again",
            )
        return key


class Endpoint:
    """A chat endpoint that can be asked; safe to share between threads.

    Parameters
    ----------
    place : Place
    asking : Asking

    Raises
    ------
    UsageError
        The network is not allowed, or the key is missing.
    PluginError
        The package ``openai`` is missing.
    """

    def __init__(self, place: Place, asking: Asking) -> None:
        place.check_allowed(asking)
        self.place = place
        self._variable = place.key_variable(asking)
        self._key = place.find_key(asking)
        self._timeout_s = asking.timeout_s
        try:
            import openai
        except ImportError as err:
            raise PluginError(
                "gpt4o_mini needs the package openai", hint="pip install 'scdrugmap[llm]'"
            ) from err
        self._client = openai.OpenAI(
            api_key=self._key or _NO_KEY,
            base_url=place.url,
            max_retries=0,
            timeout=asking.timeout_s,
            # A redirect would carry cells to a host that nobody allowed, and so would a proxy
            # for a server on this machine.
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,
                trust_env=not place.local,
                event_hooks={"request": [self._keep_own_headers]},
            ),
        )

    def __repr__(self) -> str:
        return f"<Endpoint {self.place.url}>"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], Limits]:
        """Ask once.

        Parameters
        ----------
        body : mapping
            The request, JSON-able.

        Returns
        -------
        reply : dict
            The completion as the server sent it, without the key should it be in there.
        limits : Limits

        Raises
        ------
        TemporaryError
            Worth another try: 408, 409, 429, 5xx, no connection, no reply in time, a broken body.
        TooLongError
            The prompt does not fit.
        RefusedFieldError
            Any other status 400.
        UsageError, ResourceError
            The key, the model name or the account; no further request can succeed.
        """
        import openai

        failure: Exception
        try:
            raw = self._client.chat.completions.with_raw_response.create(**dict(body))
            reply = json.loads(self._clean(raw.text))
            if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
                failure = TemporaryError("the reply is no chat completion", billed=True)
            else:
                return reply, _limits(raw.headers)
        except openai.APITimeoutError:
            failure = TemporaryError(f"no reply within {self._timeout_s:g} s", billed=True)
        except openai.APIConnectionError as err:
            failure = TemporaryError(f"no connection ({type(err.__cause__).__name__})")
        except openai.APIStatusError as err:
            failure = self._translated(
                err.status_code, self._clean(err.message), str(err.code or ""), err.response.headers
            )
        except (ValueError, RecursionError):  # a truncated body: no error of the client library
            failure = TemporaryError("the reply is broken", billed=True)
        raise failure  # outside of the handlers: their errors hold the request, key included

    def _keep_own_headers(self, request: Any) -> None:
        """Take out what the client library adds from the environment.

        ``OPENAI_CUSTOM_HEADERS``, ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` would go to every
        host, and may hold the secrets of one.
        """
        known = _HEADERS | (_HEADERS_OF_OPENAI if self.place.is_openai else set())
        for name in [name.lower() for name in request.headers]:
            if name not in known and not name.startswith(_HEADERS_OF_LIBRARY):
                del request.headers[name]
        request.headers["authorization"] = f"Bearer {self._key or _NO_KEY}"

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _translated(
        self, status: int, message: str, code: str, headers: Mapping[str, str]
    ) -> Exception:
        """Turn an error status into what it means for the run."""
        host = self.place.host
        said = " ".join(message.split())[:_MOST_TEXT]
        if code == "insufficient_quota" or "insufficient_quota" in message:
            return ResourceError(
                f"{host}: the account's quota is used up",
                hint="the answers so far are kept; add credit, then run the same command again",
            )
        if status in _RETRIED or status >= 500:
            return TemporaryError(f"status {status}", _retry_after(headers))
        if status in (401, 403):
            where = f"the key in {self._variable}" if self._variable else "a request without key"
            return UsageError(
                f"{host} refuses {where} (status {status})",
                hint="set the right key; --api-key-env NAME names the variable it is in",
            )
        if status == 404:
            return UsageError(
                f"{self.place.url} does not know the model or the path: {said}",
                hint="check --set model=NAME and --set base_url=URL (it usually ends in /v1)",
            )
        if status in (400, 413, 422):
            if status == 413 or _TOO_LONG.search(f"{code} {message}"):
                return TooLongError(said)
            return RefusedFieldError(said)
        if 300 <= status < 400:
            return UsageError(
                f"{self.place.url} sends elsewhere (status {status}), which is not followed",
                hint="give the final address with --set base_url=URL",
            )
        return PluginError(f"{host} answers with status {status}: {said}")


def refused(place: Place, message: str) -> NoReturn:
    """Stop a run whose first request was refused: all others would be too.

    Raises
    ------
    PluginError
        Always.
    """
    raise PluginError(
        f"{place.host} refuses the request (status 400): {message}",
        hint="is it an OpenAI-compatible chat endpoint, and are the options right for its model?",
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, from either spelling; None: it does not."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        text = headers.get("retry-after", "")
        return float(text) if text else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except ValueError:
        return None


def _limits(headers: Mapping[str, str]) -> Limits:
    """Read ``x-ratelimit-*``; what is missing or strange says nothing."""

    def number(name: str) -> float:
        text = headers.get(f"x-ratelimit-remaining-{name}", "")
        return float(text) if text.isdecimal() else -1

    def seconds(name: str) -> float:
        found = _SPAN.fullmatch(headers.get(f"x-ratelimit-reset-{name}", ""))
        if found is None:
            return 0
        hours, minutes, rest, milliseconds = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + rest + milliseconds / 1000

    return Limits(number("requests"), number("tokens"), seconds("requests"), seconds("tokens"))
