"""Make checks of the assertions of a suite: read what they name, fill in their templates, have them verified.

Which types there are and what they need is for ``checks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slipway.checks import Check, Synonyms, UnknownTypeError, example, prepare
from slipway.javascript import Script
from slipway.judge_settings import JudgeSettings
from slipway.results import ASSERT_SET
from slipway.suite_file import AssertionEntry
from slipway.suite_paths import PREFIX, STRUCTURED, SuiteFiles, UnsupportedProgramError, is_program
from slipway.suite_sources import Place
from slipway.templates import TemplateError, json_text, render, render_value, unset_names
from slipway.validation_errors import sentence
from slipway.yaml_files import validate

__all__ = ["CheckFiller", "CheckTemplate", "read_check", "read_rubric", "read_script"]

_SCRIPTED = frozenset({"python", "ruby"})
"""Types whose value is a program that is never read, let alone run."""


@dataclass(frozen=True, kw_only=True)
class _Literal:
    """A value that came from a file, in which braces are no templates."""

    value: object


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckTemplate:
    """One assertion as written, its files read.

    Attributes:
        place: For errors.
        check: With templates in value and metric.
        inner: Of ``assert-set``: its assertions.
    """

    place: Place
    check: Check
    inner: tuple[CheckTemplate, ...] = ()


class CheckFiller:
    """Makes checks of templates; what no variable changes is made and verified once."""

    def __init__(self, judge: JudgeSettings | None, synonyms: Synonyms | None) -> None:
        self._judge = judge
        self._synonyms = synonyms
        self._made: dict[tuple[CheckTemplate, str, str], Check] = {}

    def fill(
        self,
        template: CheckTemplate,
        variables: Mapping[str, object],
        *,
        rubric: str = "",
        factuality: object = None,
        unsupported: str = "",
    ) -> Check:
        """Make the check for one case.

        Args:
            template: What is written.
            variables: Of the case, themselves filled in.
            rubric: What judged checks of the test ask, where the assertion does not say.
            factuality: Scores of the categories of ``factuality``, likewise.
            unsupported: Why nothing of the test can be applied; empty if it can.

        Raises:
            ConfigFileError: The check is not what its type needs; says where and what to write.
        """
        key = (template, rubric, unsupported)
        if key in self._made:
            return self._made[key]
        for inner in template.inner:  # so that an error names the assertion, not the set around it
            self.fill(inner, variables, rubric=rubric, factuality=factuality, unsupported=unsupported)
        try:
            filled = _filled(template, variables, rubric, factuality, unsupported)
            check = prepare(filled, judge=self._judge, synonyms=self._synonyms)
        except UnknownTypeError as error:
            raise template.place.error(sentence(error), error.fix) from None
        except ValueError as error:
            raise _refusal(template, variables, error) from None
        if not factuality and not _has_templates(template):
            self._made[key] = check
        return check


def read_check(place: Place, files: SuiteFiles) -> CheckTemplate:
    """Read one assertion, and the files that it names.

    Raises:
        ConfigFileError: Unknown key, wrong type, or a file that cannot be read.
    """
    entry = validate(place.document, AssertionEntry, at=place.at)
    if entry.config is not None and not isinstance(entry.config, dict):
        raise place.below("config").error("expected keys and values.", "Write `config: {key: value}`.")
    if entry.assertions is not None and entry.type != ASSERT_SET:
        raise place.below("assert").error(f"{entry.type!r} holds no assertions.", f"Write `type: {ASSERT_SET}`.")
    value: object = entry.value
    transform: str | Script = ""
    rubric, unsupported = "", ""
    try:
        value = _read_value(entry, place, files)
        transform = read_script(entry.transform, place.below("transform"), files)
        rubric = read_rubric(entry.rubric_prompt, place.below("rubricPrompt"), files)
    except UnsupportedProgramError as error:
        unsupported = str(error)
    if entry.context_transform is not None:
        unsupported = "its contextTransform looks into a provider's reply, and an adapter gives text"
    check = Check(
        type=entry.type,
        value=value,
        threshold=entry.threshold,
        weight=entry.weight,
        metric=entry.metric,
        transform=transform,
        config=entry.config or {},
        rubric_prompt=rubric,
        provider=entry.provider,
        where=files.where(place.document, place.at),
        unsupported=unsupported,
    )
    inner = tuple(read_check(place.below("assert", index), files) for index in range(len(entry.assertions or ())))
    return CheckTemplate(place=place, check=check, inner=inner)


def read_script(text: str, place: Place, files: SuiteFiles) -> str | Script:
    """Give the JavaScript that is written, or the file that ``file://x.js`` names.

    Raises:
        ConfigFileError: There is no such file, or it cannot be read.
        UnsupportedProgramError: It is in another language.
    """
    return files.javascript(text, place.document, place.at) if text.startswith(PREFIX) else text


def read_rubric(value: object, place: Place, files: SuiteFiles) -> str:
    """Give a rubric prompt as text, a conversation as JSON; its templates are filled in when a judge is asked.

    Raises:
        ConfigFileError: There is no such file, or it cannot be read.
        UnsupportedProgramError: It is a program.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return json_text(value)
    if not value.startswith(PREFIX):
        return value
    if is_program(value):
        raise UnsupportedProgramError(f"the rubric prompt {value!r} is a program, and programs of a suite are not run")
    path = files.one(value, place.document, place.at)
    return json_text(files.document(path).value) if path.suffix in STRUCTURED else files.text(path)


def _read_value(entry: AssertionEntry, place: Place, files: SuiteFiles) -> object:
    """Read what the value names. Raises UnsupportedProgramError where a program would have to compute it."""
    base = entry.type.removeprefix("not-")
    if base in _SCRIPTED:
        return entry.value
    at = place.below("value")
    if isinstance(entry.value, list):
        return [_read_text(item, base, at.below(index), files) for index, item in enumerate(entry.value)]
    return _read_text(entry.value, base, at, files)


def _read_text(value: object, base: str, place: Place, files: SuiteFiles) -> object:
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    if base == "javascript":
        return _Literal(value=files.javascript(value, place.document, place.at))
    if is_program(value):
        raise UnsupportedProgramError(f"its value {value!r} is a program, and only `javascript` assertions are run")
    return _Literal(value=files.value(value, place.document, place.at))


def _filled(
    template: CheckTemplate, variables: Mapping[str, object], rubric: str, factuality: object, unsupported: str
) -> Check:
    check = template.check
    is_set = bool(template.inner)
    value = _rendered(check.value, variables)
    if value is check.value and not (is_set or check.metric or rubric or factuality or unsupported):
        return check
    return replace(
        check,
        value=value,
        metric=render(check.metric, variables),
        config={"factuality": factuality, **check.config} if factuality else check.config,
        rubric_prompt=check.rubric_prompt or rubric,
        unsupported=check.unsupported or ("" if is_set else unsupported),
        checks=tuple(_filled(inner, variables, rubric, factuality, unsupported) for inner in template.inner),
    )


def _refusal(template: CheckTemplate, variables: Mapping[str, object], error: ValueError) -> Exception:
    """Say what is wrong with an assertion: where its value names a variable that is not set, that."""
    place = template.place
    value = place.below("value")
    if _has_braces(template.check.value) and value.at in place.document.lines:
        place = value
    if isinstance(error, TemplateError):
        return place.error(sentence(error), "Correct the template.")
    if unset := unset_names(template.check.value, variables):
        names = ", ".join(map(repr, unset))
        return place.error(
            sentence(f"{error}; {names} {'is' if len(unset) == 1 else 'are'} not set"),
            f"Write `vars: {{{unset[0]}: ...}}` in the test, or correct the name.",
        )
    shown = example(template.check.type)
    return place.error(sentence(error), f"Write it like `{shown}`." if shown else "")


def _rendered(value: object, variables: Mapping[str, object]) -> object:
    if isinstance(value, _Literal):
        return value.value
    if isinstance(value, list):
        return [_rendered(item, variables) for item in value]
    return render_value(value, variables) if isinstance(value, str | dict) else value


def _has_templates(template: CheckTemplate) -> bool:
    check = template.check
    return _has_braces(check.value) or "{" in check.metric or any(map(_has_templates, template.inner))


def _has_braces(value: object) -> bool:
    if isinstance(value, str):
        return "{" in value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_braces, items))
