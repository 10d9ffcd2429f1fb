"""What a model thought before its answer is taken out; what only looks like thinking stays."""

from __future__ import annotations

import pytest

from beeq.ai.writing.thinking import answer_in


@pytest.mark.parametrize(
    "text",
    [
        "<think>Hm.</think>\n\nA meadow.",
        "Hm.\nPerhaps.</think>\n\nA meadow.\n",
        "<thinking>\nHm, <b>bees</b>\n</thinking>A meadow.",
        "<THINK>Hm.</THINK> A meadow.",
        "<reasoning>Hm.</reasoning>A meadow.",
        "<thought id='1'>Hm.</thought>A meadow.",
        "<seed:think>Hm.</seed:think>A meadow.",
        "<think>a <think>b</think> c</think>A meadow.",
        "<think>They say </think> ends it.</think>A meadow.",
        "<think></think><think>Hm.</think>A meadow.",
        "A meadow.\n<think>Was that right? It was cut",
        "[THINK]Hm.[/THINK]A meadow.",
        "◁think▷Hm.◁/think▷A meadow.",
        "<|begin_of_thought|>Hm.<|end_of_thought|><|begin_of_solution|>A meadow.<|end_of_solution|>",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>A meadow.<|return|>",
        "<think>Hm.</think><answer>A meadow.</answer>",
        "<answer>\nA meadow.\n</answer>",
    ],
)
def test_thinking_is_taken_out(text: str) -> None:
    assert answer_in(text) == "A meadow."


@pytest.mark.parametrize(
    "text",
    [" A meadow.\n", "A sign says <think> twice.", "[thinking] She walks.", "a < b, think > c", "<thinker>"],
)
def test_what_only_looks_like_thinking_stays(text: str) -> None:
    assert answer_in(text) == text


@pytest.mark.parametrize("text", ["<think>Hm.", "<think>Hm.</think>\n", "Hm.</think>", "\n<reasoning>\nHm."])
def test_nothing_but_thinking_leaves_nothing(text: str) -> None:
    assert answer_in(text) == ""
