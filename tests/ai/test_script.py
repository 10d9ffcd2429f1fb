"""A script in what a model wrote: found in talk and fences, refused when it is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beeq.ai.errors import AIFailed
from beeq.ai.script import script

pytestmark = pytest.mark.fast

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


def test_the_result_has_title_scenes_and_each_scenes_fields() -> None:
    assert script(json.dumps({"logline": "Bees live.", **FULL})) == FULL


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"title": None}, "title: input should be a valid string"),
        ({"title": ""}, "title: string should have at least 1 character"),
        ({"scenes": None}, "scenes: input should be a valid list"),
        ({"scenes": []}, "scenes: list should have at least 1 item"),
        ({"scenes": ["A meadow."]}, r"scenes\[0\]: "),
        ({"scenes": [{"title": "One"}]}, r"scenes\[0\].description: field required"),
        ({"scenes": [{"description": ""}]}, r"scenes\[0\].description: string should have"),
        ({"scenes": [{"description": "x", "dialogue": 5}]}, r"scenes\[0\].dialogue: "),
        ({"scenes": [{"description": "x", "duration": "4 s"}]}, r"scenes\[0\].duration: "),
        ({"scenes": [{"description": "x", "duration": True}]}, r"scenes\[0\].duration: "),
        ({"scenes": [{"description": "x", "duration": -1}]}, r"scenes\[0\].duration: "),
        ({"scenes": [PLAIN["scenes"][0], {"description": 5}]}, r"scenes\[1\].description: "),  # type: ignore[index]  # a list it is
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
    ],
)
def test_a_text_without_a_whole_object_fails(text: str) -> None:
    with pytest.raises(AIFailed, match="no script"):
        script(text)


def test_endless_numbers_are_no_durations() -> None:
    with pytest.raises(AIFailed, match="duration"):
        script(TEXT.replace("2.5", "1e999"))


def test_a_script_that_no_peer_could_read_again_is_refused() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    with pytest.raises(AIFailed, match="no script"):
        script(json.dumps({"title": "Bees", "scenes": [{"description": "x", "more": deep}]}))


def test_the_model_is_told_what_is_checked() -> None:
    from beeq.ai.script import INSTRUCTIONS

    assert "JSON" in INSTRUCTIONS
    for name in ("title", "scenes", "description", "dialogue", "duration"):
        assert f'"{name}"' in INSTRUCTIONS
