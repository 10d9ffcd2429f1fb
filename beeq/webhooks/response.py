"""The parts of a receiver's response that a delivery uses. No IO, no clock."""

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The head of a response; the body is not used."""

    status: int
    duration_ms: int  # from the start of the attempt, connecting included
    retry_after_ms: int | None = None  # the delay that the receiver asks for

    @property
    def accepted(self) -> bool:
        """Whether the receiver accepted the message."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more messages at this URL."""
        return self.status == HTTPStatus.GONE
