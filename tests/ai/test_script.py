"""A script in what a model wrote: found in talk and fences, refused when it is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beeq.ai.errors import AIFailed
from beeq.ai.writing.script import script

PLAIN = {"title": "Bees", "scenes": [{"description": "A meadow."}]}
FULL = {
    "title": "Bees",
    "scenes": [
        {"title": "One", "description": "A {meadow}.", "dialogue": "“Buzz”", "duration": 4},
        {"description": "Dusk.", "title": None, "duration": 2.5, "camera": {"lens": [35, 50]}},
    ],
}
TEXT = json.dumps(FULL)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps(FULL, indent=2),
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}```",
        f"Of course! Here {{it}} is:\n\n```json\n{TEXT}\n```\nDo you {{like}} it?",
        f"<think>They want {{title, scenes}}, so {{}} or {{1}}</think>\n{TEXT}",
        f'{{"script": {TEXT}}}',
        "\ufeff" + TEXT,
    ],
)
def test_a_script_is_found_whatever_stands_around_it(text: str) -> None:
    assert script(text) == FULL


@pytest.mark.parametrize(
    "more",
    [
        {"logline": "Bees live.", "characters": [{"name": "Queen"}]},
        {"scenes": [{"heading": "EXT. MEADOW", "dialogue": [{"speaker": "Bee", "line": "Buzz"}]}]},
        {"scenes": [{"description": ["A", "B"], "duration": "4 s", "title": 1}, {"description": None}, {}]},
        {"scenes": [{"title": "One", "scenes": [{"x": 1}], "script": FULL}]},
    ],
)
def test_the_result_is_what_the_model_wrote(more: dict[str, Any]) -> None:
    assert script(json.dumps(FULL | more)) == FULL | more


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "Bees", "scenes": [{"line": "two\nlines\tand a tab"},],}',
        '{"title": "Bees",, "scenes": [{"line": "two\nlines\tand a tab",},,]}',
        '{, "title": "Bees" , , "scenes": [ , {"line": "two\nlines\tand a tab"} , ] , }',
        '{"title": "Bees", // a comment, with "quotes" and }\n"scenes": /* [ */ [{"line": "two\nlines\tand a tab"}]}',
    ],
)
def test_slips_of_a_model_are_forgiven(text: str) -> None:
    assert script(text) == {"title": "Bees", "scenes": [{"line": "two\nlines\tand a tab"}]}


def test_what_looks_like_a_slip_in_a_text_is_kept() -> None:
    line = 'a,, b,] // {"c",} /* <think>d</think> */'
    text = json.dumps({"title": "Bees", "scenes": [{"line": line}]}).replace("}]", "},]")
    assert script(text)["scenes"] == [{"line": line}]


DRAFT = json.dumps({"title": "Draft", "scenes": [{"description": "?"}]})


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{DRAFT}\n</think>\n\n{TEXT}",
        f"Perhaps {DRAFT}?\n</think>\n{TEXT}",
        f"<Thinking>{DRAFT}</Thinking>{TEXT}",
        f"<reasoning effort='high'>{DRAFT}</reasoning>\n```json\n{TEXT}\n```",
        f"[THINK]{DRAFT}[/THINK]{TEXT}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}",
        f"{DRAFT}\nBetter:\n{TEXT}\nThis is it {{all}}.",
        f'{{"draft": {DRAFT}, "final": {TEXT}}}',
        f"<think>{DRAFT}</think><answer>{TEXT}</answer>",
        TEXT + '\n{"note": "done"}',
        f"{TEXT}\n<think>Or rather {DRAFT}?</think>",
    ],
)
def test_drafts_and_thinking_are_no_script(text: str) -> None:
    assert script(text) == FULL


@pytest.mark.parametrize(
    "text", [f"<think>{DRAFT}</think>I cannot.", f"{DRAFT}</think> I cannot.", f"<think>\n{DRAFT}"]
)
def test_a_draft_without_an_answer_is_no_script(text: str) -> None:
    with pytest.raises(AIFailed, match="no script"):
        script(text)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"title": None}, "title: input should be a valid string"),
        ({"title": ""}, "title: string should have at least 1 character"),
        ({"scenes": None}, "scenes: input should be a valid list"),
        ({"scenes": []}, "scenes: list should have at least 1 item"),
        ({"scenes": ["A meadow."]}, r"scenes\[0\]: "),
        ({"scenes": [{}, 5]}, r"scenes\[1\]: "),
    ],
)
def test_what_is_no_script_fails_and_names_the_fault(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(AIFailed, match=f"no script: {fault}"):
        script(json.dumps(PLAIN | change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        "{",
        "}{",
        json.dumps([PLAIN["title"]]),
        TEXT[:-20],
        TEXT.replace("2.5", "NaN"),
        '{"title": "Bees", "scenes": ' + "[" * 100_000,
        '{"a":' * 100_000,
        "{" * 100_000,
        '{"' + '\\"' * 100_000,
        "{/*" * 100_000,
        "a<think>" * 100_000,
        "{" + " " * 1_000_000 + ", 1",
    ],
)
def test_a_text_without_a_whole_object_fails(text: str) -> None:
    with pytest.raises(AIFailed, match="no script"):
        script(text)


def test_endless_numbers_are_not_json() -> None:
    with pytest.raises(AIFailed, match="no script"):
        script(TEXT.replace("2.5", "1e999"))


def test_a_script_that_no_peer_could_read_again_is_refused() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    with pytest.raises(AIFailed, match="no script"):
        script(json.dumps({"title": "Bees", "scenes": [{"description": "x", "more": deep}]}))


def test_the_model_is_told_what_is_checked() -> None:
    from beeq.ai.writing.script import INSTRUCTIONS

    assert "JSON" in INSTRUCTIONS
    for name in ("title", "scenes", "description", "dialogue", "duration"):
        assert f'"{name}"' in INSTRUCTIONS
