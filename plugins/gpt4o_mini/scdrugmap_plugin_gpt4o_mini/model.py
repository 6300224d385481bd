"""A chat endpoint as a text model: questions become requests, replies become answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scdrugmap.errors import ResourceError, UsageError
from scdrugmap.files import hash_json
from scdrugmap.modelkit.templates import load_template
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
from scdrugmap_plugin_gpt4o_mini.endpoint import (
    Place,
    RefusedFieldError,
    TooLongError,
    refused,
)
from scdrugmap_plugin_gpt4o_mini.probe import kept_capabilities, probe
from scdrugmap_plugin_gpt4o_mini.prompts import (
    Capabilities,
    Request,
    asks_for_digits,
    digits_request,
    joint_request,
    one_request,
    readable,
)
from scdrugmap_plugin_gpt4o_mini.session import Session

if TYPE_CHECKING:
    from scdrugmap.modelkit.templates import Template
    from scdrugmap.text.contract import Asking, Question
    from scdrugmap_plugin_gpt4o_mini import Options

_CONTRACT = 1
_MEASURED_AFTER = 20  # replies, then the estimate is corrected


class ChatModel:
    """A model behind a chat endpoint.

    Parameters
    ----------
    options : Options

    Raises
    ------
    UsageError
        There is no such template, it is not for chats, or the address cannot be used.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.template: Template = load_template(options.template)
        if self.template.kind != "chat":
            raise UsageError(
                f"template {self.template.name} is of kind {self.template.kind}; gpt4o_mini needs "
                "one of kind chat",
                hint="use --set template=chat-classify",
            )
        unknown = sorted(set(options.fields or ()) - set(self.template.fields))
        if unknown:
            raise UsageError(
                f"template {self.template.name} tells no {', '.join(unknown)}",
                hint=f"fields it can tell: {', '.join(self.template.fields) or 'none'}",
            )
        self.place = Place.parse(options.base_url)

    @property
    def n_genes(self) -> int:
        """Most genes of a cell in a prompt."""
        return self.options.top_k or self.template.top_k or 50

    @property
    def fields(self) -> tuple[str, ...]:
        """Facts that are sent."""
        if self.options.fields is not None:
            return self.options.fields
        return tuple(name for name in ("drug",) if name in self.template.fields)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must know of its answers."""
        several = self.options.cells_per_request
        together = (
            f"{several} cells share a request, so they influence each other's answers"
            if several > 1
            else ""
        )
        digits = (
            "the paper's code drops cells with an invalid answer and their labels; here they count"
            if asks_for_digits(self.template)
            else ""
        )
        known = "public datasets and their papers may be known to the model"
        return tuple(filter(None, (together, digits, known)))

    def preview(self, question: Question) -> str:
        """Return the messages of a question, as they would be sent to an able endpoint."""
        if asks_for_digits(self.template):
            request = self._together(digits_request, [0], [question], Capabilities())
        else:
            request = self._alone(0, [question], Capabilities())
        return readable(request.body["messages"])

    def forecast(self, questions: Sequence[Question], asking: Asking) -> list[str]:
        """Say what would be sent where and what it would cost; sends nothing."""
        kept = KeptReplies(asking.store)
        can = kept_capabilities(kept, self.place, self.options) or Capabilities()
        requests = self._requests(questions, can)
        left = [request for request in requests if kept.get(self._identity(request)) is None]
        return self._forecast(questions, requests, left, asking).lines()

    def classify(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        """Answer every question; see :meth:`scdrugmap.text.contract.TextModel.classify`."""
        self.place.check_allowed(asking)
        self.place.find_key(asking)
        run = _Run(self, questions, asking)
        try:
            answers = run.first_round()
            run.second_round(answers)
        finally:
            run.close()
        run.say_who_served(answers)
        return answers

    def _requests(self, questions: Sequence[Question], can: Capabilities) -> list[Request]:
        """Return the requests in the order they are sent: shuffled, so that classes mix."""
        order = list(range(len(questions)))
        random.Random(self.options.seed).shuffle(order)
        size = self.options.cells_per_request
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        if asks_for_digits(self.template):
            return [self._together(digits_request, chunk, questions, can) for chunk in chunks]
        if size == 1:
            return [self._alone(position, questions, can) for position in order]
        if not can.schema:
            raise UsageError(
                f"{self.place.host} keeps to no schema, so several cells cannot share a request",
                hint="use --set cells_per_request=1",
            )
        if any(question.examples for question in questions):
            raise UsageError(
                "example cells are shown for one cell at a time",
                hint="use --set cells_per_request=1",
            )
        return [self._together(joint_request, chunk, questions, can) for chunk in chunks]

    def _together(
        self,
        make: Callable[..., Request],
        chunk: list[int],
        questions: Sequence[Question],
        can: Capabilities,
    ) -> Request:
        chosen = [questions[place] for place in chunk]
        return make(chunk, chosen, self.template, self.options, can)

    def _alone(self, position: int, questions: Sequence[Question], can: Capabilities) -> Request:
        return one_request(position, questions[position], self.template, self.options, can)

    def _identity(self, request: Request) -> dict[str, Any]:
        return {
            "contract": _CONTRACT,
            "endpoint": self.place.url,
            "model": self.options.model,
            "template": self.template.key,
            "request": request.body,
        }

    def _forecast(
        self,
        questions: Sequence[Question],
        requests: Sequence[Request],
        left: Sequence[Request],
        asking: Asking,
    ) -> Forecast:
        price, as_of = price_of(self.place, self.options, asking)
        n_left = sum(len(request.positions) for request in left)
        return Forecast(
            place=self.place,
            model=self.options.model,
            n_cells=len(questions),
            n_kept=len(questions) - n_left,
            n_requests=len(left),
            usage=sum((request.likely for request in left), Usage()),
            price=price,
            as_of=as_of,
            concurrency=asking.concurrency,
        )


class _Run:
    """One call of :meth:`ChatModel.classify`."""

    def __init__(self, model: ChatModel, questions: Sequence[Question], asking: Asking) -> None:
        self.model, self.questions, self.asking = model, questions, asking
        self.kept = KeptReplies(asking.store)
        self.session: Session | None = None
        found = kept_capabilities(self.kept, model.place, model.options)
        self.can = found or Capabilities()
        self.known = found is not None
        self.corrected = False

    def first_round(self) -> list[Answer]:
        """Answer what is kept, agree on the rest, and ask it."""
        answers: dict[int, Answer] = {}
        requests = self.model._requests(self.questions, self.can)
        left = self._from_kept(requests, answers)
        forecast = self.model._forecast(self.questions, requests, left, self.asking)
        if left:
            for line in forecast.lines():
                say(line, quiet=self.asking.quiet)
            if not self.kept.writable:
                say("Notice: no cache: a repeated run asks and pays again", quiet=self.asking.quiet)
        forecast.check_agreed(self.asking)
        if left:
            self.session = Session(self.model.place, self.asking, forecast.price or FREE)
            if not self.known:
                self._probe(self.session)
                requests = self.model._requests(self.questions, self.can)
                left = self._from_kept(requests, answers)
            self._ask(left, answers)
        return [answers[position] for position in range(len(self.questions))]

    def second_round(self, answers: list[Answer]) -> None:
        """Ask once more, alone, about cells whose shared request gave no valid answer."""
        if self.model.options.cells_per_request == 1 or asks_for_digits(self.model.template):
            return
        again = [
            self.model._alone(place, self.questions, self.can)
            for place, answer in enumerate(answers)
            if answer.state == "invalid"
        ]
        found: dict[int, Answer] = {}
        left = self._from_kept(again, found)
        if left:
            say(
                f"Notice: {len(left):,} cells had no valid answer in a shared request and are "
                "asked about alone",
                quiet=self.asking.quiet,
            )
            price, _ = price_of(self.model.place, self.model.options, self.asking)
            self.session = self.session or Session(self.model.place, self.asking, price or FREE)
            self._ask(left, found)
        for place, answer in found.items():
            answers[place] = answer

    def close(self) -> None:
        """Close the connections, if any were made."""
        if self.session is not None:
            self.session.close()

    def say_who_served(self, answers: Iterable[Answer]) -> None:
        """Warn if not one and the same model answered."""
        served = sorted({answer.served_by for answer in answers if answer.served_by})
        if len(served) > 1:
            say(
                f"Notice: the answers come from {len(served)} versions of the model: "
                f"{'; '.join(served)}",
                quiet=self.asking.quiet,
            )

    def _probe(self, session: Session) -> None:
        try:
            self.can = probe(session, self.model.options)
        except TemporaryError as err:
            raise ResourceError(
                f"{self.model.place.host} does not answer: {err.reason}",
                hint="try again when it works",
            ) from err
        if not self.can.schema:
            say(
                f"Notice: {self.model.place.host} keeps to no schema; it is asked for one word",
                quiet=self.asking.quiet,
            )
        if not self.can.logprobs and self.model.options.top_logprobs:
            say(
                f"Notice: {self.model.place.host} gives no log-probabilities; p is 1 or 0 from the "
                "label (flag p_hard)",
                quiet=self.asking.quiet,
            )

    def _from_kept(self, requests: Iterable[Request], answers: dict[int, Answer]) -> list[Request]:
        """Take the answers that are kept; return the requests that are left."""
        left = []
        for request in requests:
            reply = self.kept.get(self.model._identity(request))
            if reply is not None:
                found = self._read(request, reply)
                invalid = any(answer.state == "invalid" for answer in found.values())
                if not (invalid and self.asking.retry_invalid and not request.ids):
                    answers.update(found)
                    continue
            left.append(request)
        return left

    def _ask(self, requests: Sequence[Request], answers: dict[int, Answer]) -> None:
        """Send requests and collect the answers.

        Raises
        ------
        BudgetUsedUp
            With what was reached, and how to go on.
        """
        assert self.session is not None
        session = self.session
        dispatcher = Dispatcher(self._one, self.asking.concurrency, session.stop)
        total = sum(len(request.positions) for request in requests)
        n_asked = 0
        try:
            with Progress("asking", total, quiet=self.asking.quiet) as progress:
                for request, result in dispatcher.run(requests):
                    if isinstance(result, TemporaryError):
                        failed = Answer("invalid", reason=NO_REPLY, raw=result.reason)
                        found = dict.fromkeys(request.positions, failed)
                    else:
                        found = result
                    answers.update(found)
                    n_asked += len(found)
                    progress.advance(len(found))
                    self._correct_estimate(session, requests)
        except BudgetUsedUp as err:
            raise BudgetUsedUp(
                f"{err.message}; {n_asked:,} of {total:,} cells were asked about",
                hint=err.hint,
            ) from err
        self._say_cost(session)

    def _one(self, request: Request) -> dict[int, Answer]:
        """Ask one request, in a thread of the pool."""
        assert self.session is not None
        try:
            reply = self.session.send(request.body, request.likely, request.most)
        except TooLongError as err:
            answer = Answer("invalid", reason=TOO_LONG, raw=str(err))
            return dict.fromkeys(request.positions, answer)
        except RefusedFieldError as err:
            refused(self.model.place, str(err))
        self.kept.put(self.model._identity(request), reply)
        return self._read(request, reply)

    def _read(self, request: Request, reply: dict[str, Any]) -> dict[int, Answer]:
        key = hash_json(self.model._identity(request))
        if request.digits:
            found = read_digits(reply, len(request.positions))
        elif not request.ids:
            found = [read_one(reply, schema=self.can.schema)]
        else:
            by_id = read_several(reply, request.ids)
            found = [by_id[name] for name in request.ids]
        return {
            position: replace(answer, prompt_hash=key)
            for position, answer in zip(request.positions, found, strict=True)
        }

    def _correct_estimate(self, session: Session, requests: Sequence[Request]) -> None:
        """Say once what the rest will cost, after the first replies told their tokens."""
        n, ratio = session.correction()
        if self.corrected or n < _MEASURED_AFTER or session.budget.price == FREE:
            return
        self.corrected = True
        likely = sum((request.likely for request in requests), Usage())
        cost = session.budget.price.cost(likely.n_read * ratio, likely.n_written)
        say(
            f"after {n} replies: {ratio:.2f} of the estimated tokens, about {cost:.4f} USD in all",
            quiet=self.asking.quiet,
        )

    def _say_cost(self, session: Session) -> None:
        usage = session.budget.usage
        paid = f", {session.budget.spent:.4f} USD" if session.budget.price != FREE else ""
        say(
            f"{usage.n_read:,.0f} tokens read, {usage.n_written:,.0f} written{paid}",
            quiet=self.asking.quiet,
        )


def build(options: Options) -> ChatModel:
    """Make the text model; nothing is sent."""
    return ChatModel(options)
