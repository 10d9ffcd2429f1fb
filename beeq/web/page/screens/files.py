"""A file that a job made, or a part of it, for a player on the job's screen, or to be saved."""

from starlette.responses import Response

from beeq.media.errors import MediaFailed, MediaRefused
from beeq.web.page.look import ScreenRequest
from beeq.web.page.made.serving import response_of
from beeq.web.page.screens.mirrored import remembered
from beeq.web.page.store import LONGEST_SHOWN, in_time
from beeq.web.responses import Refusal, status_object

_MOST_DIGITS = 4


async def send(look: ScreenRequest) -> Response:
    """Return one of the files that the job's result names, by its place there."""
    number = look.names["number"]
    is_number = number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS
    if look.hides_data or not is_number:
        raise Refusal(404, "There is nothing here")
    queue_name, job_id = look.names["queue"], look.names["id"]
    async with in_time(), look.parts.store.queue(look.prefix, queue_name) as queue:
        details = await queue.inspect_job(job_id, max_bytes=LONGEST_SHOWN)
    if details is None:
        job, _problem = await remembered(look)
        document = {} if job is None else status_object(job.document)
        data, result = document.get("jobData"), document.get("result")
    else:
        data = None if details.job is None else details.job.data
        result = None if details.ended is None else details.ended.value
    try:
        file = await look.parts.made.open(queue_name, data, result, int(number))
    except (MediaRefused, MediaFailed) as error:
        raise Refusal(404, str(error)) from None
    except TimeoutError:
        raise Refusal(503, "The media root does not answer", headers={"retry-after": "5"}) from None
    if file is None:
        raise Refusal(404, "The job made no such file, or its files are not shown here")
    is_head = look.request.method == "HEAD"
    try:
        return response_of(look.request.headers, file, is_head=is_head, is_saved=bool(look.asked("save")))
    except Refusal:
        file.close()
        raise
