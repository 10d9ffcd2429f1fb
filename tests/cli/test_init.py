"""``beeq init``: what it prints is read by the programs it is for, or by strict readers of their formats."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from beeq.metrics.families import Readings, families
from tests.cli.command import Beeq

APP = """
from beeq import Queue
first, second = Queue("mail", prefix="acme"), Queue("a: b*{c}\\"\U0001f41d\u2028")

@first.process(concurrency=3)
async def send(job):
    pass

second.process(send)
both = [first, second]
"""
KINDS = ("systemd", "docker", "k8s", "keda", "prometheus")


class StrictLoader(yaml.SafeLoader):
    """Refuses a duplicate key in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"twice in one mapping: {keys}"
        return super().construct_mapping(node, deep)


@pytest.fixture
def app(beeq: Beeq) -> Beeq:
    beeq.app(APP)
    return beeq


def documents(text: str) -> list[Any]:
    return list(yaml.load_all(text, Loader=StrictLoader))


def works(app: Beeq, words: list[str]) -> None:
    """See that a worker takes this command line: it works until nothing is left."""
    ports = [str(at) for at, word in enumerate(words) if word.isdigit() and words[at - 1].endswith("-port")]
    assert len(ports) == 2
    free = ["0" if str(at) in ports else word for at, word in enumerate(words)]
    done = app.run(*free, "--burst")
    assert (done.returncode, "Metrics on http://" in done.stderr) == (0, True), done.stderr


def test_a_unit_is_one_that_systemd_takes(app: Beeq, tmp_path: Path) -> None:
    folder = app.folder / 'odd "folder" 100%n'
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    app.folder = folder
    text = app.ok("init", "systemd", "--app", "app:both", "-c", "7", "-w", "2")
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as the manual of configparser has it
    unit.read_string(text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    assert service["WorkingDirectory"] == str(folder).replace("%", "%%")
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).is_absolute()
    words = words[words.index("worker") :]
    assert words[:7] == ["worker", "--app", "app:both", "-c", "7", "-w", "2"]
    assert int(service["TimeoutStopSec"]) > int(words[-1].removesuffix("s"))
    works(app, words)
    file = tmp_path / "beeq-app.service"
    file.write_text(text)
    if (
        analyze := shutil.which("systemd-analyze")
    ) is not None:  # beside the strict reader, where there is one
        done = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_dockerfile_runs_as_nobody_special_and_has_a_probe(app: Beeq, tmp_path: Path) -> None:
    (app.folder / "requirements.txt").write_text("httpx\n")
    text = app.ok("init", "docker", "--app", "app:both")
    (tmp_path / "image").mkdir()
    parser = DockerfileParser(str(tmp_path / "image"))
    parser.content = text
    steps = [
        (step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"
    ]
    assert [name for name, _ in steps] == [
        *("FROM", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
    ]  # fmt: skip
    found = dict(steps)
    assert found["USER"] == "10001"
    words = yaml.safe_load(found["CMD"])
    assert words[words.index("--bind") + 1] == "0.0.0.0"
    probe = yaml.safe_load(found["HEALTHCHECK"].partition("CMD ")[2])
    compile(probe[2], "probe", "exec")
    assert words[words.index("--health-port") + 1] in probe[2]
    works(app, words)
    assert "-r requirements.txt" in text


def test_a_deployment_has_probes_and_names_its_secret(app: Beeq) -> None:
    (found,) = documents(
        app.ok("init", "k8s", "--app", "app:both", "--image", "registry/app:1", "--name", "7")
    )
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == ("apps/v1", "Deployment", "7")
    template = found["spec"]["template"]
    assert found["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert all(isinstance(value, str) for value in template["metadata"]["annotations"].values())
    pod = template["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry/app:1"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["metrics"]) == template["metadata"]["annotations"]["prometheus.io/port"]
    paths = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
    assert paths == {
        "startup": {"path": "/startupz", "port": "health"},
        "readiness": {"path": "/readyz", "port": "health"},
        "liveness": {"path": "/livez", "port": "health"},
    }
    assert container["env"] == [
        {"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "7-redis", "key": "url"}}}
    ]
    words = container["args"]
    assert words[words.index("--health-port") + 1] == str(ports["health"])
    assert pod["terminationGracePeriodSeconds"] > int(words[-1].removesuffix("s"))
    works(app, words)


def test_keda_looks_at_the_lists_of_each_queue(app: Beeq) -> None:
    authentication, scaled = documents(app.ok("init", "keda", "--app", "app:both", "-w", "2"))
    assert authentication["kind"] == "TriggerAuthentication"
    assert {each["parameter"] for each in authentication["spec"]["secretTargetRef"]} == {
        "address",
        "password",
    }
    assert scaled["kind"] == "ScaledObject"
    deployment = documents(app.ok("init", "k8s", "--app", "app:both"))[0]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    triggers = scaled["spec"]["triggers"]
    assert {trigger["type"] for trigger in triggers} == {"redis"}
    assert {trigger["metadata"]["listName"]: trigger["metadata"]["listLength"] for trigger in triggers} == {
        "acme:mail:waiting": "6",
        "acme:mail:active": "6",
        'bq:a: b*{c}"\U0001f41d\u2028:waiting': "2",
        'bq:a: b*{c}"\U0001f41d\u2028:active': "2",
    }
    assert {trigger["authenticationRef"]["name"] for trigger in triggers} == {
        authentication["metadata"]["name"]
    }


def test_alerts_ask_for_metrics_that_there_are(app: Beeq) -> None:
    (configuration,) = documents(app.ok("init", "prometheus", "--app", "app:both"))
    (scraped,) = configuration["scrape_configs"]
    (rules,) = documents(app.ok("init", "prometheus", "--app", "app:both", "--rules"))
    (group,) = rules["groups"]
    known = {"up"} | {f"{m.name}_total" if m.type == "counter" else m.name for m in families(Readings())}
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        promql_parser.parse(rule["expr"])
        assert set(re.findall(r"\b(?:beeq_\w+|up)\b", rule["expr"])) <= known
        assert set(re.findall(r'job="([^"]*)"', rule["expr"])) == {scraped["job_name"]}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_is_written_over_another(app: Beeq, kind: str) -> None:
    printed = app.ok("init", kind)
    assert app.ok("init", kind, "--out", "made").splitlines()[0] == "made"
    assert (app.folder / "made").read_text() == printed
    folder = app.folder / "folder"
    folder.mkdir()
    app.ok("init", kind, "--out", "folder")
    names = sorted(file.name for file in folder.iterdir())
    assert (folder / names[-1]).read_text() == printed
    for name in names[1:]:
        (folder / name).unlink()
    (folder / names[0]).write_text("mine")
    done = app.run("init", kind, "--out", "folder")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot write folder/{names[0]}: it is there already" in done.stderr
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(names[0], "mine")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("systemd", "--app", "app"), "'app' is not of the form module:attr"),
        (("systemd", "--app", "app:x\n[Service]"), "is not of the form module:attr"),
        (("k8s", "--name", "Not_DNS"), "is not a name of lower case letters"),
        (("k8s", "--image", "a b"), "--image cannot be 'a b'"),
        (("keda", "--app", "app:nothing"), "nothing"),
        (("docker", "--rules"), "--rules is for prometheus"),
        (("nomad",), "'nomad' is not one of"),
    ],
)
def test_what_cannot_be_written_is_a_wrong_usage(app: Beeq, words: tuple[str, ...], said: str) -> None:
    done = app.run("init", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
