"""Suites: the cases that a candidate, the champion and the base are asked, and how their answers are graded.

Reads files in promptfoo's format (the subset in docs/suites.md) and expands them: prompts times tests times lists in
variables, templates filled in, checks verified. What is not understood is refused with file and line, never skipped,
because a check that silently does not run is a gate that silently stands open.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slipway.checks import Check, prepare
from slipway.errors import ConfigFileError
from slipway.prompts import Message, Prompt, PromptTemplate, read_prompts
from slipway.suite_file import (
    AssertionEntry,
    OptionsEntry,
    SuiteEntry,
    TestEntry,
    TestSource,
    read_reference,
    resolve,
    test_sources,
)
from slipway.templates import render, render_value
from slipway.yaml_files import KeyPath, YamlDocument, read_document, validate

__all__ = ["Case", "GenerationSettings", "Message", "Prompt", "Suite", "load_suite"]

MAX_CASES = 100_000
SAMPLE_PROMPTS = 3


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How a case wants its answer generated; None leaves it to the target. Temperature 0 is greedy."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt and what is expected of the answer.

    Attributes:
        id: The test's description, or ``case-0001`` by its place; unique in the suite.
        vars: What the templates were filled with.
        prompt: Text, or messages of ``role`` and ``content``.
        checks: Verified and with their templates filled in.
        threshold: Score from which the case passes; None: every check must.
        tags: For rules on a part of the suite; from ``metadata.tags`` or ``tags``.
        group: Cases of one group share a source and are not independent; from ``metadata.group``.
        metadata: The test's, merged over the default's.
        generation: How to generate.
    """

    id: str
    vars: Mapping[str, object]
    prompt: Prompt
    checks: tuple[Check, ...]
    threshold: float | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    generation: GenerationSettings = GenerationSettings()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite, expanded.

    Attributes:
        path: The file.
        description: Its own.
        cases: In order: tests, then lists in variables, then prompts.
        digest: ``sha256:`` over what the cases ask and expect; formatting and file names do not matter.
        notes: What was ignored or is meant differently than it may look, for the report.
    """

    path: Path
    description: str
    cases: tuple[Case, ...]
    digest: str
    notes: tuple[str, ...] = ()

    def sample_prompts(self, count: int = SAMPLE_PROMPTS) -> tuple[str, ...]:
        """Give the first different prompts as text; of a conversation its last message."""
        texts = (case.prompt if isinstance(case.prompt, str) else case.prompt[-1]["content"] for case in self.cases)
        return tuple(itertools.islice(dict.fromkeys(text for text in texts if text.strip()), count))


def load_suite(path: Path | str, *, need_prompts: bool = True) -> Suite:
    """Read and expand a suite file, or a bare list of tests.

    Args:
        path: YAML or JSON.
        need_prompts: Refuse cases without a prompt; recorded outputs can be graded without one.

    Raises:
        ConfigFileError: The first thing that is wrong, with file, line, key and what to write.
    """
    document = read_document(path)
    is_bare = isinstance(document.value, list)
    entry = SuiteEntry() if is_bare else validate(document, SuiteEntry)
    at: KeyPath = () if is_bare else ("tests",)
    tests = document.value if is_bare else entry.tests
    if not tests:
        raise document.error("the suite has no tests.", key=at, fix="Write `tests:` with at least one.")
    builder = _Builder(document, read_prompts(document, entry.prompts), _default_test(document, entry))
    for source in test_sources(document, at, tests):
        builder.add(source)
    cases = tuple(builder.cases)
    if need_prompts:
        builder.require_prompts()
    notes = [f"{name!r} is ignored: what is asked is the adapter." for name in entry.ignored()]
    return Suite(
        path=Path(path),
        description=entry.description,
        cases=cases,
        digest=_digest(cases),
        notes=(*notes, *builder.notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Test:
    """A test or the default test, with where its parts stand."""

    entry: TestEntry
    vars: Mapping[str, object]
    assertions: tuple[tuple[TestSource, AssertionEntry], ...]
    source: TestSource


def _default_test(document: YamlDocument, suite: SuiteEntry) -> _Test | None:
    if suite.default_test is None:
        return None
    source = TestSource(document=document, at=("defaultTest",))
    if isinstance(suite.default_test, str):
        source = TestSource(document=read_document(resolve(suite.default_test, document.path)), at=())
    return _read_test(source)


def _read_test(source: TestSource) -> _Test:
    document, at = source.document, source.at
    entry = validate(document, TestEntry, at=at)
    assertions = []
    for index in range(len(entry.assertions or ())):
        place = (*at, "assert", index)
        assertions.append((TestSource(document=document, at=place), validate(document, AssertionEntry, at=place)))
    variables = entry.vars or {}
    if isinstance(variables, str):
        variables = read_reference(variables, document, (*at, "vars"))  # type: ignore[assignment]  # verified below
    if not isinstance(variables, dict):
        raise document.error("the file of variables must hold keys and values.", key=(*at, "vars"), fix="Write `a: b`.")
    loaded = {
        name: read_reference(value, document, (*at, "vars", name))
        if isinstance(value, str) and value.startswith("file://")
        else value
        for name, value in variables.items()
    }
    return _Test(entry=entry, vars=loaded, assertions=tuple(assertions), source=source)


class _Builder:
    """Collects cases, and what must be unique among them."""

    def __init__(self, document: YamlDocument, prompts: tuple[PromptTemplate, ...], default: _Test | None) -> None:
        self._document = document
        self._prompts = prompts
        self._default = default
        self._sources: dict[str, TestSource] = {}
        self.cases: list[Case] = []
        self.notes: dict[str, None] = {}

    def add(self, source: TestSource) -> None:
        """Expand one test into its cases."""
        test = _read_test(source)
        defaults = self._default
        variables = {**(defaults.vars if defaults else {}), **test.vars}
        options = _merge_options(defaults.entry.options if defaults else OptionsEntry(), test.entry.options)
        combinations = _combinations(variables, is_expanded=not options.disable_var_expansion)
        expanded = list(itertools.islice(itertools.product(combinations, self._prompts), MAX_CASES + 1))
        if len(self.cases) + len(expanded) > MAX_CASES:
            raise self._error(source, f"the suite has more than {MAX_CASES} cases.", "Shorten the lists in vars.")
        for number, (combination, template) in enumerate(expanded, start=1):
            name = test.entry.description
            if name is not None and len(expanded) > 1:
                name = f"{name} #{number}"
            self._add_case(test, name, combination, template, options)

    def require_prompts(self) -> None:
        """Refuse cases that ask nothing."""
        for case in self.cases:
            if not case.prompt or (isinstance(case.prompt, str) and not case.prompt.strip()):
                raise self._error(
                    self._sources[case.id],
                    "this test has no prompt, or an empty one.",
                    "Add `prompts:` at the top of the suite, or `vars: {prompt: ...}` to the test.",
                )

    def _add_case(
        self,
        test: _Test,
        name: str | None,
        variables: Mapping[str, object],
        template: PromptTemplate,
        options: OptionsEntry,
    ) -> None:
        source, defaults = test.source, self._default
        identity = name or f"case-{len(self.cases) + 1:04d}"
        if identity in self._sources:
            first = self._sources[identity]
            where = f"{first.document.path}:{first.document.line(first.at)}"
            raise self._error(source, f"the description {identity!r} is already at {where}.", "Give each test its own.")
        try:
            variables = _fill_variables(variables)
            prompt = template.fill(variables, prefix=options.prefix, suffix=options.suffix)
        except ValueError as error:
            raise self._error(source, f"{error}.", "Correct the template.") from None
        metadata = {**((defaults.entry.metadata or {}) if defaults else {}), **(test.entry.metadata or {})}
        threshold = test.entry.threshold
        if threshold is None and defaults is not None:
            threshold = defaults.entry.threshold
        assertions = (*(defaults.assertions if defaults else ()), *test.assertions)
        self._sources[identity] = source
        self.cases.append(
            Case(
                id=identity,
                vars=variables,
                prompt=prompt,
                checks=tuple(self._check(where, entry, variables) for where, entry in assertions),
                threshold=threshold,
                tags=self._tags(test, metadata),
                group=self._group(test, metadata),
                metadata=metadata,
                generation=_generation(options),
            )
        )

    def _check(self, where: TestSource, entry: AssertionEntry, variables: Mapping[str, object]) -> Check:
        value: Any = entry.value
        if isinstance(value, str) and value.startswith("file://"):
            value = read_reference(value, where.document, (*where.at, "value"))
        try:
            check = prepare(
                Check(
                    type=entry.type,
                    value=render_value(value, variables),
                    threshold=entry.threshold,
                    weight=entry.weight,
                    metric=render(entry.metric, variables),
                )
            )
        except ValueError as error:
            raise where.document.error(f"{error}.", key=where.at) from None
        self._note_quirks(entry)
        return check

    def _note_quirks(self, entry: AssertionEntry) -> None:
        kind = entry.type.removeprefix("not-")
        if entry.type == "not-latency":
            self.notes["not-latency means latency: promptfoo ignores the not- there."] = None
        if entry.threshold is not None and kind != "latency":
            self.notes[f"the threshold of {entry.type!r} is ignored: the type has none."] = None

    def _tags(self, test: _Test, metadata: Mapping[str, object]) -> tuple[str, ...]:
        defaults = self._default.entry.tags if self._default else []
        tags: list[str] = []
        for source in (defaults, metadata.get("tags", []), test.entry.tags):
            listed = [source] if isinstance(source, str) else source
            if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
                raise self._error(test.source, "tags must be a list of text.", "Write `tags: [refund, safety]`.")
            tags.extend(listed)
        return tuple(dict.fromkeys(tags))

    def _group(self, test: _Test, metadata: Mapping[str, object]) -> str | None:
        group = metadata.get("group")
        if isinstance(group, dict | list):
            raise self._error(test.source, "metadata.group must be text.", "Write `group: document-7`.")
        return None if group is None else str(group)

    def _error(self, source: TestSource, message: str, fix: str) -> ConfigFileError:
        return source.document.error(message, key=source.at, fix=fix)


def _merge_options(default: OptionsEntry, own: OptionsEntry) -> OptionsEntry:
    return default.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _generation(options: OptionsEntry) -> GenerationSettings:
    return GenerationSettings(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        stop=options.stop,
    )


def _combinations(variables: Mapping[str, object], *, is_expanded: bool) -> Iterator[dict[str, object]]:
    """Take one of each list of texts at a time, the first variable changing slowest; other lists are values."""
    choices = [
        value if is_expanded and isinstance(value, list) and value and isinstance(value[0], str) else [value]
        for value in variables.values()
    ]
    return (dict(zip(variables, chosen, strict=True)) for chosen in itertools.product(*choices))


def _fill_variables(variables: Mapping[str, object]) -> dict[str, object]:
    """Variables may refer to those before them."""
    filled: dict[str, object] = {}
    for name, value in variables.items():
        filled[name] = render_value(value, {**variables, **filled})
    return filled


def _digest(cases: Iterable[Case]) -> str:
    asked = [
        [
            case.id,
            case.prompt,
            [_plain(check) for check in case.checks],
            case.threshold,
            case.tags,
            case.group,
            asdict(case.generation),
        ]
        for case in cases
    ]
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(check: Check) -> list[object]:
    return [check.type, check.value, check.threshold, check.weight, check.metric]
