"""Prompts of a suite: where their templates are read from, and what a template and variables make.

A prompt is text, or a conversation where the template is a list of messages in OpenAI's form, as JSON or YAML. Any
other JSON stays text, and what variables put inside its texts is escaped.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import ConfigFileError
from slipway.suite_file import GenerationEntry, PromptEntry
from slipway.suite_paths import PREFIX, SuiteFiles, is_program
from slipway.templates import json_text, render, render_value
from slipway.validation_errors import sentence
from slipway.yaml_files import KeyPath, YamlDocument, is_too_deep, parse_yaml, validate

__all__ = ["Message", "Prompt", "PromptTemplate", "read_prompts"]

Message = dict[str, str]
"""``role`` and ``content``."""
Prompt = str | tuple[Message, ...]

DEFAULT_TEMPLATE = "{{prompt}}"
"""Where a suite has no prompts, each test brings its own as a variable."""

_SEPARATOR = "---"
_WHOLE_FILES = frozenset({".md", ".j2"})
_CHAT_FILES = frozenset({".json", ".yaml", ".yml"})
_SUFFIXES = _WHOLE_FILES | _CHAT_FILES | {".txt", ".jsonl", ".csv"}
_PROGRAMS = frozenset({".sh", ".bash", ".exe", ".bat", ".cmd", ".ps1", ".pl"})
_LOOKS_LIKE_MESSAGES = re.compile(r"""\s*(\[\s*\{\s*"role"|- role:)""")
_ELSEWHERE = re.compile(r"(exec:|(portkey|langfuse|helicone)://)")


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """One prompt before its variables are filled in, and where it is written.

    Attributes:
        text: The template.
        messages: The conversation that it is, each content a template; empty for text.
        structure: The JSON that it is otherwise; None for text.
        names: What a test may call it: its label, id, and text.
        generation: How to generate, as the prompt says.
        document: For errors, with ``at``.
        at: Key of the prompt in ``document``.
    """

    text: str
    messages: tuple[Message, ...] = ()
    structure: object = None
    names: tuple[str, ...] = ()
    generation: GenerationEntry = field(default_factory=GenerationEntry)
    document: YamlDocument
    at: KeyPath

    def fill(self, variables: Mapping[str, object], *, prefix: str = "", suffix: str = "") -> Prompt:
        """Render the prompt; ``prefix`` and ``suffix`` are templates around a text.

        Raises:
            ValueError: A template that cannot be rendered, a message without role or text, or a prefix or suffix around
                a conversation.
        """
        if self.messages:
            if prefix or suffix:
                raise ValueError("prefix and suffix fit around text only, and this prompt is a conversation")
            return tuple({key: render(value, variables) for key, value in message.items()} for message in self.messages)
        if self.structure is not None and not prefix and not suffix:
            return json_text(render_value(self.structure, variables), indent=2)
        text = render(prefix + self.text + suffix, variables)
        value = _parsed(text)
        if value is None and _LOOKS_LIKE_MESSAGES.match(text):
            raise ValueError(
                "the prompt is a conversation until its variables are filled in, then it is no valid JSON or YAML; "
                "write {{variable | dump}} in place of quotes around {{variable}}"
            )
        return _conversation(value) or text

    def answers_to(self, name: str) -> bool:
        """Whether a test that asks ``name`` asks this prompt: by label or id, ``group:*``, or ``group`` of them."""
        if name.endswith("*"):
            return any(own.startswith(name[:-1]) for own in self.names)
        return any(own == name or own.startswith(f"{name}:") for own in self.names)


def read_prompts(document: YamlDocument, prompts: object, files: SuiteFiles) -> tuple[PromptTemplate, ...]:
    """Read the prompts of a suite: a text, a file, a list of those, or files as keys with their labels.

    Raises:
        ConfigFileError: A file that is not there or cannot be a prompt, or something that is neither.
    """
    if prompts is None:
        return (PromptTemplate(text=DEFAULT_TEMPLATE, document=document, at=()),)
    reader = _Reader(document, files)
    found: list[PromptTemplate] = []
    if isinstance(prompts, dict):
        for raw, label in prompts.items():
            found.extend(reader.expand(PromptEntry(raw=raw, label=str(label)), ("prompts", raw)))
    elif isinstance(prompts, list):
        for index, value in enumerate(prompts):
            found.extend(reader.read(value, ("prompts", index)))
    else:
        found.extend(reader.read(prompts, ("prompts",)))
    if not found:
        raise document.error("there is no prompt.", key=("prompts",), fix="Write `- text with {{variables}}`.")
    return tuple(found)


class _Reader:
    def __init__(self, document: YamlDocument, files: SuiteFiles) -> None:
        self._document = document
        self._files = files

    def read(self, value: object, at: KeyPath) -> Iterator[PromptTemplate]:
        """Read one entry, which may be several prompts."""
        if isinstance(value, str):
            return self.expand(PromptEntry(raw=value), at)
        if isinstance(value, dict):
            return self.expand(validate(self._document, PromptEntry, at=at), at)
        raise self._document.error(
            "expected the text or the file of a prompt.", key=at, fix="Quote it, or write file://PATH."
        )

    def expand(self, entry: PromptEntry, at: KeyPath) -> Iterator[PromptTemplate]:
        """Give the prompts that an entry stands for."""
        raw = entry.raw if entry.raw is not None else entry.id
        if raw is None:
            raise self._document.error(
                "this prompt has no text.", key=at, fix="Write `raw: TEXT` or `raw: file://PATH`."
            )
        if _ELSEWHERE.match(raw):
            raise self._document.error(
                f"{raw!r} is no text or file: it would be run or fetched.", key=at, fix="Write the prompt itself."
            )
        paths = self._paths(raw, at)
        if not paths:
            yield self._template(raw, entry, at)
        for path in paths:
            yield from (self._template(text, entry, at, file=raw) for text in self._texts(path, at))

    def _paths(self, raw: str, at: KeyPath) -> list[Path]:
        """Give the files that the text names, as promptfoo takes it; none where it is a prompt itself."""
        if "\n" in raw and not raw.startswith(PREFIX):
            return []
        looks_like_path = raw.startswith(PREFIX) or (
            not re.search(r"\s", raw) and _suffix(raw) in _SUFFIXES | _PROGRAMS
        )
        if looks_like_path and (is_program(raw) or _suffix(raw) in _PROGRAMS):
            raise self._document.error(
                f"a prompt cannot be read from {raw!r}: it is a program, and programs of a suite are not run.",
                key=at,
                fix="Write the text that it would give, with {{variables}}.",
            )
        is_known = raw.startswith(PREFIX) or _suffix(raw) in _SUFFIXES
        paths = self._files.find(raw, self._document) if is_known else []
        if looks_like_path and not paths:
            raise self._document.error(
                f"no prompt is at {raw!r}.", key=at, fix="Paths are relative to the file they are in."
            )
        return paths

    def _texts(self, path: Path, at: KeyPath) -> list[str]:
        """Read the prompts of one file."""
        text = self._files.text(path)
        if path.suffix in _CHAT_FILES:
            return [_structured(text, path)]
        if path.suffix == ".jsonl":
            return [line for line in text.splitlines() if line.strip()]
        if path.suffix == ".csv":
            return _column_of_prompts(text)
        if path.suffix in _WHOLE_FILES:
            return [text] if text.strip() else []
        if path.suffix in {".txt", ""}:
            return _separated(text)
        raise self._document.error(
            f"a prompt cannot be read from {path.name!r}.",
            key=at,
            fix="Use a .txt, .md, .j2, .json, .yaml, .jsonl or .csv file.",
        )

    def _template(self, text: str, entry: PromptEntry, at: KeyPath, *, file: str = "") -> PromptTemplate:
        value = _parsed(text)
        try:
            messages = _conversation(value) or ()
        except ValueError as error:
            raise self._document.error(sentence(error), key=at, fix="Write `role: user` and `content: text`.") from None
        label = (entry.label,) if entry.label is not None else (text, file)
        return PromptTemplate(
            text=text,
            messages=messages,
            structure=value if not messages and not _is_yaml(text) else None,
            names=tuple(name for name in (*label, entry.id) if name),
            generation=entry.config,
            document=self._document,
            at=at,
        )


def _suffix(raw: str) -> str:
    return Path(raw.removeprefix(PREFIX)).suffix.lower()


def _structured(text: str, path: Path) -> str:
    """Give a JSON or YAML file as JSON; one that only templates make valid stays as it is.

    Raises:
        ConfigFileError: It is malformed and has no templates.
    """
    try:
        return json_text(parse_yaml(text, path=path).value)
    except ConfigFileError:
        if "{%" in text or "{{" in text:
            return text
        raise


def _separated(text: str) -> list[str]:
    """Split a text file at lines of ``---``."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip() == _SEPARATOR:
            blocks.append([])
        else:
            blocks[-1].append(line)
    return [stripped for block in blocks if (stripped := "\n".join(block).strip())]


def _column_of_prompts(text: str) -> list[str]:
    """Take the column ``prompt``; a file of one column is a prompt a line, with or without that heading."""
    if "," in text:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return [row["prompt"].strip() for row in rows if (row.get("prompt") or "").strip()]
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[1:] if lines and lines[0].strip().lower() == "prompt" else lines


def _is_yaml(text: str) -> bool:
    return text.lstrip().startswith("- role:")


def _parsed(text: str) -> object:
    """Give the list, object or text in JSON that ``text`` is, or the YAML of messages; None for anything else."""
    start = text.lstrip()[:1]
    try:
        if start in {"[", "{", '"'} and not text.lstrip().startswith(("{{", "{%", "{#")):
            value = json.loads(text)
            return None if is_too_deep(value) else value
        return parse_yaml(text, path=Path("prompt.yaml")).value if _is_yaml(text) else None
    except (ValueError, RecursionError, ConfigFileError):
        return None


def _conversation(value: object) -> tuple[Message, ...]:
    """Give the messages if ``value`` is a list of them; none if it is anything else.

    Raises:
        ValueError: Messages that hold something else than a role and a text, which the adapter cannot be asked.
    """
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) and "role" in item for item in value):
        return ()
    return tuple(_message(message, number) for number, message in enumerate(value, start=1))


def _message(message: Mapping[str, object], number: int) -> Message:
    role, content = message["role"], message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(  # noqa: TRY004  # what is wrong is the file, not a caller's type
            f"message {number} of the conversation must have a role and a content that are text"
        )
    others: Sequence[str] = sorted(set(message) - {"role", "content"})
    if others:
        raise ValueError(f"message {number} of the conversation has {others[0]!r}; only role and content are sent")
    return {"role": role, "content": content}
