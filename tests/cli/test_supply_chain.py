"""What CI installs: versions that fit pyproject.toml, and an audit that fails nothing."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE))
CI = (ROOT / ".ci" / "run").read_text()


def test_ci_locks_a_fitting_version_of_each_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    for requirement in map(Requirement, listed):
        name = canonicalize_name(requirement.name)
        if name != "beequeue":
            assert requirement.specifier.contains(LOCKED[name], prereleases=True), requirement


def test_a_version_that_an_index_lacks_does_not_end_ci():
    assert re.search(r"pip install .*-c \.ci/constraints\.txt .* \|\| \{\n.*\n +\.venv/bin/pip install", CI)


def test_an_audit_that_can_do_nothing_fails_nothing(tmp_path):
    scripts = tmp_path / ".ci"
    scripts.mkdir()
    (scripts / "audit").write_text((ROOT / ".ci" / "audit").read_text())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho /nowhere\n")
    python.chmod(0o755)
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    ran = subprocess.run(
        ("bash", str(scripts / "audit")),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0
    assert "nothing was audited" in ran.stderr
    assert "\nbeside audit .ci/audit\n" in CI
    assert "\nended audit || true" in CI
