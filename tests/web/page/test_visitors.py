"""Who may look at the page and who may act, by token, session, host application and origin."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.web.page.conftest import client_of
from tests.web.page.forms import buttons_of, form_with, text_of

TOKEN, READER = "t0ken-that-acts", "t0ken-that-looks"
ACT = "/q/mail/act"
#: A browser that follows a link on a page of another site.
LINKED = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture
def mail(put):
    async def mail():
        return await put("mail", {"n": 1}, {"n": 2})

    return mail


@asynccontextmanager
async def logged_in(page, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(page) as client:
        answer = await client.post("/login", data={"token": token, "next": "/"})
        assert answer.status_code == 303
        yield client


async def remove(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    return await client.post(ACT, data={"verb": "remove", "id": "1", "next": "/", **fields})


async def waiting(queue) -> int:
    health: Any = await queue.check_health()
    return int(health.waiting)


async def test_without_a_token_only_this_machine_is_answered(make_page, mail):
    await mail()
    page = make_page()
    transport = httpx.ASGITransport(app=page, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/")).status_code == 403
    async with client_of(page) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/", headers={"x-forwarded-for": "192.0.2.7"})).status_code == 403
        assert (await client.get("/", headers={"host": "evil.example"})).status_code == 403


async def test_a_form_needs_the_text_of_its_session(client, mail):
    queue = await mail()
    shown = await client.get("/q/mail/waiting")
    for fields in ({}, {"form_token": ""}, {"form_token": "0" * 64}, {"form_token": "é"}):
        assert (await remove(client, **fields)).status_code == 403
    assert await waiting(queue) == 2
    done = await form_with(shown, "Remove").press(client, "Remove", id="1")
    assert "1 job removed" in text_of(done)
    assert await waiting(queue) == 1


async def test_a_form_of_another_session_is_refused(make_page, mail):
    queue = await mail()
    page = make_page()
    async with client_of(page) as one, client_of(page) as other:
        form = form_with(await one.get("/q/mail/waiting"), "Remove")
        await other.get("/")
        assert (await form.press(other, "Remove", id="1")).status_code == 403
        other.cookies.clear()
        assert (await form.press(other, "Remove", id="1")).status_code == 403
    assert await waiting(queue) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {**LINKED, "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
async def test_a_foreign_pages_form_is_refused(client, mail, headers):
    queue = await mail()
    form = form_with(await client.get("/q/mail/waiting"), "Remove")
    data = {**form.fields, "verb": "remove", "id": "1"}
    assert (await client.post(form.action, data=data, headers=headers)).status_code == 403
    assert await waiting(queue) == 2


async def test_a_link_on_another_sites_page_leads_here(client, mail):
    await mail()
    assert (await client.get("/q/mail", headers=LINKED)).status_code == 200
    for hidden in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "cors"}, {"sec-fetch-dest": "script"}):
        assert (await client.get("/q/mail", headers={**LINKED, **hidden})).status_code == 403


async def test_a_link_to_who_is_logged_in_comes_back_with_the_cookie(make_page, mail):
    await mail()
    page = make_page(token=TOKEN)
    async with client_of(page) as stranger:  # the browser has kept the cookie back
        again = await stranger.get("/q/mail?error=a%20b", headers=LINKED)
        assert again.status_code == 200
        assert 'content="0;url=/q/mail?error=a%20b"' in again.text
        assert "mail</" not in again.text
        login = await stranger.get("/q/mail?error=a%20b", headers={"sec-fetch-site": "same-origin"})
        assert login.headers["location"] == "/login?next=%2Fq%2Fmail%3Ferror%3Da%2520b"


async def test_a_token_is_entered_once_and_kept_in_a_cookie(make_page, mail):
    queue = await mail()
    page = make_page(token=TOKEN)
    async with client_of(page) as client:
        first = await client.get("/q/mail/waiting")
        assert first.headers["location"] == "/login?next=%2Fq%2Fmail%2Fwaiting"
        form = form_with(await client.get(first.headers["location"]), "Log in")
        answer = await client.post(form.action, data={**form.fields, "token": TOKEN})
        assert answer.headers["location"] == "/q/mail/waiting"
        cookie = answer.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert part in cookie
        assert TOKEN not in cookie
        assert "Secure" not in cookie
        done = await form_with(await client.get("/q/mail/waiting"), "Remove").press(client, "Remove", id="1")
        assert "1 job removed" in text_of(done)
        assert await waiting(queue) == 1
        await form_with(await client.get("/"), "Log out").press(client, "Log out")
        assert (await client.get("/")).status_code == 303


async def test_under_https_the_cookie_is_sent_by_https_only(make_page):
    page = make_page(token=TOKEN, allowed_hosts=("queues.example",))
    transport = httpx.ASGITransport(app=page)
    async with httpx.AsyncClient(transport=transport, base_url="https://queues.example") as client:
        answer = await client.post("/login", data={"token": TOKEN})
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "cookie", ["act.9999999999.x.0", "act", "", "look.9999999999.abc.é", "act.x.y.z", "." * 9]
)
async def test_a_made_up_cookie_opens_nothing(make_page, cookie):
    async with client_of(make_page(token=TOKEN, read_token=READER)) as client:
        answer = await client.get("/", headers={"cookie": f"beeq_session={cookie}".encode()})
        assert answer.status_code == 303


async def test_a_readers_cookie_does_not_become_an_actors(make_page, mail):
    await mail()
    page = make_page(token=TOKEN, read_token=READER)
    async with logged_in(page, READER) as client:
        cookie = client.cookies["beeq_session"]
        forged = re.sub(r"^look", "act", cookie)
        answer = await client.get("/q/mail", headers={"cookie": f"beeq_session={forged}"})
        assert answer.status_code == 303


async def test_a_new_token_ends_the_sessions_of_the_old_one(make_page):
    async with (
        logged_in(make_page(token=TOKEN), TOKEN) as client,
        client_of(make_page(token="another")) as other,
    ):
        headers = {"cookie": f"beeq_session={client.cookies['beeq_session']}"}
        assert (await other.get("/", headers=headers)).status_code == 303


async def test_another_process_of_the_same_token_knows_the_session(make_page, mail):
    queue = await mail()
    async with logged_in(make_page(token=TOKEN), TOKEN) as client, client_of(make_page(token=TOKEN)) as other:
        other.cookies.update(client.cookies)
        form = form_with(await client.get("/q/mail/waiting"), "Remove")
        await form.press(other, "Remove", id="1")
    assert await waiting(queue) == 1


async def test_a_reader_sees_no_button_and_may_not_post(make_page, mail):
    queue = await mail()
    async with logged_in(make_page(token=TOKEN, read_token=READER), READER) as client:
        assert buttons_of(await client.get("/q/mail/waiting")) == []
        assert buttons_of(await client.get("/q/mail/jobs/1")) == []
        assert (await remove(client)).status_code == 403
    assert await waiting(queue) == 2


async def test_read_only_holds_for_everybody(make_page, mail):
    queue = await mail()
    async with client_of(make_page(is_read_only=True)) as client:
        assert buttons_of(await client.get("/q/mail/waiting")) == []
        assert (await remove(client)).status_code == 403
    async with logged_in(make_page(token=TOKEN, is_read_only=True), TOKEN) as client:
        assert buttons_of(await client.get("/q/mail/waiting")) == []
        assert (await remove(client)).status_code == 403
    assert await waiting(queue) == 2


async def test_programs_come_with_the_token_in_a_header(make_page, mail):
    queue = await mail()
    page = make_page(token=TOKEN, read_token=READER)
    async with client_of(page, authorization=f"Bearer {READER}") as reader:
        assert (await reader.get("/q/mail")).status_code == 200
        assert (await remove(reader)).status_code == 403
    async with client_of(page, authorization="Bearer wrong") as nobody:
        assert (await nobody.get("/")).status_code == 401
        assert (await remove(nobody)).status_code == 401
    assert await waiting(queue) == 2
    async with client_of(page, authorization=f"Bearer {TOKEN}") as program:
        assert (await remove(program)).status_code == 303
    assert await waiting(queue) == 1


async def test_wrong_tokens_are_followed_by_a_pause(make_page):
    page = make_page(token=TOKEN)
    async with client_of(page) as client:
        statuses = [(await client.post("/login", data={"token": "no"})).status_code for _ in range(6)]
        assert statuses[:3] == [403, 403, 403]
        assert statuses[-1] == 429
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 429
    other = httpx.ASGITransport(app=page, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=other, base_url="http://localhost") as client:
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"]
)
async def test_a_login_leads_to_no_other_site(make_page, wanted):
    async with client_of(make_page(token=TOKEN)) as client:
        answer = await client.post("/login", data={"token": TOKEN, "next": wanted})
        assert answer.headers["location"] == "/"
        assert (
            wanted
            not in (await client_of(make_page(token=TOKEN)).get("/login", params={"next": wanted})).text
        )


async def test_the_files_of_the_page_need_no_login(make_page):
    async with client_of(make_page(token=TOKEN)) as client:
        for name, media_type in (
            ("page.css", "text/css"),
            ("page.js", "text/javascript"),
            ("bee.svg", "image/svg+xml"),
        ):
            answer = await client.get(f"/static/{name}")
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media_type)
        for name in ("x", "..%2Fapplication.py", "%2e%2e/__init__.py", ""):
            assert (await client.get(f"/static/{name}")).status_code == 404


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_mounted_the_host_application_says_who_may_what(make_page, mail, is_coroutine):
    queue = await mail()

    def role(request):
        return {"root": "act", "guest": "look", "odd": "everything"}.get(request.headers.get("x-user", ""))

    async def role_later(request):
        return role(request)

    page = make_page(auth=role_later if is_coroutine else role)
    transport = httpx.ASGITransport(app=page, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        for user, status in (("", 403), ("odd", 403), ("guest", 200), ("root", 200)):
            assert (await client.get("/q/mail", headers={"x-user": user})).status_code == status
        assert (await remove(client)).status_code == 403
        client.headers["x-user"] = "guest"
        assert buttons_of(await client.get("/q/mail/waiting")) == []
        client.headers["x-user"] = "root"
        form = form_with(await client.get("/q/mail/waiting"), "Remove")
        data = {**form.fields, "verb": "remove", "id": "1"}
        foreign = {"origin": "https://evil.example"}
        assert (await client.post(form.action, data=data, headers=foreign)).status_code == 403
        assert await waiting(queue) == 2
        await client.post(form.action, data=data, headers={"origin": "https://shop.example"})
        assert await waiting(queue) == 1
