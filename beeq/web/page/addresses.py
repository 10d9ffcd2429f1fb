"""The addresses of the screens: made, and read. Pure.

Names of queues and ids of jobs may be any text. Each is one segment of a path, percent-encoded; browsers take
the segments "." and ".." away in any spelling, so these two are written with a tilde before them.
"""

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_to_bytes, urlencode

_DOTS = (".", "..")
#: Of an id, encoded. Servers and proxies refuse much longer addresses, and a list has each id several times.
_LONGEST_SEGMENT = 8_000


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes the addresses of one page.

    Attributes:
        base: what each path begins with, encoded, without a slash at its end.
        prefixes: of the queues that are shown; addresses leave the first one out.
        prefix: the current one.
    """

    base: str
    prefixes: tuple[str, ...]
    prefix: str

    def within(self, prefix: str) -> "Addresses":
        """Return the addresses of another prefix's queues."""
        return replace(self, prefix=prefix)

    def to(self, path: str, **query: str | int | None) -> str:
        """Return the address of a path that begins with a slash; parameters without a value are left out."""
        named = {name: value for name, value in query.items() if value not in (None, "")}
        if self.prefix != self.prefixes[0]:
            named["prefix"] = self.prefix
        # A lone surrogate cannot be written; no id has one, since Redis's replies are decoded.
        return f"{self.base}{path}" + (f"?{urlencode(named, errors='replace')}" if named else "")

    def file(self, name: str, version: str) -> str:
        """Return the address of a file of the page's own."""
        return f"{self.base}/static/{name}?v={version}"

    def queue(self, name: str, state: str = "", **query: str | int | None) -> str:
        """Return the address of a queue, or of its jobs in a state."""
        return self.to(f"/q/{segment(name)}" + (f"/{state}" if state else ""), **query)

    def job(self, queue_name: str, job_id: str, rest: str = "", **query: str | int | None) -> str:
        """Return the address of a job, or of what is below it; the queue's, if the id is too long for one."""
        if not has_address(job_id):
            return self.queue(queue_name)
        return self.to(f"/q/{segment(queue_name)}/jobs/{segment(job_id)}{rest}", **query)

    def act(self, name: str) -> str:
        """Return the address for a queue's forms."""
        return self.queue(name, "act")

    def is_own(self, address: str) -> bool:
        """Return whether the text is an address of this page, and leads nowhere else."""
        is_path = address.startswith(f"{self.base}/") and not address.startswith("//")
        return is_path and address.isascii() and address.isprintable() and "\\" not in address


def has_address(job_id: str) -> bool:
    """Return whether there is an address with that id: it is not too long for one."""
    return len(job_id) <= _LONGEST_SEGMENT and len(segment(job_id)) <= _LONGEST_SEGMENT


def segment(text: str) -> str:
    """Return the text as one segment of a path."""
    if text.lstrip("~") in _DOTS:
        text = f"~{text}"
    return quote(text, safe="", errors="replace")


def text_of_segment(encoded: str) -> str:
    """Return the text that a segment encodes; raises UnicodeDecodeError, a ValueError, if it is not UTF-8."""
    text = unquote_to_bytes(encoded).decode()
    return text[1:] if text.startswith("~") and text.lstrip("~") in _DOTS else text
