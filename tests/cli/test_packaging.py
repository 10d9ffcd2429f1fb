"""The wheel and the sdist hold what an installation needs, and an installed copy finds its scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.external

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "lua").glob("*.lua"))


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    built = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_sdist_keeps_the_layout_of_the_checkout(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "beeq/queue.py", "beeq/py.typed", "cli/beeq_cli/main.py"} <= names
    assert {f"lua/{name}" for name in SCRIPTS} <= names
    assert "beeq/LICENSE" in names


def test_the_wheel_holds_the_licence_and_names_it(dist):
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        about = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        fields = opened.read(about).decode()
        shipped = opened.read(f"{about.removesuffix('METADATA')}licenses/beeq/LICENSE")
    assert "License-Expression: MIT\nLicense-File: beeq/LICENSE\n" in fields
    assert shipped == (ROOT / "beeq" / "LICENSE").read_bytes()
    assert b"Permission is hereby granted, free of charge" in shipped


def test_the_wheel_has_the_scripts_and_the_command(dist):
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "beeq = beeq_cli.main:cli" in opened.read(entry_points).decode()
    assert {f"beeq/lua/{name}" for name in SCRIPTS} <= names
    assert {"beeq/py.typed", "beeq/protocol/README.md", "beeq_cli/main.py"} <= names
    page = ROOT / "beeq" / "web" / "page"
    files = [path for folder in ("templates", "static") for path in (page / folder).iterdir()]
    assert files
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "cli/")) for name in names)


def test_an_installed_copy_works_without_the_checkout(dist, tmp_path):
    (archive,) = dist.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    program = (
        "import beeq.redis.scripts, beeq_cli.main;"
        "print(beeq.__file__, beeq_cli.main.__file__, len(beeq.redis.scripts.ALL))"
    )
    ran = subprocess.run(
        (sys.executable, "-c", program),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    package, command, count = ran.stdout.split()
    assert package.startswith(str(site))
    assert command.startswith(str(site))
    assert int(count) == len(SCRIPTS)
