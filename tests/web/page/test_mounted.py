"""The page within other applications: Starlette's and FastAPI's mounts, and Django under ASGI."""

from __future__ import annotations

import contextlib
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.web.page.conftest import client_of
from tests.web.page.forms import form_with, jobs_of, links_of, text_of


def in_starlette(page) -> Any:
    return Starlette(routes=[Mount("/queues", page)])


def in_fastapi(page) -> Any:
    app = FastAPI()
    app.mount("/queues", page)
    return app


def in_starlette_twice(page) -> Any:
    return Starlette(routes=[Mount("/admin", Starlette(routes=[Mount("/queues", page)]))])


def in_django(page) -> Any:
    if not settings.configured:
        settings.configure(SECRET_KEY="s", ROOT_URLCONF="tests.web.page.test_mounted", ALLOWED_HOSTS=["*"])
        django.setup()
    django_application = get_asgi_application()

    async def application(scope, receive, send) -> None:
        is_page = scope["type"] == "http" and f"{scope['path']}/".startswith("/queues/")
        await (page if is_page else django_application)(scope, receive, send)

    return application


urlpatterns: list[Any] = []  # Django's own


def auth(request) -> Any:
    return "act" if request.headers.get("x-admin") == "yes" else None


@pytest.mark.parametrize(
    ("mounted", "base", "options"),
    [
        (in_starlette, "/queues", {}),
        (in_fastapi, "/queues", {}),
        (in_starlette_twice, "/admin/queues", {}),
        (in_django, "/queues", {"base_path": "/queues"}),
    ],
)
async def test_the_whole_way_works_below_the_path(make_page, put, mounted, base, options):
    queue = await put("a/b", {"n": 1}, {"n": 2})
    app = mounted(make_page(auth=auth, **options))
    async with client_of(app) as client:
        client.headers["x-admin"] = "yes"
        overview = await client.get(f"{base}/")
        assert links_of(overview)["a/b"] == f"{base}/q/a%2Fb"
        listed = await client.get(links_of(overview)["a/b"])
        assert jobs_of(listed) == ["1", "2"]
        done = await form_with(listed, "Remove").press(client, "Remove", id="1")
        assert "1 job removed" in text_of(done)
        assert str(done.url).endswith(f"{base}/q/a%2Fb")
        assert (await client.get(f"{base}/static/page.css")).status_code == 200
        assert (await client.get(f"{base}/nothing")).status_code == 404
        assert (await client.get(f"{base}")).status_code in (200, 307)
        client.headers["x-admin"] = "no"
        assert (await client.get(f"{base}/")).status_code == 403
    assert (await queue.check_health()).waiting == 1


async def test_the_hosts_own_pages_stay_its_own(make_page):
    for mounted, options in ((in_fastapi, {}), (in_django, {"base_path": "/queues"})):
        async with client_of(mounted(make_page(auth=auth, **options))) as client:
            for path in ("/", "/queuesx", "/q/mail", "/static/page.css"):
                answer = await client.get(path)
                assert answer.status_code == 404
                assert "content-security-policy" not in answer.headers


async def test_a_page_that_was_closed_connects_again(make_page, put):
    await put("mail", {"n": 1})
    page = make_page(auth=auth)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(client_of(page))
            client.headers["x-admin"] = "yes"
            async with page.running():
                assert "mail" in links_of(await client.get("/"))
