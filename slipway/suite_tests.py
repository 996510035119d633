"""Read the tests of a suite: each with its parts verified, then merged with the default test and its scenario.

How parts are merged is promptfoo's (0.121.9). Makes no cases yet: variables may still be lists, templates are not
filled in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from slipway.checks import remarks
from slipway.javascript import Script, check_script
from slipway.suite_checks import CheckTemplate, read_check, read_rubric, read_script
from slipway.suite_file import (
    IGNORED_OPTIONS,
    IGNORED_TEST_KEYS,
    REFUSED_OPTIONS,
    OptionsEntry,
    ScenarioEntry,
    TestEntry,
)
from slipway.suite_paths import PREFIX, SuiteFiles, UnsupportedProgramError
from slipway.suite_sources import Place, SourceFinder
from slipway.validation_errors import sentence
from slipway.yaml_files import validate

__all__ = ["Choices", "Test", "TestReader"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a variable that names several files may be, one text for each."""

    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test with its files read; also the default test, and a set of variables of a scenario.

    Attributes:
        place: Where it is written.
        name: Its id or description; None where it has neither.
        is_id: Whether ``name`` is its id, which no other test may have.
        vars: Values, lists that make several cases, and ``Choices``.
        vars_at: Where each of them is written.
        checks: In order.
        options: Merged key by key.
        rubric: What judged checks ask; empty where the test does not say.
        transform: What is made of the output before it is graded; empty for nothing.
        unsupported: Why nothing of the test can be graded; empty if it can.
        threshold: Score from which it passes.
        metadata: Merged key by key.
        tags: Its own, beside ``metadata.tags``.
        prompts: Names of the prompts that it asks; None for all.
        scoring: A function of promptfoo's that would make the score; None for none.
    """

    __test__ = False  # pytest takes every class named Test... for its own

    place: Place
    name: str | None = None
    is_id: bool = False
    vars: Mapping[str, object] = field(default_factory=dict)
    vars_at: Mapping[str, Place] = field(default_factory=dict)
    checks: tuple[CheckTemplate, ...] = ()
    options: OptionsEntry = field(default_factory=OptionsEntry)
    rubric: str = ""
    transform: str | Script = ""
    unsupported: str = ""
    threshold: float | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    prompts: tuple[str, ...] | None = None
    scoring: object = None

    def over(self, default: Test) -> Test:
        """Merge with what comes before it: its own parts count, and its checks come after the default's."""
        own = {name: getattr(self.options, name) for name in self.options.model_fields_set}
        # An empty prefix or suffix does not take the default's away.
        own = {name: value for name, value in own.items() if value or name not in {"prefix", "suffix"}}
        has_transform = bool(self.transform or self.unsupported)
        return replace(
            self,
            vars={**default.vars, **self.vars},
            vars_at={**default.vars_at, **self.vars_at},
            checks=self.checks if self.options.disable_default_asserts else (*default.checks, *self.checks),
            options=default.options.model_copy(update=own),
            rubric=self.rubric or default.rubric,
            transform=self.transform if has_transform else default.transform,
            unsupported=self.unsupported if has_transform else default.unsupported,
            threshold=default.threshold if self.threshold is None else self.threshold,
            metadata={**default.metadata, **self.metadata},
            tags=(*default.tags, *self.tags),
            prompts=default.prompts if self.prompts is None else self.prompts,
            scoring=self.scoring or default.scoring,
        )

    def in_scenario(self, data: Test) -> Test:
        """Merge with one set of variables of its scenario, whose options promptfoo does not pass on."""
        none = OptionsEntry()
        merged = replace(self, options=none).over(replace(data, options=none, rubric="", transform="", unsupported=""))
        return replace(merged, options=self.options, name=self.name or data.name, is_id=self.is_id)


class TestReader:
    """Reads the tests of one suite.

    Attributes:
        notes: What was ignored, as keys, in the order it was found.
    """

    __test__ = False

    def __init__(self, files: SuiteFiles, finder: SourceFinder) -> None:
        self._files = files
        self._finder = finder
        self.notes: dict[str, None] = {}

    def scenarios(self, place: Place) -> Iterator[Test]:
        """Read every test of every scenario with each set of variables.

        Raises:
            ConfigFileError: As ``read``, and an empty scenario.
        """
        for entry in self._listed(place):
            place_of_scenario = self._finder.part(entry)
            if isinstance(place_of_scenario.value, list):
                yield from self.scenarios(place_of_scenario)
                continue
            scenario = validate(place_of_scenario.document, ScenarioEntry, at=place_of_scenario.at)
            sets = [self.read(found) for found in self._tests(place_of_scenario.below("config"))]
            if not sets:
                raise place_of_scenario.error("this scenario has no variables.", "Write `config: [{vars: {...}}]`.")
            if any(data.options.model_fields_set for data in sets):
                self.notes["'options' in the config of a scenario are ignored, as promptfoo does."] = None
            tests = [Test(place=place_of_scenario)]
            if scenario.tests is not None:
                tests = [self.read(found) for found in self._tests(place_of_scenario.below("tests"))]
            yield from (test.in_scenario(data) for data in sets for test in tests)

    def read(self, place: Place) -> Test:
        """Read one test.

        Raises:
            ConfigFileError: Unknown key, wrong type, a file that cannot be read, or a key that would change what is
                asked and cannot be obeyed.
        """
        entry = validate(place.document, TestEntry, at=place.at)
        options = entry.options
        for name, reason in REFUSED_OPTIONS.items():
            if getattr(options, name) is not None:
                key = str(OptionsEntry.model_fields[name].alias)
                raise place.below("options", key).error(f"{key!r} cannot be obeyed: {reason}.", "Remove it.")
        self._note_ignored(entry)
        checks = tuple(
            read_check(self._finder.part(place.below("assert", index)), self._files)
            for index in range(len(entry.assertions or ()))
        )
        self._note_quirks(checks)
        transform, rubric, unsupported = self._programs(entry, place)
        variables = self._variables(entry.vars, place.below("vars"))
        return Test(
            place=place,
            name=entry.id or entry.description,
            is_id=entry.id is not None,
            vars={name: value for name, (value, _) in variables.items()},
            vars_at={name: written for name, (_, written) in variables.items()},
            checks=checks,
            options=options,
            rubric=rubric,
            transform=transform,
            unsupported=unsupported,
            threshold=entry.threshold,
            metadata=entry.metadata or {},
            tags=(entry.tags,) if isinstance(entry.tags, str) else tuple(entry.tags),
            prompts=None if entry.prompts is None else tuple(entry.prompts),
            scoring=entry.assert_scoring_function,
        )

    def _tests(self, place: Place) -> Iterator[Place]:
        return self._finder.tests(self._finder.part(place) if isinstance(place.value, str) else place)

    def _listed(self, place: Place) -> Iterator[Place]:
        value = place.value
        if isinstance(value, list):
            yield from (place.below(index) for index in range(len(value)))
        else:
            yield place

    def _variables(
        self, written: dict[str, object] | list[str] | str | None, place: Place
    ) -> dict[str, tuple[object, Place]]:
        """Read the variables, each with the place where it is written."""
        if written is None:
            return {}
        if isinstance(written, dict):
            return {
                name: (self._variable(value, place.below(name)), place.below(name)) for name, value in written.items()
            }
        variables: dict[str, tuple[object, Place]] = {}
        for reference in [written] if isinstance(written, str) else written:
            paths = self._files.find(reference, place.document)
            if not paths:
                raise place.error(f"{reference!r} is not a file.", "Paths are relative to the suite.")
            for path in paths:
                document = self._files.document(path)
                if not isinstance(document.value, dict):
                    raise place.error("the file of variables must hold keys and values.", "Write `a: b`.")
                variables |= self._variables(document.value, Place(document=document, at=()))
        return variables

    def _variable(self, value: object, place: Place) -> object:
        if isinstance(value, str) and value.startswith(PREFIX):
            texts = self._files.variables(value, place.document, place.at)
            return texts[0] if len(texts) == 1 else Choices(texts=tuple(texts))
        if isinstance(value, list) and any(isinstance(item, str) and item.startswith(PREFIX) for item in value):
            found: list[object] = []
            for index, item in enumerate(value):
                read = self._variable(item, place.below(index))
                found.extend(read.texts if isinstance(read, Choices) else [read])
            return found
        return value

    def _programs(self, entry: TestEntry, place: Place) -> tuple[str | Script, str, str]:
        """Give the transform, the rubric prompt, and why nothing can be graded."""
        written = entry.options.transform or entry.options.postprocess or entry.transform
        try:
            rubric = read_rubric(entry.options.rubric_prompt, place.below("options", "rubricPrompt"), self._files)
            transform = read_script(written, place.below("options", "transform"), self._files)
        except UnsupportedProgramError as error:
            return "", "", str(error)
        if not transform:
            return "", rubric, ""
        script = transform if isinstance(transform, Script) else Script(source=transform)
        try:
            needs = check_script(script)
        except ValueError as error:
            raise place.below("options", "transform").error(sentence(error), "Correct the transform.") from None
        return transform, rubric, f"the transform of its test needs {needs}, which is not here" if needs else ""

    def _note_ignored(self, entry: TestEntry) -> None:
        for keys, model, names in (
            (IGNORED_TEST_KEYS, entry, ""),
            (IGNORED_OPTIONS, entry.options, "options."),
        ):
            for name, reason in keys.items():
                if getattr(model, name) is not None:
                    key = type(model).model_fields[name].alias or name
                    self.notes[f"'{names}{key}' of a test is ignored: {reason}."] = None

    def _note_quirks(self, checks: tuple[CheckTemplate, ...]) -> None:
        for template in checks:
            self._note_quirks(template.inner)
            check = template.check
            self.notes.update(dict.fromkeys(remarks(check)))
            if check.provider is not None:
                self.notes["'provider' of an assertion is ignored: " + IGNORED_OPTIONS["provider"] + "."] = None
