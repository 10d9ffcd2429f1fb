"""Claims, which ``lua/exchange.lua`` notes for the jobs that it hands out, and jobs that are started early.

An idle worker does not wait for the reply of the call that claims its job: the blocking fetch brings the
record along, the call is sent, and the handler starts. The reply then grants the claim, or refuses it.
"""

import itertools
from collections.abc import Iterator, Sequence

#: A claimed job: its id as Redis has it, its record, how often it was handed out, the claim.
ClaimedJob = tuple[bytes, bytes, int, bytes]

#: The claim is known in advance only for a first delivery.
FIRST_DELIVERY = 1
#: The end of nearly all claims: formatting numbers takes longer than the rest of reading a job's reply.
_USUAL_ENDS = [b".%d:%d" % (place, FIRST_DELIVERY) for place in range(128)]


def tokens(prefix: bytes) -> Iterator[bytes]:
    """Yield the tokens of one worker's calls."""
    return map(b"%b-%x".__mod__, zip(itertools.repeat(prefix), itertools.count(1), strict=False))


def claim_of(token: bytes, place: int, deliveries: int) -> bytes:
    """Return the claim of the job in this place of one call."""
    if deliveries == FIRST_DELIVERY and place < len(_USUAL_ENDS):
        return token + _USUAL_ENDS[place]
    return b"%b.%d:%d" % (token, place, deliveries)


def token_of(claim: bytes) -> bytes:
    """Return the token of the claiming call; empty if no worker has the job any more."""
    return claim.rpartition(b":")[0].rpartition(b".")[0]


class HeldClaims(dict[bytes, bytes]):
    """A worker's claims by id: its heartbeat renews them until they are recorded, or lost.

    Attributes:
        early: the claim of the job that was started early, until Redis has granted or refused it; else empty.
    """

    __slots__ = ("early",)

    def __init__(self) -> None:
        super().__init__()
        self.early = b""

    def hold_early(self, raw_id: bytes, claim: bytes) -> None:
        """Hold a claim that Redis has not granted yet."""
        self.early = claim  # first: see ``snapshot``
        self[raw_id] = claim

    def hold_new(
        self,
        token: bytes,
        first_place: int,
        raw_ids: Sequence[bytes],
        records: Sequence[bytes],
        deliveries: Sequence[int],
    ) -> tuple[list[ClaimedJob], list[bytes]]:
        """Hold the jobs that a call has handed out, from this place on.

        Returns them with their claims, and the claims that were held until now of the same ids.
        """
        after = first_place + len(raw_ids)
        if after <= len(_USUAL_ENDS) and deliveries.count(FIRST_DELIVERY) == len(deliveries):
            claims = [token + end for end in _USUAL_ENDS[first_place:after]]
        else:
            claims = [claim_of(token, place, count) for place, count in enumerate(deliveries, first_place)]
        claimed = list(zip(raw_ids, records, deliveries, claims, strict=True))
        lost: list[bytes] = []
        if len(set(raw_ids)) == len(raw_ids) and self.keys().isdisjoint(raw_ids):
            self.update(zip(raw_ids, claims, strict=True))
        else:
            for raw_id, claim in zip(raw_ids, claims, strict=True):
                if raw_id in self:
                    lost.append(self[raw_id])
                self[raw_id] = claim
        return claimed, lost

    def holds(self, raw_id: bytes, claim: bytes) -> bool:
        """Return whether the id is held by this very claim."""
        return self.get(raw_id) == claim

    def release(self, raw_id: bytes, claim: bytes) -> bool:
        """Drop the claim, unless the id was claimed again meanwhile; return whether it was held."""
        if self.get(raw_id) != claim:
            return False
        del self[raw_id]
        return True

    def snapshot(self) -> tuple[dict[bytes, bytes], bytes]:
        """Return what is held, and ``early``; another thread may call this.

        ``early`` is set before the claim is held, and read after the copy: so each claim returned, except the
        early one, had been granted before the call.
        """
        held = dict(self)  # copies atomically; iterating would not
        return held, self.early


class FetchedJob:
    """A job that a blocking fetch has moved into ``active``, and that no call has claimed yet.

    Args:
        raw_id: its id as Redis has it.
        token: of the call that claims it, however often that call is sent: the claim stays the same.
        record: what its handler is started with before the claim is granted; empty: it waits for that.
    """

    __slots__ = ("claim", "is_started", "raw_id", "record", "token")

    def __init__(self, raw_id: bytes, token: bytes, record: bytes = b"") -> None:
        self.raw_id = raw_id
        self.token = token
        #: The claim that the call will give it.
        self.claim = claim_of(token, 0, FIRST_DELIVERY)
        self.record = record
        #: Whether its handler was started before the claim was granted.
        self.is_started = bool(record)
