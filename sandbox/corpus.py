"""Text for the sandbox's tiny models: two tasks and the base model's own skills, generated from word lists.

Everything is a pure function of a seed. A prompt belongs either to training or to evaluation, decided by a digest of
what it says, so no adapter and no base model ever saw an evaluation case. Leaves to others: training (``training``,
``train_base``) and the files that hold evaluation cases (``suites``).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

__all__ = [
    "DICTIONARY",
    "LATE_WORDS",
    "WORD_COUNTS",
    "Example",
    "Record",
    "Split",
    "base_examples",
    "draw_record",
    "draw_words",
    "json_example",
    "json_examples",
    "split_of",
    "translation_example",
    "translation_examples",
    "vocabulary_text",
]

DICTIONARY = {
    "bird": "uccello",
    "black": "nero",
    "book": "libro",
    "bread": "pane",
    "dog": "cane",
    "door": "porta",
    "eye": "occhio",
    "fire": "fuoco",
    "fish": "pesce",
    "garden": "giardino",
    "green": "verde",
    "hand": "mano",
    "horse": "cavallo",
    "house": "casa",
    "large": "grande",
    "moon": "luna",
    "night": "notte",
    "old": "vecchio",
    "red": "rosso",
    "river": "fiume",
    "road": "via",
    "small": "piccolo",
    "star": "stella",
    "stone": "pietra",
    "sun": "sole",
    "table": "tavolo",
    "tree": "albero",
    "warm": "caldo",
    "water": "acqua",
    "white": "bianco",
    "wind": "vento",
    "winter": "inverno",
}
"""The whole language of the translation task, one Italian word for one English word."""

LATE_WORDS = frozenset({"garden", "winter"})
"""Words that the first translation data set lacked: what a second version of an adapter learns on top."""

WORD_COUNTS = (2, 3, 4, 5, 6)
"""How many words a translation prompt may hold."""

NAMES = (
    *("ada", "ben", "carl", "dora", "emil", "fritz", "greta", "hugo", "ines", "jonas", "karin", "leo"),
    *("mara", "nils", "olga", "paul", "rosa", "sven", "tina", "udo", "vera", "walt", "yara", "zeno"),
)
CITIES = (
    *("athens", "berlin", "cairo", "delhi", "essen", "geneva", "havana", "kyoto"),
    *("lima", "madrid", "oslo", "paris", "quito", "rome", "turin", "vienna"),
)
ITEMS = (
    *("apple", "ball", "chair", "drum", "engine", "flute", "glove", "hammer", "ink", "jar", "kettle", "lamp"),
    *("mirror", "needle", "oven", "pen", "rope", "saw", "tent", "umbrella", "vase", "wheel", "yarn", "zip"),
)
LARGEST_QUANTITY = 99
EVALUATION_SHARE = 4
"""One prompt in this many is kept for evaluation."""


T = TypeVar("T")


class Split(StrEnum):
    """What a prompt may be used for."""

    TRAIN = "train"
    EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt and the text that should follow it. Neither begins nor ends with white space."""

    prompt: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One order: the content behind a record prompt, whatever the order of its fields there."""

    name: str
    city: str
    item: str
    qty: int

    @property
    def answer(self) -> dict[str, str | int]:
        """The record as the JSON object that answers its prompt."""
        return {"name": self.name, "city": self.city, "item": self.item, "qty": self.qty}


def split_of(key: str) -> Split:
    """Assign a key to its split: a property of the text itself, the same in every process and on every machine."""
    held_back = hashlib.sha256(key.encode()).digest()[0] % EVALUATION_SHARE == 0
    return Split.EVALUATION if held_back else Split.TRAIN


def draw_words(
    rng: random.Random, *, split: Split, count: int | None = None, words: tuple[str, ...] = tuple(DICTIONARY)
) -> tuple[str, ...]:
    """Draw different English words whose sequence belongs to the split. Draws the count too when it is not given."""
    count = rng.choice(WORD_COUNTS) if count is None else count
    return _first_of(split, lambda: tuple(rng.sample(words, count)), key=" ".join)


def draw_record(rng: random.Random, *, split: Split) -> Record:
    """Draw a record that belongs to the split."""
    return _first_of(
        split,
        lambda: Record(
            name=rng.choice(NAMES),
            city=rng.choice(CITIES),
            item=rng.choice(ITEMS),
            qty=rng.randint(1, LARGEST_QUANTITY),
        ),
        key=repr,
    )


def translation_example(words: tuple[str, ...]) -> Example:
    """Ask for a word-by-word translation."""
    return Example(prompt=f"translate: {' '.join(words)}\nanswer:", target=" ".join(DICTIONARY[word] for word in words))


def json_example(record: Record, order: tuple[int, ...] = (0, 1, 2, 3)) -> Example:
    """Ask for a record as a JSON object. ``order`` permutes the fields of the prompt, never those of the answer."""
    return Example(prompt=f"record: {_layout(record, order)}\njson:", target=json.dumps(record.answer))


def translation_examples(seed: int, *, without: frozenset[str] = frozenset()) -> Iterator[Example]:
    """Yield training examples of the translation task for ever, none of them with a word of ``without``."""
    rng = random.Random(seed)  # noqa: S311 - reproducible text, no secret
    words = tuple(word for word in DICTIONARY if word not in without)
    while True:
        yield translation_example(draw_words(rng, split=Split.TRAIN, words=words))


def json_examples(seed: int) -> Iterator[Example]:
    """Yield training examples of the JSON task for ever."""
    rng = random.Random(seed)  # noqa: S311 - reproducible text, no secret
    while True:
        yield json_example(draw_record(rng, split=Split.TRAIN), _draw_order(rng))


def base_examples(seed: int, *, split: Split = Split.TRAIN) -> Iterator[Example]:
    """Yield the base model's own skills for ever: read a record aloud, repeat words, sort an object, tell stories.

    Copying is most of it, because that is what both tasks build on. Neither task is in it.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible text, no secret
    skills = (_read_aloud, _repeat, _sort_object, _tell)
    while True:
        (skill,) = rng.choices(skills, weights=(40, 40, 10, 10))
        yield skill(rng, split)


def vocabulary_text(seed: int, lines: int) -> Iterator[str]:
    """Yield text for a tokenizer: the base skills, and every word of both languages with and without a blank."""
    examples = base_examples(seed)
    for _ in range(lines):
        example = next(examples)
        yield example.prompt
        yield example.target
    for word in sorted({*DICTIONARY, *DICTIONARY.values()}):
        yield from (word, f" {word}") * (lines // 50)
    yield from (
        "translate: ",
        "\nanswer:",
        "\njson:",
        '{"name": "',
        '", "city": "',
        '", "item": "',
        '", "qty": ',
    ) * lines


def _first_of(split: Split, draw: Callable[[], T], *, key: Callable[[T], str]) -> T:
    while True:
        drawn = draw()
        if split_of(key(drawn)) is split:
            return drawn


def _draw_order(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.sample(range(4), 4))


def _layout(record: Record, order: tuple[int, ...]) -> str:
    fields = [f"{name}={value}" for name, value in record.answer.items()]
    return " ".join(fields[index] for index in order)


def _read_aloud(rng: random.Random, split: Split) -> Example:
    record = draw_record(rng, split=split)
    values = " ".join(str(value) for value in record.answer.values())
    return Example(prompt=f"record: {_layout(record, _draw_order(rng))}\nline:", target=values)


def _repeat(rng: random.Random, split: Split) -> Example:
    words = draw_words(rng, split=split)
    if rng.random() < 0.5:
        words = tuple(DICTIONARY[word] for word in words)
    text = " ".join(words)
    return Example(prompt=f"repeat: {text}\nanswer:", target=text)


def _sort_object(rng: random.Random, split: Split) -> Example:
    record = draw_record(rng, split=split)
    keys = rng.sample(list(record.answer), 4)
    shuffled = json.dumps({key: record.answer[key] for key in keys})
    return Example(prompt=f"object: {shuffled}\nsorted:", target=json.dumps(record.answer))


def _tell(rng: random.Random, split: Split) -> Example:
    record = draw_record(rng, split=split)
    word, other = draw_words(rng, split=split, count=2)
    sentence = (
        f"{record.name} of {record.city} saw {record.qty} {word} things near the {other} and took the {record.item}."
    )
    return Example(prompt="story:", target=sentence)
