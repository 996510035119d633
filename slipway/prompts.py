"""Prompts of a suite: where their templates are read from, and what a template and variables make.

A prompt is text, or a conversation where the template is JSON (or a YAML file) in the form of OpenAI's messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.suite_file import find_files, is_file, resolve
from slipway.templates import render
from slipway.yaml_files import KeyPath, YamlDocument, parse_yaml, read_text

__all__ = ["Message", "Prompt", "PromptTemplate", "read_prompts"]

Message = dict[str, str]
"""``role`` and ``content``."""
Prompt = str | tuple[Message, ...]

DEFAULT_TEMPLATE = "{{prompt}}"
"""Where a suite has no prompts, each test brings its own as a variable."""

_SEPARATOR = re.compile(r"^---[ \t]*\r?$\n?", re.MULTILINE)
_TEXT_FILES = frozenset({".txt", ".md", ".j2"})
_CHAT_FILES = frozenset({".json", ".yaml", ".yml"})


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """One prompt before its variables are filled in, and where it is written.

    Attributes:
        text: The template, empty for a conversation.
        messages: The conversation, each content a template.
        document: For errors, with ``at``.
        at: Key of the prompt in ``document``.
    """

    text: str
    messages: tuple[Message, ...]
    document: YamlDocument
    at: KeyPath

    def fill(self, variables: Mapping[str, object], *, prefix: str = "", suffix: str = "") -> Prompt:
        """Render the prompt; ``prefix`` and ``suffix`` are templates around a text.

        Raises:
            ValueError: A template that cannot be rendered, or a prefix or suffix around a conversation.
        """
        if self.messages:
            if prefix or suffix:
                raise ValueError("prefix and suffix fit around text only, and this prompt is a conversation")
            return tuple({key: render(value, variables) for key, value in message.items()} for message in self.messages)
        text = render(prefix + self.text + suffix, variables)
        return _conversation(text) or text


def read_prompts(document: YamlDocument, prompts: object) -> tuple[PromptTemplate, ...]:
    """Read the prompts of a suite: a text, a file, or a list of those.

    Raises:
        ConfigFileError: A file that is not there or cannot be a prompt, or something that is neither.
    """
    if prompts is None:
        return (PromptTemplate(text=DEFAULT_TEMPLATE, messages=(), document=document, at=()),)
    entries = prompts if isinstance(prompts, list) else [prompts]
    found = [
        template
        for index, entry in enumerate(entries)
        for template in _read(document, ("prompts", index) if isinstance(prompts, list) else ("prompts",), entry)
    ]
    if not found:
        raise document.error("there is no prompt.", key=("prompts",), fix="Write `- text with {{variables}}`.")
    return tuple(found)


def _read(document: YamlDocument, at: KeyPath, entry: object) -> Iterator[PromptTemplate]:
    if isinstance(entry, dict) and set(entry) <= {"id", "label", "raw"} and ("raw" in entry or "id" in entry):
        entry = entry.get("raw", entry.get("id"))
    if not isinstance(entry, str):
        raise document.error(
            "expected the text or the file of a prompt.", key=at, fix="Quote it, or write file://PATH."
        )
    if not entry.startswith("file://") and not _is_file(document, entry):
        yield _template(entry, document, at)
        return
    paths = find_files(entry, document.path)
    if not paths:
        raise document.error(f"no prompt is at {entry!r}.", key=at, fix="Paths are relative to the file they are in.")
    for path in paths:
        yield from _from_file(path, document, at)


def _is_file(document: YamlDocument, text: str) -> bool:
    """Whether a text without ``file://`` names a file all the same, as promptfoo allows."""
    known = _TEXT_FILES | _CHAT_FILES
    return "\n" not in text and Path(text).suffix in known and is_file(resolve(text, document.path))


def _from_file(path: Path, document: YamlDocument, at: KeyPath) -> Iterator[PromptTemplate]:
    if path.suffix in _CHAT_FILES:
        # Verified as a file of its own first, so that an error names its line and not the suite's.
        value = parse_yaml(read_text(path), path=path).value
        yield _template(json.dumps(value), document, at)
    elif path.suffix in _TEXT_FILES or not path.suffix:
        for text in _SEPARATOR.split(read_text(path)):
            if text.strip():
                yield _template(text.strip(), document, at)
    else:
        raise document.error(
            f"a prompt cannot be read from {path.name!r}.", key=at, fix="Use a .txt, .md, .j2, .json or .yaml file."
        )


def _template(text: str, document: YamlDocument, at: KeyPath) -> PromptTemplate:
    messages = _conversation(text) or ()
    return PromptTemplate(text="" if messages else text, messages=messages, document=document, at=at)


def _conversation(text: str) -> tuple[Message, ...] | None:
    """Give the messages if ``text`` is a JSON list of them."""
    if not text.lstrip().startswith("["):
        return None
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not messages or not all(
        isinstance(message, dict) and set(message) == {"role", "content"} for message in messages
    ):
        return None
    if not all(isinstance(value, str) for message in messages for value in message.values()):
        return None
    return tuple(messages)
