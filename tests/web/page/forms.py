"""Reads a screen's forms and sends them, as a browser does without JavaScript."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx


@dataclass
class Form:
    """A form: where it is sent, its hidden fields, its checkboxes and its buttons."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    boxes: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)  # name, value, text

    async def press(self, client: httpx.AsyncClient, text: str, **checked: Any) -> httpx.Response:
        """Press the button with this text, and follow where it leads."""
        name, value = next((name, value) for name, value, shown in self.buttons if shown == text)
        data = {**self.fields, **({name: value} if name else {}), **checked}
        return await client.post(self.action, data=data, follow_redirects=True)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.texts: list[str] = []
        self._link: str | None = None
        self._button: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        if tag == "form":
            self.forms.append(Form(of["action"] or ""))
        elif tag == "input" and self.forms and of.get("type") == "hidden":
            self.forms[-1].fields[of["name"] or ""] = of["value"] or ""
        elif tag == "input" and self.forms and of.get("type") == "checkbox":
            self.forms[-1].boxes.append((of["name"] or "", of["value"] or ""))
        elif tag == "button":
            self._button = of.get("name") or "", of.get("value") or ""
        elif tag == "a":
            self._link = of.get("href")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None
        elif tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        text = data.strip()
        if not text:
            return
        self.texts.append(text)
        if self._button is not None and self.forms:
            self.forms[-1].buttons.append((*self._button, text))
        is_count = text.isdecimal() and "/jobs/" not in (self._link or "")
        if self._link is not None and not is_count:
            self.links.setdefault(text, self._link)


def _read(response: httpx.Response) -> _Reader:
    reader = _Reader()
    reader.feed(response.text)
    return reader


def form_with(response: httpx.Response, button: str) -> Form:
    """Return the first form that has this button."""
    return next(form for form in _read(response).forms if any(text == button for _, _, text in form.buttons))


def settled(get: Callable[[str], httpx.Response], address: str) -> httpx.Response:
    """Return a screen of another process once it no longer asks to be looked at again."""
    for _ in range(200):
        shown = get(address)
        if 'http-equiv="refresh"' not in shown.text:
            return shown
        time.sleep(0.05)
    raise AssertionError(f"{address} is never complete")


def buttons_of(response: httpx.Response) -> list[str]:
    """Return the texts of all buttons that act, in order."""
    return [
        text
        for form in _read(response).forms
        if "form_token" in form.fields
        for _, _, text in form.buttons
        if text != "Log out"
    ]


def links_of(response: httpx.Response) -> dict[str, str]:
    """Return text → address of the links."""
    return _read(response).links


def jobs_of(response: httpx.Response) -> list[str]:
    """Return the ids of the jobs that are listed, in order."""
    return [text for text, address in links_of(response).items() if "/jobs/" in address]


def text_of(response: httpx.Response) -> str:
    """Return all that is shown."""
    return " ".join(_read(response).texts)
