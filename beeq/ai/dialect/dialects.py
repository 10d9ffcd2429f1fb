"""Remembers the fields that each model of a provider refuses, and sends requests without them.

The APIs are called compatible; yet a server may refuse a field that a request does not need, and the whole
request with it. Such a refusal costs nothing: the request is sent again without the field, and where that
succeeds, the field is left out of further requests to this model, as long as the process lives.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from beeq.ai.dialect.refusals import SYSTEM_ROLE, names_field, repeats
from beeq.ai.errors import AIRefused
from beeq.ai.idempotency import ProviderRequests
from beeq.errors import one_line

logger = logging.getLogger(__name__)

Body = dict[str, Any]
#: A field, and its value in JSON; without a value it is refused with any.
_Refused = tuple[str, str | None]
#: Untrusted jobs name the models: so many are remembered, the latest ones, …
_MAX_MODELS = 256
#: … and so many refusals of each.
_MAX_REFUSALS = 64
_REFUSING = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, slots=True)
class RequestKind:
    """A kind of requests: its required fields, and replacements for fields that are left out."""

    name: str
    needed: frozenset[str]
    rewrites: Mapping[str, Callable[[Body], Body]]

    def fields(self, body: Body) -> list[str]:
        """Return the optional fields of a request."""
        found = [name for name in body if name not in self.needed]
        return [*found, SYSTEM_ROLE] if _has_system_role(body) else found

    def without(self, body: Body, field: str) -> Body:
        """Return the request without a field."""
        rewrite = self.rewrites.get(field)
        return rewrite(body) if rewrite else {name: value for name, value in body.items() if name != field}


class Dialects:
    """Asks one provider, and remembers what it refuses."""

    def __init__(self) -> None:
        self._refused: OrderedDict[tuple[str, str], dict[_Refused, None]] = OrderedDict()

    async def ask(
        self,
        kind: RequestKind,
        requests: ProviderRequests,
        body: Body,
        send: Callable[[Body], Awaitable[Any]],
    ) -> Any:
        """Return what ``send`` makes of the request, in the form that its ``model`` takes.

        Raises AIRefused if the provider refuses a required part: the prompt, the model, the key.
        """
        key = (kind.name, str(body["model"]))
        given = _texts_of_job(body)
        for field, value in self._refused.get(key, ()):
            if _holds(kind, body, field, value):
                body = kind.without(body, field)
        found: dict[_Refused, None] = {}
        while True:
            try:
                response = await send(body)
            except AIRefused as refused:
                fields = _refused_fields(kind, body, refused)
                if not fields:
                    raise
                # The same idempotency key would get the same refusal, or another for the change.
                await requests.discard()
                own = refused.refusal and refused.refusal.without(given)
                sure = own.fields(fields) if own else []
                for field in fields:
                    # A refusal that may quote the job's own words counts for this job alone.
                    if own and field in sure and not any(names_field(text, field) for text in given):
                        is_of_value = _is_of_value(body, field, refused, is_of_field=own.is_of_field)
                        found[field, _value(body, field) if is_of_value else None] = None
                    body = kind.without(body, field)
            else:
                self._remember(key, found)
                return response

    def _remember(self, key: tuple[str, str], found: dict[_Refused, None]) -> None:
        if not found:
            return
        kind, model = key
        names = one_line(", ".join(dict.fromkeys(field for field, _ in found)))
        logger.warning(
            "AI provider, %s: model %.200r does not take %s; left out from now on", kind, model, names
        )
        known = self._refused.setdefault(key, {})
        known.update(found)
        while len(known) > _MAX_REFUSALS:
            del known[next(iter(known))]
        self._refused.move_to_end(key)
        if len(self._refused) > _MAX_MODELS:
            self._refused.popitem(last=False)


def _refused_fields(kind: RequestKind, body: Body, refused: AIRefused) -> list[str]:
    if refused.status not in _REFUSING or refused.refusal is None:
        return []
    return refused.refusal.fields(kind.fields(body))


def _holds(kind: RequestKind, body: Body, field: str, value: str | None) -> bool:
    return field in kind.fields(body) and (value is None or value == _value(body, field))


def _is_of_value(body: Body, field: str, refused: AIRefused, *, is_of_field: bool) -> bool:
    """Return whether the field may be taken with another value: the refusal does not say otherwise."""
    value = body.get(field)
    if not is_of_field or refused.refusal is None:
        return field in body
    return isinstance(value, str) and repeats(refused.refusal.text, value)


def _texts_of_job(body: Body) -> list[str]:
    """Return the untrusted texts of a request."""
    texts = [value for name, value in body.items() if isinstance(value, str) and name != "model"]
    said = (message["content"] for message in body.get("messages", ()) if message["role"] != "system")
    return [*texts, *said]


def _value(body: Body, field: str) -> str | None:
    return json.dumps(body[field]) if field in body else None


def _has_system_role(body: Body) -> bool:
    return any(message["role"] == "system" for message in body.get("messages", ()))


def _in_one_message(body: Body) -> Body:
    """Return a chat without the system's role: one message of the user holds all texts."""
    whole = "\n\n".join(message["content"] for message in body["messages"])
    return {**body, "messages": [{"role": "user", "content": whole}]}


def _by_its_new_name(body: Body) -> Body:
    """Return a chat with the length's later name; servers take one or the other."""
    return {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in body.items()}


def _style_in_prompt(body: Body) -> Body:
    rest = {name: value for name, value in body.items() if name != "style"}
    return {**rest, "prompt": f"{body['prompt']}\n\nStyle: {body['style']}"}


CHAT = RequestKind(
    "chat",
    # The field that bounds the costs is renamed, and never left out.
    frozenset(("model", "messages", "max_completion_tokens")),
    {SYSTEM_ROLE: _in_one_message, "max_tokens": _by_its_new_name},
)
IMAGES = RequestKind("images", frozenset(("model", "prompt")), {"style": _style_in_prompt})
