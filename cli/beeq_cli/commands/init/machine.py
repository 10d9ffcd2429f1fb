"""Files for one machine: a systemd unit, a Dockerfile."""

from beeq_cli.commands.init.facts import KILL_S, AppFacts, quoted, quoted_list

_UNIT = """\
# {what}: /etc/systemd/system/{name}.service
# Then: systemctl daemon-reload && systemctl enable --now {name}

[Unit]
Description=beeq worker on {what}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
{user}
WorkingDirectory={folder}
# REDIS_URL=redis://… and the app's own secrets, one a line; for root only (chmod 600).
EnvironmentFile=/etc/{name}.env
ExecStart={command}
# The first signal lets running jobs end, and goes to the parent only, which passes it on.
KillMode=mixed
TimeoutStopSec={kill_s}
Restart=always
RestartSec=2
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""

_DOCKERFILE = """\
# {what}. Keep secrets out of the image: list .env, .git, .venv and .beeq in .dockerignore.
# docker build -t {image} .
# docker run --init --stop-timeout {kill_s} --env-file worker.env {image}
# worker.env: REDIS_URL=redis://… and the app's own secrets, one a line.
FROM python:3.13-slim

RUN useradd --create-home --uid 10001 worker
WORKDIR /app
{install}
COPY . .
USER 10001

EXPOSE {metrics_port} {health_port}
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \\
    CMD ["python", "-c", {probe}]
ENTRYPOINT ["beeq"]
CMD {command}
"""


def unit(facts: AppFacts, *, program: list[str], folder: str, user: str) -> str:
    """Return the unit of a worker that ``program`` runs in this folder; "" is a user of its own."""
    words = [*program, *facts.command()]
    return _UNIT.format(
        what=facts.what,
        name=facts.name,
        user=f"User={user}" if user else "DynamicUser=yes",
        folder=_specified(folder),
        command=" ".join(_unit_word(word) for word in words),
        kill_s=KILL_S,
    )


def _specified(text: str) -> str:
    """Return text in which systemd finds no specifier. Raises ValueError: a line would end in it."""
    if not text.isprintable():
        raise ValueError("the path of this folder, or of beeq, has characters that no unit can have")
    return text.replace("%", "%%")


def _unit_word(word: str) -> str:
    text = _specified(word).replace("$", "$$")
    if not any(character in text for character in " \t'\"\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def dockerfile(facts: AppFacts, *, version: str, has_requirements: bool) -> str:
    """Return the Dockerfile of an image of the app in this folder, with this version of beeq."""
    install = (
        f"RUN pip install --no-cache-dir 'beequeue[{'fast,metrics' if facts.app else 'all'}]=={version}'"
    )
    if has_requirements:
        install = f"COPY requirements.txt .\n{install} -r requirements.txt"
    url = f"http://127.0.0.1:{facts.health_port}/livez"
    return _DOCKERFILE.format(
        what=facts.what,
        image=facts.image,
        install=install,
        metrics_port=facts.metrics_port,
        health_port=facts.health_port,
        probe=quoted(f"import urllib.request as r; r.urlopen('{url}', timeout=4)"),
        command=quoted_list(facts.command(bind="0.0.0.0")),  # noqa: S104 - the container's own network
        kill_s=KILL_S,
    )
