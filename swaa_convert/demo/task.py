"""The demo's one task, shared by training and evaluation: whom did I meet in this city?

A travel diary goes from city to city and mentions four people in each, somewhere between lines of filler. The
same first names return in every city with other surnames, so a fact (`One day I met Anna Smith .`) means little
without the city line that stands far above it: reading it takes long attention in the prompt, finding it again
takes long attention in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swaa_convert.demo.words import GROUPS, IDS, TIGHT, VOCABULARY, first_id

if TYPE_CHECKING:
    import torch

LINE = 8  # tokens in every line of a diary
PEOPLE = 4  # people met in each city
CITIES = 4  # cities in a diary, where it is long enough

FILLER = "The {adjective} {noun} {verb} the {object} . \n"
ARRIVAL = "We at last arrived in {city} . \n"
FACT = "One day I met {name} {surname} . \n"
ASK = "<|im_start|> user \n"
QUESTION = "In {city} I met {name} who ?"
REPLY = "<|im_end|> \n <|im_start|> assistant \n"
THINKING = "<think> \n In {city} I met {name} {surname} . \n </think> \n\n"
DIRECT = "<think> \n\n </think> \n\n"
ANSWER = "{surname} <|im_end|>"


def split(template: str) -> list[str]:
    """The template's words; a line feed is a word."""
    return template.split(" ")


@dataclass(frozen=True)
class Diary:
    """A batch of B diaries of N lines with S cities: token ids, and who was met where."""

    tokens: torch.Tensor  # [B, N * LINE]
    city: torch.Tensor  # [B, S]
    name: torch.Tensor  # [B, S, PEOPLE]
    surname: torch.Tensor  # [B, S, PEOPLE]

    def facts(self, picks: torch.Tensor) -> dict[str, torch.Tensor]:
        """The slots of the facts numbered `picks` [B, Q], each [B, Q]."""
        return {
            "city": self.city.gather(1, picks // PEOPLE),
            "name": self.name.flatten(1).gather(1, picks),
            "surname": self.surname.flatten(1).gather(1, picks),
        }


def cities_in(lines: int) -> int:
    """How many cities a diary of that many lines visits."""
    return max(1, min(CITIES, lines // 8))


def overhead(thinking: bool) -> int:
    """Tokens of a prompt that are not the diary's."""
    return len(split(ASK) + split(QUESTION) + split(REPLY)) + (0 if thinking else len(split(DIRECT)))


def lines_for(length: int) -> int:
    """The longest diary, in lines, whose prompt is at most `length` tokens long."""
    return (length - overhead(thinking=False)) // LINE


def fill(template: str, **slots: torch.Tensor) -> torch.Tensor:
    """Token ids [..., len(template)]; each `{slot}` takes the ids [...] of that name."""
    import torch

    like = next(iter(slots.values()))
    columns = [
        slots[word[1:-1]] if word.startswith("{") else torch.full_like(like, IDS[word]) for word in split(template)
    ]
    return torch.stack(columns, dim=-1)


class Sampler:
    """Draws diaries on one device; `generator` None uses the device's own stream."""

    def __init__(self, device: str | torch.device = "cpu", generator: torch.Generator | None = None) -> None:
        self.device = device
        self.generator = generator

    def uniform(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.rand(shape, device=self.device, generator=self.generator)

    def word(self, group: str, *shape: int) -> torch.Tensor:
        """Independent ids of a group, with repetition."""
        count = len(GROUPS[group])
        return first_id(group) + (self.uniform(*shape) * count).long().clamp_(max=count - 1)

    def distinct(self, group: str, batch: int, count: int) -> torch.Tensor:
        """Different ids of a group, [batch, count]."""
        return first_id(group) + self.uniform(batch, len(GROUPS[group])).argsort(dim=1)[:, :count]

    def picks(self, batch: int, cities: int, count: int) -> torch.Tensor:
        """Different fact numbers, [batch, count]."""
        return self.uniform(batch, cities * PEOPLE).argsort(dim=1)[:, :count]

    def arrivals(self, batch: int, lines: int) -> torch.Tensor:
        """The lines on which a city is reached, [batch, cities]: evenly spaced, but for some delay."""
        import torch

        cities = cities_in(lines)
        space = lines // cities
        delay = (self.uniform(batch, cities) * (space // 4 + 1)).long()
        delay[:, 0] = 0
        return torch.arange(cities, device=self.device) * space + delay

    def meetings(self, arrivals: torch.Tensor, lines: int) -> torch.Tensor:
        """The lines on which people are met, [batch, cities, PEOPLE]: anywhere within the city's stay."""
        import torch

        batch, cities = arrivals.shape
        end = torch.cat([arrivals[:, 1:], torch.full_like(arrivals[:, :1], lines)], dim=1)
        line = torch.arange(lines, device=self.device)
        within = (line > arrivals[..., None]) & (line < end[..., None])
        return ((1 + self.uniform(batch, cities, lines)) * within).topk(PEOPLE, dim=2).indices

    def diaries(self, batch: int, lines: int) -> Diary:
        """A batch of diaries."""
        arrivals = self.arrivals(batch, lines)
        meetings = self.meetings(arrivals, lines)
        cities = arrivals.shape[1]
        city = self.distinct("city", batch, cities)
        name = self.distinct("name", batch, PEOPLE)[:, None].expand(batch, cities, PEOPLE)
        surname = self.distinct("surname", batch, cities * PEOPLE).view(batch, cities, PEOPLE)
        text = self.filler(batch, lines)
        put(text, arrivals, fill(ARRIVAL, city=city))
        put(text, meetings.flatten(1), fill(FACT, name=name, surname=surname).flatten(1, 2))
        return Diary(text.flatten(1), city, name, surname)

    def filler(self, batch: int, lines: int) -> torch.Tensor:
        """Lines that say nothing of use, [batch, lines, LINE]."""
        drawn = {group: self.word(group, batch, lines) for group in ("adjective", "noun", "verb")}
        return fill(FILLER, object=self.word("noun", batch, lines), **drawn)


def put(text: torch.Tensor, lines: torch.Tensor, replacement: torch.Tensor) -> None:
    """Overwrite the lines numbered `lines` [B, M] of `text` [B, N, LINE] by `replacement` [B, M, LINE]."""
    text.scatter_(1, lines[..., None].expand(-1, -1, LINE), replacement)


@dataclass(frozen=True)
class Prompt:
    """One question about one diary, as a user would type it, and the right answer."""

    message: str
    answer: str

    def is_answered_by(self, reply: str) -> bool:
        """Whether the reply, its thinking aside, is exactly the answer."""
        return reply.rsplit("</think>", 1)[-1].strip() == self.answer


def prompts(count: int, length: int, seed: int) -> list[Prompt]:
    """Fresh prompts of about `length` tokens each (at most a line less), the same for the same seed."""
    import torch

    sampler = Sampler(generator=torch.Generator().manual_seed(seed))
    diary = sampler.diaries(count, lines_for(length))
    facts = diary.facts(sampler.picks(count, diary.city.shape[1], 1))
    questions = fill(QUESTION, city=facts["city"], name=facts["name"])[:, 0]
    answers = facts["surname"][:, 0].tolist()
    rows = zip(diary.tokens.tolist(), questions.tolist(), answers, strict=True)
    return [Prompt(written(story + question), VOCABULARY[answer]) for story, question, answer in rows]


def written(ids: list[int]) -> str:
    """The ids as readable text, which the tokenizer turns back into the same ids."""
    joined = " ".join(VOCABULARY[index] for index in ids)
    for spaced, tight in TIGHT:
        joined = joined.replace(spaced, tight)
    return joined
