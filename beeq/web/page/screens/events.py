"""Live numbers for the script of an open page."""

from starlette.responses import Response, StreamingResponse

from beeq.web.page import rendering, words
from beeq.web.page.live import Topic
from beeq.web.page.look import ScreenRequest


async def stream(look: ScreenRequest) -> Response:
    """Return a stream of server-sent events about all queues, one, or a job."""
    headers = {**rendering.SAFETY, **rendering.NEVER_KEPT, "x-accel-buffering": "no"}
    if look.request.method == "HEAD":
        return Response(headers=headers, media_type="text/event-stream")
    live = look.parts.live
    live.check_room()
    queue_name = look.asked("queue")
    topic = Topic(look.prefix, queue_name, look.asked("job")) if queue_name else Topic()
    events = live.events(topic, shown=lambda progress: words.preview(look.data(progress)))
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")
