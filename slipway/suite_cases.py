"""Expand tests into cases: lists in variables times prompts; fill in templates, verify checks, make names unique."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from slipway.cases import Case, GenerationSettings, named_uniquely
from slipway.checks import Check
from slipway.suite_checks import CheckFiller
from slipway.suite_file import GenerationEntry, OptionsEntry
from slipway.suite_tests import Choices, Test
from slipway.templates import VariableError, fill_variables
from slipway.validation_errors import nearest, sentence

if TYPE_CHECKING:
    from slipway.prompts import Prompt, PromptTemplate
    from slipway.suite_paths import SuiteFiles

__all__ = ["CaseBuilder"]

MAX_CASES = 100_000


class CaseBuilder:
    """Collects the cases of one suite, and what must be unique among them."""

    def __init__(self, prompts: tuple[PromptTemplate, ...], filler: CheckFiller, files: SuiteFiles) -> None:
        self._prompts = prompts
        self._filler = filler
        self._files = files
        self._cases: list[Case] = []
        self._tests: list[Test] = []
        self._ids: dict[str, Test] = {}

    def add(self, test: Test) -> None:
        """Expand one test, already merged with the default test, into its cases.

        Raises:
            ConfigFileError: An id that another test has, a template or check that cannot be used, too many cases.
        """
        if test.is_id and test.name is not None:
            self._claim(test.name, test)
        options = test.options
        combinations = _combinations(test.vars, is_expanded=not options.disable_var_expansion)
        asked = self._asked(test)
        pairs = ((combination, template) for combination in combinations for template in asked)
        expanded = list(itertools.islice(pairs, MAX_CASES + 1))
        if len(self._cases) + len(expanded) > MAX_CASES:
            raise test.place.error(f"the suite has more than {MAX_CASES} cases.", "Shorten the lists in vars.")
        where = self._files.where(test.place.document, test.place.at)
        tags, group = _tags(test), _group(test)
        for combination, template in expanded:
            try:
                variables = fill_variables(combination)
            except VariableError as error:
                raise test.vars_at[error.name].error(sentence(error), error.fix) from None
            prompt = self._prompt(template, variables, test)
            self._tests.append(test)
            self._cases.append(
                Case(
                    id=test.name or "",
                    vars=variables,
                    prompt=prompt,
                    checks=self._checks(test, variables, where),
                    transform="" if test.unsupported else test.transform,
                    threshold=test.threshold,
                    tags=tags,
                    group=group,
                    metadata=test.metadata,
                    generation=_generation(template, options),
                    where=where,
                )
            )

    def cases(self, *, need_prompts: bool) -> tuple[Case, ...]:
        """Give the cases, each with a name of its own.

        Raises:
            ConfigFileError: A case asks nothing, though prompts are needed.
        """
        if need_prompts:
            for case, test in zip(self._cases, self._tests, strict=True):
                if not case.prompt or (isinstance(case.prompt, str) and not case.prompt.strip()):
                    raise test.place.error(
                        "this test has no prompt, or an empty one.",
                        "Add `prompts:` at the top of the suite, or `vars: {prompt: ...}` to the test.",
                    )
        return named_uniquely(self._cases)

    def shared_names(self) -> int:
        """Count the descriptions that several tests share."""
        tests = {id(test): test.name for test in self._tests if test.name is not None}
        return sum(1 for count in Counter(tests.values()).values() if count > 1)

    def _claim(self, name: str, test: Test) -> None:
        first = self._ids.setdefault(name, test)
        if first.place != test.place:
            where = self._files.where(first.place.document, first.place.at)
            raise test.place.below("id").error(f"the id {name!r} is already at {where}.", "Give each test its own.")

    def _asked(self, test: Test) -> list[PromptTemplate]:
        """Give the prompts that the test asks."""
        if test.prompts is None:
            return list(self._prompts)
        for name in test.prompts:
            if not any(prompt.answers_to(name) for prompt in self._prompts):
                labels = list(dict.fromkeys(prompt.names[0] for prompt in self._prompts if prompt.names))
                fix = nearest(name, labels) if labels else "Give the prompt a `label`."
                raise test.place.error(f"no prompt is called {name!r}.", fix)
        asked = [prompt for prompt in self._prompts if any(prompt.answers_to(name) for name in test.prompts)]
        if not asked:
            raise test.place.error("this test asks none of the prompts.", "Remove `prompts: []`, or the test.")
        return asked

    def _prompt(self, template: PromptTemplate, variables: Mapping[str, object], test: Test) -> Prompt:
        options = test.options
        try:
            return template.fill(variables, prefix=options.prefix, suffix=options.suffix)
        except ValueError as error:
            if options.prefix or options.suffix or not template.at:
                raise test.place.error(sentence(error), "Correct the template.") from None
            where = self._files.where(test.place.document, test.place.at)
            message = sentence(f"{error}; the test at {where} asks it")
            raise template.document.error(message, key=template.at, fix="Correct the template.") from None

    def _checks(self, test: Test, variables: Mapping[str, object], where: str) -> tuple[Check, ...]:
        made = [
            self._filler.fill(
                template,
                variables,
                rubric=test.rubric,
                factuality=test.options.factuality,
                unsupported=test.unsupported,
            )
            for template in test.checks
        ]
        if test.scoring is not None:
            made.append(
                Check(
                    type="assertScoringFunction",
                    where=where,
                    unsupported="scores are weighed as promptfoo does by default; use weights and a threshold",
                )
            )
        return tuple(made)


def _combinations(variables: Mapping[str, object], *, is_expanded: bool) -> Iterator[dict[str, object]]:
    """Take one of each list of texts at a time, the first variable changing slowest; other lists are values."""
    choices: list[list[object]] = []
    for value in variables.values():
        if isinstance(value, Choices):
            choices.append(list(value.texts) if is_expanded else [list(value.texts)])
        elif is_expanded and isinstance(value, list) and value and isinstance(value[0], str):
            choices.append(value)
        else:
            choices.append([value])
    return (dict(zip(variables, chosen, strict=True)) for chosen in itertools.product(*choices))


def _generation(template: PromptTemplate, options: OptionsEntry) -> GenerationSettings:
    settings = {
        name: getattr(entry, name)
        for entry in (template.generation, options)
        for name in GenerationEntry.model_fields
        if name in entry.model_fields_set
    }
    return GenerationSettings(**settings)


def _tags(test: Test) -> tuple[str, ...]:
    listed = test.metadata.get("tags", [])
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise test.place.error("tags must be a list of text.", "Write `tags: [refund, safety]`.")
    return tuple(dict.fromkeys((*listed, *test.tags)))


def _group(test: Test) -> str | None:
    group = test.metadata.get("group")
    if isinstance(group, dict | list):
        raise test.place.error("metadata.group must be text.", "Write `group: document-7`.")
    return None if group is None else str(group)
