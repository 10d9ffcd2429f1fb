"""Starts jobs, one after the other. One that cannot start goes back, and does not delay the others."""

import asyncio
from collections import deque
from collections.abc import Callable

from beeq.worker.pump.listener import PumpListener
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.claims import ClaimedJob


class JobStarts:
    """The job starts of one pump.

    Args:
        listener: starts a job.
        give_back: gives jobs back, by id and claim.
        on_defect: called with an error of starting a job.
    """

    def __init__(
        self,
        listener: PumpListener,
        *,
        give_back: Callable[[list[tuple[bytes, bytes]]], object],
        on_defect: Callable[[Exception], object],
    ) -> None:
        self._listener = listener
        self._give_back = give_back
        self._on_defect = on_defect
        self._loop = asyncio.get_running_loop()
        self._starting: deque[ClaimedJob] = deque()  # jobs still to be started
        self._is_starting = False
        self._claim_known: asyncio.Future[None] | None = None  # of the job that was started early

    def start(self, action: actions.Start) -> None:
        """Start the jobs."""
        self._starting.extend(action.jobs)
        if self._is_starting:  # called from a handler that ended at once: the loop below goes on
            return
        self._is_starting = True
        try:
            while self._starting:
                job = self._starting.popleft()
                try:
                    self._listener.start_job(job, None)
                except Exception as defect:  # noqa: BLE001 - it is reported; the other jobs start
                    self._not_started(job, defect)
        finally:
            self._is_starting = False

    def start_early(self, action: actions.StartEarly) -> None:
        """Start a job whose claim is not granted yet."""
        self._claim_known = self._loop.create_future()
        try:
            self._listener.start_job(action.job, self._claim_known)
        except Exception as defect:  # noqa: BLE001 - as above
            self._not_started(action.job, defect)

    def claim_known(self, _action: actions.ClaimKnown) -> None:
        """End the waits for the claim of the job that was started early."""
        if self._claim_known is not None and not self._claim_known.done():
            self._claim_known.set_result(None)

    def _not_started(self, job: ClaimedJob, defect: Exception) -> None:
        self._on_defect(defect)
        raw_id, _, _, claim = job
        self._give_back([(raw_id, claim)])
