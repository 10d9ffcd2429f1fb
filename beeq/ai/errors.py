"""What may go wrong with the AI provider. Messages are short and hold no secret.

::

    BeeqError
    ├── AIFailed    it did not work this time
    └── AIRefused   asking again is of no use
"""

from __future__ import annotations

from beeq.errors import BeeqError

_LENGTH = 200


class AIFailed(BeeqError):
    """It did not work this time; another try might.

    Attributes:
        retry_after_ms: how long the provider wants to be left alone, None if it did not say.
    """

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(_short(message))
        self.retry_after_ms = retry_after_ms


class AIRefused(BeeqError):
    """The provider will not do it, or the job asks for something impossible.

    Attributes:
        status: the HTTP status that said so; None where nothing was asked.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(_short(message))
        self.status = status


def _short(message: str) -> str:
    return message if len(message) <= _LENGTH else f"{message[: _LENGTH - 1]}…"
