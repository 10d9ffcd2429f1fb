"""The parameters of a deployment's files."""

import json
import re
from dataclasses import dataclass

_APP = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
#: Running jobs have this long to end …
SHUTDOWN_S = 30
#: … and the worker's manager kills it so long after the signal.
KILL_S = SHUTDOWN_S + 15


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue for the files: its lists, and how many jobs one process runs at once."""

    name: str
    prefix: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class AppFacts:
    """The app for the files.

    Attributes:
        app: as ``--app`` has it; "": the built-in queues.
        name: of the service, deployment and so on: lower case, digits and hyphens.
        concurrency: ``-c``; None: what the app says.
        processes: ``-w``.
        metrics_port: where Prometheus scrapes.
        health_port: where probes ask.
        image: the container's.
    """

    app: str
    name: str
    concurrency: int | None
    processes: int
    metrics_port: int
    health_port: int
    image: str

    def command(self, *, bind: str = "") -> list[str]:
        """Return the worker's command line without ``beeq``."""
        words = ["worker"]
        words += ["--app", self.app] if self.app else []
        words += ["-c", str(self.concurrency)] if self.concurrency else []
        words += ["-w", str(self.processes)] if self.processes > 1 else []
        words += ["--metrics-port", str(self.metrics_port), "--health-port", str(self.health_port)]
        words += ["--bind", bind] if bind else []
        return [*words, "--shutdown-timeout", f"{SHUTDOWN_S}s"]

    @property
    def what(self) -> str:
        """The worker's queues, for a person."""
        return f"the queues of {self.app}" if self.app else "the built-in queues"


def checked_app(text: str) -> str:
    """Return a text like ``jobs:queue``. Raises ValueError."""
    if not _APP.fullmatch(text):
        raise ValueError(f"{text!r} is not of the form module:attr")
    return text


def checked_name(text: str) -> str:
    """Return a name that all the files may have. Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower case letters, digits and hyphens, at most 40 long")
    return text


def name_of(app: str) -> str:
    """Return the name that an app's worker has unless another is given: ``beeq-jobs``."""
    module = app.partition(":")[0].lower().replace("_", "-").replace(".", "-")
    words = [word for word in module.split("-") if word]
    return "-".join(["beeq", *(words or ["worker"])])[:40].rstrip("-")


def quoted(text: str) -> str:
    """Return text in quotes, as YAML reads it; as JSON and Dockerfiles do, if each character has 16 bits."""
    # JSON writes a larger one as two halves, which YAML's readers refuse.
    shown = (json.dumps(each)[1:-1] if each <= "\uffff" else f"\\U{ord(each):08x}" for each in text)
    return f'"{"".join(shown)}"'


def quoted_list(words: list[str]) -> str:
    """Return texts as such a list."""
    return json.dumps(words)
