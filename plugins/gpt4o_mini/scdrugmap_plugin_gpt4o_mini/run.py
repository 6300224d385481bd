"""One run: what is kept is taken, the rest agreed on, asked, and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import ResourceError
from scdrugmap.progress import Progress, say
from scdrugmap.text.budget import FREE, BudgetUsedUp, Usage
from scdrugmap.text.contract import Answer
from scdrugmap.text.dispatch import Dispatcher
from scdrugmap.text.kept import KeptReplies
from scdrugmap.text.patience import TemporaryError
from scdrugmap_plugin_gpt4o_mini.answers import (
    NO_REPLY,
    TOO_LONG,
    read_digits,
    read_one,
    read_several,
)
from scdrugmap_plugin_gpt4o_mini.costs import Forecast, price_of
from scdrugmap_plugin_gpt4o_mini.endpoint import RefusedFieldError, TooLongError, refused
from scdrugmap_plugin_gpt4o_mini.plan import Chunk, Plan
from scdrugmap_plugin_gpt4o_mini.probe import kept_capabilities, probe
from scdrugmap_plugin_gpt4o_mini.prompts import Capabilities, Request
from scdrugmap_plugin_gpt4o_mini.session import Session

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.text.contract import Asking, Question
    from scdrugmap_plugin_gpt4o_mini import Options
    from scdrugmap_plugin_gpt4o_mini.endpoint import Place

_MEASURED_AFTER = 20  # replies, then the estimate is corrected


@dataclass
class _Left:
    """Requests that are still to be sent, and the tokens that they may use."""

    chunks: list[Chunk] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    @property
    def n_cells(self) -> int:
        return sum(map(len, self.chunks))


class Run:
    """One call of ``classify`` or ``forecast``; close it.

    Parameters
    ----------
    place : Place
    options : Options
    template : Template
    questions : sequence of Question
    asking : Asking
    """

    def __init__(
        self,
        place: Place,
        options: Options,
        template: Template,
        questions: Sequence[Question],
        asking: Asking,
    ) -> None:
        self.asking = asking
        self._kept = KeptReplies(asking.store)
        found = kept_capabilities(self._kept, place, options)
        self._probed = found is not None
        self.plan = Plan(place, options, template, found or Capabilities(), questions)
        self._session: Session | None = None
        self._corrected = False

    def close(self) -> None:
        """Close the connections, if any were made."""
        if self._session is not None:
            self._session.close()

    def forecast(self) -> Forecast:
        """Return what would be sent and what it would cost; sends nothing."""
        return self._forecast(self._not_kept(self.plan.chunks(), {}))

    def answers(self) -> list[Answer]:
        """Answer what is kept, agree on the rest, and ask it.

        Raises
        ------
        UsageError, ResourceError, PluginError
            See :meth:`scdrugmap.text.contract.TextModel.classify`.
        """
        found: dict[int, Answer] = {}
        left = self._not_kept(self.plan.chunks(), found)
        if left.chunks:
            self._agree(self._forecast(left))
            if not self._probed:
                self._probe()
                left = self._not_kept(self.plan.chunks(), found)
            self._ask(left, found)
        if self.plan.joint:
            self._ask_alone(found)
        self._say_who_served(found.values())
        return [found[place] for place in range(len(self.plan.questions))]

    def _forecast(self, left: _Left) -> Forecast:
        plan = self.plan
        price, as_of = price_of(plan.place, plan.options, self.asking)
        return Forecast(
            place=plan.place,
            model=plan.options.model,
            n_cells=len(plan.questions),
            n_kept=len(plan.questions) - left.n_cells,
            n_requests=len(left.chunks),
            usage=left.usage,
            price=price,
            as_of=as_of,
            concurrency=self.asking.concurrency,
        )

    def _agree(self, forecast: Forecast) -> None:
        """Say what the run will cost, and go on only if the user agrees."""
        for line in forecast.lines():
            self._say(line)
        if not self._kept.writable:
            self._say("Notice: no cache: a repeated run asks and pays again")
        forecast.check_agreed(self.asking)
        self._session = Session(self.plan.place, self.asking, forecast.price or FREE)

    def _probe(self) -> None:
        assert self._session is not None
        place, options = self.plan.place, self.plan.options
        try:
            can = probe(self._session, options)
        except TemporaryError as err:
            raise ResourceError(
                f"{place.host} does not answer: {err.reason}", hint="try again when it works"
            ) from err
        self.plan = replace(self.plan, can=can)
        if not can.schema:
            self._say(f"Notice: {place.host} keeps to no schema; it is asked for one word")
        if not can.logprobs and options.top_logprobs:
            self._say(
                f"Notice: {place.host} gives no log-probabilities; p is 1 or 0 from the label "
                "(flag p_hard)"
            )

    def _not_kept(
        self, chunks: Iterable[Chunk], found: dict[int, Answer], *, alone: bool = False
    ) -> _Left:
        """Put the answers that are kept into `found`; return the requests that are left."""
        left = _Left()
        for chunk in chunks:
            request = self.plan.request(chunk, alone=alone)
            reply = self._kept.get(self.plan.identity(request))
            if reply is not None:
                answers = self._read(request, reply)
                invalid = any(answer.state == "invalid" for answer in answers.values())
                if not (invalid and self.asking.retry_invalid and not request.ids):
                    found.update(answers)
                    continue
            left.chunks.append(chunk)
            left.usage += request.likely
        return left

    def _ask(self, left: _Left, found: dict[int, Answer], *, alone: bool = False) -> None:
        """Send requests and collect the answers.

        Raises
        ------
        BudgetUsedUp
            With what was reached, and how to go on.
        """
        assert self._session is not None
        session, total, n_asked = self._session, left.n_cells, 0
        dispatcher = Dispatcher(self._one, self.asking.concurrency, session.stop)
        requests = (self.plan.request(chunk, alone=alone) for chunk in left.chunks)
        try:
            with Progress("asking", total, quiet=self.asking.quiet) as progress:
                for request, result in dispatcher.run(requests):
                    if isinstance(result, TemporaryError):
                        result = self._without_reply(request, NO_REPLY, result.reason)
                    found.update(result)
                    n_asked += len(result)
                    progress.advance(len(result))
                    self._correct_estimate(session, left.usage)
        except BudgetUsedUp as err:
            raise BudgetUsedUp(
                f"{err.message}; {n_asked:,} of {total:,} cells were asked about", hint=err.hint
            ) from err
        usage = session.budget.usage
        paid = f", {session.budget.spent:.4f} USD" if session.budget.price != FREE else ""
        self._say(f"{usage.n_read:,.0f} tokens read, {usage.n_written:,.0f} written{paid}")

    def _ask_alone(self, found: dict[int, Answer]) -> None:
        """Ask once more about cells whose shared request gave no valid answer."""
        again = [(place,) for place, answer in sorted(found.items()) if answer.state == "invalid"]
        left = self._not_kept(again, found, alone=True)
        if not left.chunks:
            return
        self._say(
            f"Notice: {left.n_cells:,} cells had no valid answer in a shared request and are "
            "asked about alone"
        )
        if self._session is None:
            self._agree(self._forecast(left))
        self._ask(left, found, alone=True)

    def _one(self, request: Request) -> dict[int, Answer]:
        """Ask one request, in a thread of its own."""
        assert self._session is not None
        try:
            reply = self._session.send(request.body, request.likely, request.most)
        except TooLongError as err:
            return self._without_reply(request, TOO_LONG, str(err))
        except RefusedFieldError as err:
            refused(self.plan.place, str(err))
        self._kept.put(self.plan.identity(request), reply)
        return self._read(request, reply)

    def _read(self, request: Request, reply: dict[str, Any]) -> dict[int, Answer]:
        if request.digits:
            found = read_digits(reply, len(request.positions))
        elif request.ids:
            by_id = read_several(reply, request.ids)
            found = [by_id[name] for name in request.ids]
        else:
            found = [read_one(reply, schema=self.plan.can.schema)]
        key = self.plan.key(request)
        return {
            position: replace(answer, prompt_hash=key)
            for position, answer in zip(request.positions, found, strict=True)
        }

    def _without_reply(self, request: Request, reason: str, raw: str) -> dict[int, Answer]:
        answer = Answer("invalid", reason=reason, raw=raw, prompt_hash=self.plan.key(request))
        return dict.fromkeys(request.positions, answer)

    def _correct_estimate(self, session: Session, likely: Usage) -> None:
        """Say once what the run will cost, after the first replies told their tokens."""
        n, ratio = session.correction()
        if self._corrected or n < _MEASURED_AFTER or session.budget.price == FREE:
            return
        self._corrected = True
        cost = session.budget.price.cost(likely.n_read * ratio, likely.n_written)
        self._say(
            f"after {n} replies: {ratio:.2f} of the estimated tokens, about {cost:.4f} USD in all"
        )

    def _say_who_served(self, answers: Iterable[Answer]) -> None:
        """Warn if not one and the same model answered."""
        served = sorted({answer.served_by for answer in answers if answer.served_by})
        if len(served) > 1:
            self._say(
                f"Notice: the answers come from {len(served)} versions of the model: "
                f"{'; '.join(served)}"
            )

    def _say(self, text: str) -> None:
        say(text, quiet=self.asking.quiet)
