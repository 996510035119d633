"""Evaluation suites of the sandbox's tasks: cases on prompts no model was trained on, in promptfoo's YAML shape.

The files under ``configs/suites`` are this module's output. Adapters are accepted by their accuracy on the same cases,
so training and evaluation cannot drift apart. ``python -m sandbox.suites DIR`` writes them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.corpus import (
    DICTIONARY,
    LARGEST_QUANTITY,
    LATE_WORDS,
    WORD_COUNTS,
    Example,
    Record,
    Split,
    draw_record,
    draw_words,
    json_example,
    translation_example,
)

__all__ = ["JsonCase", "TranslationCase", "json_cases", "suite_examples", "translation_cases", "write_suites"]

Yaml = str | int | list["Yaml"] | dict[str, "Yaml"]

SEED = 20
TRANSLATION_CASES = 120
JSON_RECORDS = 30
IN_ORDER = (0, 1, 2, 3)
LONGEST_SHORT_PROMPT = 3
"""Words. Longer prompts carry the tag ``long``."""
GENEROUS_LATENCY_MS = 20_000
"""A suite's own latency limit only finds a server that hangs; speed is the gate's business."""
FOREIGN_FIELDS = ("record", "price")
"""Words that an answer made only of the record cannot hold."""
HEADER = (
    "# yaml-language-server: $schema=../schema/suite.json\n"
    "# Written by `python -m sandbox.suites configs/suites`; a test compares the two. Do not edit by hand.\n"
)


class _SuiteDumper(yaml.SafeDumper):
    """Writes text of several lines as a literal block."""


_SuiteDumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@dataclass(frozen=True, kw_only=True)
class TranslationCase:
    """A word sequence to translate, with the tags of its case."""

    name: str
    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def example(self) -> Example:
        """Prompt and exact answer."""
        return translation_example(self.words)


@dataclass(frozen=True, kw_only=True)
class JsonCase:
    """A record, and the order in which its prompt lists the fields. Cases of one record share ``group``."""

    name: str
    group: str
    record: Record
    order: tuple[int, ...]
    tags: tuple[str, ...]

    @property
    def example(self) -> Example:
        """Prompt and exact answer."""
        return json_example(self.record, self.order)


def translation_cases() -> tuple[TranslationCase, ...]:
    """Draw 120 different cases: two fifths short, a third tagged ``no-echo``, eight with a word of ``LATE_WORDS``."""
    rng = random.Random(SEED)  # noqa: S311 - reproducible text, no secret
    counts = list(WORD_COUNTS) * (TRANSLATION_CASES // len(WORD_COUNTS))
    rng.shuffle(counts)
    early = tuple(word for word in DICTIONARY if word not in LATE_WORDS)
    cases: list[TranslationCase] = []
    seen: set[tuple[str, ...]] = set()
    for index, count in enumerate(counts):
        late = index % 15 == 7  # never a case with index % 3 == 0, so no case is both late and no-echo
        while True:
            words = draw_words(rng, split=Split.EVALUATION, count=count, words=tuple(DICTIONARY) if late else early)
            if words not in seen and bool(LATE_WORDS & set(words)) is late:
                break
        seen.add(words)
        tags = ["short" if count <= LONGEST_SHORT_PROMPT else "long"]
        tags += ["no-echo", "safety"] if index % 3 == 0 else []
        tags += ["late-words"] if late else []
        cases.append(TranslationCase(name=f"translate-{index + 1:03d}", words=words, tags=tuple(tags)))
    return tuple(cases)


def json_cases() -> tuple[JsonCase, ...]:
    """Draw 30 records and ask for each twice: fields in the order of the answer, and fields in another order."""
    rng = random.Random(SEED)  # noqa: S311 - reproducible text, no secret
    cases: list[JsonCase] = []
    records: set[Record] = set()
    while len(records) < JSON_RECORDS:
        record = draw_record(rng, split=Split.EVALUATION)
        if record in records:
            continue
        records.add(record)
        group = f"record-{len(records):02d}"
        shuffled: tuple[int, ...] = IN_ORDER
        while shuffled == IN_ORDER:
            shuffled = tuple(rng.sample(range(4), 4))
        size = "one-digit" if record.qty < 10 else "two-digits"
        for order, tag in ((IN_ORDER, "in-order"), (shuffled, "shuffled")):
            name = f"json-{len(cases) + 1:03d}"
            tags = (tag, size, "safety") if len(records) % 2 == 0 else (tag, size)
            cases.append(JsonCase(name=name, group=group, record=record, order=order, tags=tags))
    return tuple(cases)


def suite_examples(task: str) -> list[Example]:
    """Return prompts and exact answers of a suite, ``translate`` or ``json``, in the order of its cases."""
    cases: Sequence[TranslationCase | JsonCase] = translation_cases() if task == "translate" else json_cases()
    return [case.example for case in cases]


def write_suites(directory: Path) -> tuple[Path, ...]:
    """Write ``translate.yaml`` and ``json.yaml`` and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    builders: dict[str, Callable[[], Yaml]] = {"translate": _translation_suite, "json": _json_suite}
    for name, build in builders.items():
        path = directory / f"{name}.yaml"
        text = yaml.dump(
            build(), Dumper=_SuiteDumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
        )
        path.write_text(HEADER + text, encoding="utf-8")
        written.append(path)
    return tuple(written)


def _translation_suite() -> Yaml:
    tests: list[Yaml] = []
    for index, case in enumerate(translation_cases()):
        answer = case.example.target
        checks: list[Yaml] = [{"type": "equals", "value": answer}]
        if "no-echo" in case.tags:
            checks += [{"type": "not-icontains", "value": word} for word in case.words]
        # the rarer check types are spread over the cases, so that every one of them decides something
        if index % 5 == 1:
            checks.append({"type": "starts-with", "value": answer.split()[0]})
        if index % 5 == 2:
            checks.append({"type": "icontains", "value": answer.split()[-1].upper()})
        if index % 5 == 3:
            checks.append({"type": "regex", "value": rf"^\S+( \S+){{{len(case.words) - 1}}}$"})
        if index % 20 == 4:
            checks.append({"type": "latency", "threshold": GENEROUS_LATENCY_MS})
        tests.append(
            {
                "description": case.name,
                "vars": {"text": " ".join(case.words)},
                "assert": checks,
                "metadata": {"tags": list(case.tags)},
            }
        )
    return {
        "description": "Word-by-word translation from English to Italian",
        "prompts": ["translate: {{text}}\nanswer:"],
        "defaultTest": {"assert": [{"type": "not-contains", "value": "translate:"}]},
        "tests": tests,
    }


def _json_suite() -> Yaml:
    schema: Yaml = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]+$"},
            "city": {"type": "string", "pattern": "^[a-z]+$"},
            "item": {"type": "string", "pattern": "^[a-z]+$"},
            "qty": {"type": "integer", "minimum": 1, "maximum": LARGEST_QUANTITY},
        },
        "required": ["name", "city", "item", "qty"],
        "additionalProperties": False,
    }
    tests: list[Yaml] = []
    for case in json_cases():
        answer: Yaml = dict(case.record.answer)
        prompt = case.example.prompt
        checks: list[Yaml] = [
            {"type": "equals", "value": answer},
            {"type": "contains", "value": f'"city": "{case.record.city}"'},
        ]
        checks += [{"type": "not-icontains", "value": field} for field in FOREIGN_FIELDS if "safety" in case.tags]
        tests.append(
            {
                "description": case.name,
                "vars": {"record": prompt.removeprefix("record: ").removesuffix("\njson:")},
                "assert": checks,
                "metadata": {"tags": list(case.tags), "group": case.group},
            }
        )
    return {
        "description": "A record of four fields as a JSON object",
        "prompts": ["record: {{record}}\njson:"],
        "defaultTest": {
            "assert": [
                {"type": "is-json", "value": schema},
                {"type": "starts-with", "value": "{"},
                {"type": "not-contains", "value": "="},
                {"type": "not-regex", "value": r"\n"},
            ]
        },
        "tests": tests,
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the evaluation suites of both tasks."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.suites", description="Write the sandbox's suites.")
    parser.add_argument("directory", type=Path, help="directory to write the YAML files to")
    for path in write_suites(parser.parse_args(arguments).directory):
        print(path)  # noqa: T201  # the command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
