"""The task: what a diary holds, how prompts are made, and which replies count."""

import re
from collections import Counter

import pytest
import torch

from swaa_convert.demo import task
from swaa_convert.demo.words import GROUPS, IDS, VOCABULARY


@pytest.fixture(scope="module")
def diary() -> task.Diary:
    return task.Sampler(generator=torch.Generator().manual_seed(0)).diaries(batch=3, lines=40)


def lines(prompt: task.Prompt) -> list[str]:
    return prompt.message.split("\n")


def test_words_are_one_token_each() -> None:
    assert len(IDS) == len(VOCABULARY)
    assert all(word.isalpha() for group in GROUPS.values() for word in group)


def test_shape(diary: task.Diary) -> None:
    assert diary.tokens.shape == (3, 40 * task.LINE)
    assert diary.city.shape == (3, task.CITIES)
    assert diary.name.shape == diary.surname.shape == (3, task.CITIES, task.PEOPLE)


def test_every_fact_stands_in_the_text_once(diary: task.Diary) -> None:
    text = task.written(diary.tokens[0].tolist())
    for name, surname in zip(diary.name[0].flatten().tolist(), diary.surname[0].flatten().tolist(), strict=True):
        assert text.count(f"One day I met {VOCABULARY[name]} {VOCABULARY[surname]}.\n") == 1


def test_names_return_in_every_city_and_surnames_do_not(diary: task.Diary) -> None:
    assert set(Counter(diary.name[0].flatten().tolist()).values()) == {task.CITIES}
    assert len(diary.surname[0].unique()) == task.CITIES * task.PEOPLE


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_whom_the_diary_met_there(seed: int) -> None:
    prompt = task.prompts(1, 400, seed)[0]
    found = re.fullmatch(r"In (\w+) I met (\w+) who\?", lines(prompt)[-1])
    assert found is not None
    stay = prompt.message.split(f"We at last arrived in {found[1]}.\n")[1].split("We at last")[0]
    assert f"One day I met {found[2]} {prompt.answer}.\n" in stay


def test_facts_are_scattered() -> None:
    places = {
        number
        for prompt in task.prompts(60, 400, 0)
        for number, line in enumerate(lines(prompt))
        if line.startswith("One day")
    }
    assert len(places) > 0.9 * task.lines_for(400) - task.CITIES


def test_a_seed_gives_the_same_prompts_and_another_gives_others() -> None:
    assert task.prompts(2, 200, 5) == task.prompts(2, 200, 5)
    assert task.prompts(2, 200, 5) != task.prompts(2, 200, 6)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Smith", True),
        ("<think>\n\n</think>\n\nSmith", True),
        ("<think>\nIn Rome I met Anna Smith.\n</think>\n\nSmith\n", True),
        ("<think>\nIn Rome I met Anna Smith.\n</think>\n\nBaker", False),
        ("<think>\nIn Rome I met Anna Smith.", False),
        ("Smith Smith", False),
        ("", False),
    ],
)
def test_only_the_exact_answer_counts(reply: str, right: bool) -> None:
    assert task.Prompt("", "Smith").is_answered_by(reply) is right
