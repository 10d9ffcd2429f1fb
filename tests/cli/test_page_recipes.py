"""The README's ways to mount the page, with the real frameworks on a real server, as somebody who copies them sees it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.cli.command import Beeq
from tests.cli.test_recipes import chapter, run_python, served
from tests.web.page.forms import form_with, jobs_of, links_of, settled, text_of

pytestmark = pytest.mark.external  # Django, FastAPI, Litestar and Starlette; it takes long
BASE = "/queues"
QUEUE = "a/b"
#: What a recipe leaves to the reader: how users sign in.
SIGN_IN = {
    "fastapi": """
from fastapi import Request


@app.post("/sign-in/{name}")
async def sign_in(request: Request, name: str) -> None:
    request.session["user"] = name
""",
    "litestar": """
from litestar import Request, post


@post("/sign-in/{name:str}")
async def sign_in(request: Request, name: str) -> None:
    request.session["user"] = name


app.register(sign_in)
""",
}


def recipe(framework: str) -> str:
    """Return the program that imports this framework."""
    programs = re.findall(r"```py(?:thon)?\n(.*?)```", chapter("### The page"), re.DOTALL)
    (found,) = (
        program for program in programs if re.search(rf"^from {framework}[. ]", program, re.MULTILINE)
    )
    return str(found)


@pytest.fixture
def folder(bare_beeq: Beeq) -> Path:
    """A folder whose server has two jobs that wait in a queue with a slash in its name."""
    bare_beeq.environment |= {"BEEQ_REDIS_URL": "embedded:", "SECRET_KEY": "a secret of this test"}
    for number in (1, 2):
        bare_beeq.ok("enqueue", QUEUE, f"n:={number}")
    return bare_beeq.folder


def assert_shown(client: httpx.Client) -> None:
    """See that the screens lead to one another and to what they need, and that they stay live."""
    overview = settled(client.get, f"{BASE}/")
    assert links_of(overview)[QUEUE] == f"{BASE}/q/a%2Fb"
    listed = client.get(f"{BASE}/q/a%2Fb")
    assert set(jobs_of(listed)) <= {"1", "2"}
    assert client.get(f"{BASE}/q/a%2Fb/jobs/2").status_code == 200
    assert client.get(f"{BASE}/nothing").status_code == 404
    for file in ("page.css", "page.js"):
        assert client.get(f"{BASE}/static/{file}").status_code == 200
    with client.stream("GET", f"{BASE}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 5000"
        assert '"name":"a/b"' in next(line for line in lines if line.startswith("data: "))


def assert_acts(client: httpx.Client) -> None:
    """Remove a job, by the form on its screen, as one who may act."""
    assert_shown(client)
    form = form_with(client.get(f"{BASE}/q/a%2Fb/jobs/1"), "Remove")
    name, value = next((name, value) for name, value, text in form.buttons if text == "Remove")
    done = client.post(form.action, data={**form.fields, name: value}, follow_redirects=True)
    assert "1 job removed" in text_of(done)
    assert done.url.path.startswith(f"{BASE}/")
    forged = {**form.fields, "form_token": "0" * 64, name: value}
    assert client.post(form.action, data=forged).status_code == 403
    foreign = {"origin": "https://evil.example"}
    assert client.post(form.action, data={**form.fields, name: value}, headers=foreign).status_code == 403


def assert_looks(client: httpx.Client) -> None:
    """See that one who may look sees all of it, and no buttons, and that the server refuses what they send."""
    assert_shown(client)
    assert "Remove" not in client.get(f"{BASE}/q/a%2Fb/jobs/2").text
    act = {"verb": "remove", "id": "2"}
    assert client.post(f"{BASE}/q/a%2Fb/act", data=act).status_code == 403
    assert jobs_of(client.get(f"{BASE}/q/a%2Fb/waiting")) == ["2"]


def test_in_starlette_a_header_decides(bare_beeq: Beeq, folder: Path):
    (folder / "app.py").write_text(recipe("starlette.applications"))
    server = bare_beeq.start_module("uvicorn", "app:app", "--port", "0")
    with served(server, "Uvicorn running on") as client:
        assert client.get(f"{BASE}/").status_code == 403
        client.headers["x-admin"] = "yes"
        assert_acts(client)


@pytest.mark.parametrize("framework", ["fastapi", "litestar"])
def test_the_session_of_the_framework_decides(bare_beeq: Beeq, folder: Path, framework: str):
    (folder / "app.py").write_text(recipe(framework) + SIGN_IN[framework])
    server = bare_beeq.start_module("uvicorn", "app:app", "--port", "0")
    with served(server, "Uvicorn running on") as client:
        assert client.get(f"{BASE}/").status_code == 403
        assert client.post("/sign-in/ada").is_success
        assert_acts(client)
        client.cookies.clear()
        assert client.post("/sign-in/eve").is_success
        assert_looks(client)
        assert client.get("/queuesx").status_code == 404


MAKE_USERS = """
import django
django.setup()
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password="secret")
User.objects.create_user("eve", password="secret", is_staff=True)
User.objects.create_user("bob", password="secret")
"""


def test_in_django_its_users_decide(bare_beeq: Beeq, folder: Path):
    bare_beeq.environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    assert run_python(bare_beeq, "-m", "django", "startproject", "mysite", ".").returncode == 0
    (folder / "mysite" / "asgi.py").write_text(recipe("django"))
    migrated = run_python(bare_beeq, "manage.py", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    made = run_python(bare_beeq, "-c", MAKE_USERS)
    assert made.returncode == 0, made.stderr
    server = bare_beeq.start_module("uvicorn", "mysite.asgi:application", "--port", "0")
    with served(server, "Uvicorn running on") as client:
        for name, sees in (("ada", assert_acts), ("eve", assert_looks)):
            client.cookies.clear()
            assert client.get(f"{BASE}/").status_code == 403
            sign_in_to_django(client, name)
            sees(client)
        client.cookies.clear()
        sign_in_to_django(client, "bob")
        assert client.get(f"{BASE}/").status_code == 403


def sign_in_to_django(client: httpx.Client, name: str) -> None:
    client.get("/admin/login/")
    form = {"username": name, "password": "secret", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    client.post("/admin/login/", data=form)
