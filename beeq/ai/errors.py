"""The errors of the AI provider; apart, because every module of the folder raises them.

Messages are short and hold no secret.
"""

from beeq.ai.dialect.refusals import Objection
from beeq.errors import BeeqError

_LENGTH = 200


class AIFailed(BeeqError):
    """The call failed; another attempt may succeed, after the delay that the provider asks for, if any."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(_short(message))
        self.retry_after_ms = retry_after_ms


class AIUnusable(AIFailed):
    """The response is complete but unusable: the request is not repeated within the attempt."""


class AIRefused(BeeqError):
    """The provider refused the call, or the job's fields do not allow it; another attempt would fail too.

    ``status`` is the HTTP status of the refusal, ``refusal`` its body's content; None without a call.
    """

    def __init__(self, message: str, *, status: int | None = None, refusal: Objection | None = None) -> None:
        super().__init__(_short(message))
        self.status = status
        self.refusal = refusal


def _short(message: str) -> str:
    return message if len(message) <= _LENGTH else f"{message[: _LENGTH - 1]}…"
