"""Suites: the cases that a candidate, the champion and the base are asked, and how their answers are graded.

Reads files in promptfoo's format (docs/suites.md says what of it) and expands them: prompts times tests times lists in
variables, templates filled in, checks verified. What is not understood is refused with file and line, never skipped,
because a check that silently does not run is a gate that silently stands open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from slipway.cases import Case, GenerationSettings, Suite, UnsupportedAssertion, named_uniquely, suite_digest
from slipway.judge_settings import JudgeSettings
from slipway.prompts import Message, Prompt, read_prompts
from slipway.suite_cases import CaseBuilder
from slipway.suite_checks import CheckFiller
from slipway.suite_file import IGNORED_KEYS, OWN_KEYS, REFUSED_KEYS, SuiteEntry
from slipway.suite_paths import SuiteFiles
from slipway.suite_references import dereference
from slipway.suite_sources import Place, SourceFinder
from slipway.suite_tests import Test, TestReader
from slipway.wordnet import find_wordnet
from slipway.yaml_files import YamlDocument, read_document, validate

__all__ = ["Case", "GenerationSettings", "Message", "Prompt", "Suite", "UnsupportedAssertion", "load_suite"]


def load_suite(
    path: Path | str,
    *,
    need_prompts: bool = True,
    judge: JudgeSettings | None = None,
    mask: Callable[[str], str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Suite:
    """Read and expand a suite file, or a bare list of tests.

    Args:
        path: YAML or JSON.
        need_prompts: Refuse cases without a prompt; recorded outputs can be graded without one.
        judge: Who judges answers where the suite does not say.
        mask: Applied to the cases' ids, which are written down with every result.
        environ: Says where WordNet is, for ``meteor``; nothing of it gets into the suite.

    Raises:
        ConfigFileError: The first thing that is wrong, with file, line, key and what to write.
    """
    path = Path(path)
    files = SuiteFiles(path.parent)
    written = read_document(path)
    document = _without_own_keys(dereference(written, written, files))
    is_bare = isinstance(document.value, list)
    entry = SuiteEntry() if is_bare else validate(document, SuiteEntry)
    notes = dict.fromkeys(_notes(document))
    judge = entry.judge or judge
    finder = SourceFinder(written, files)
    reader = TestReader(files, finder)
    wordnet = find_wordnet(environ)
    filler = CheckFiller(judge, None if wordnet is None else wordnet.synonyms)
    builder = CaseBuilder(read_prompts(document, entry.prompts, files), filler, files)
    top = Place(document=document, at=())
    default = Test(place=top)
    if entry.default_test is not None:
        default = reader.read(finder.part(top.below("defaultTest")))
    tests = top if is_bare else top.below("tests") if entry.tests else None
    if tests is not None:
        for place in finder.tests(tests):
            builder.add(reader.read(place).over(default))
    if entry.scenarios:
        for test in reader.scenarios(top.below("scenarios")):
            builder.add(test.over(default))
    cases = builder.cases(need_prompts=need_prompts)
    if not cases:
        key = () if is_bare else ("tests",)
        raise document.error("the suite has no tests.", key=key, fix="Write `tests:` with at least one.")
    if shared := builder.shared_names():
        several = "1 description is" if shared == 1 else f"{shared} descriptions are"
        notes[f"{several} shared by several tests: their cases are numbered."] = None
    if unchecked := sum(not case.checks for case in cases):
        named = "1 case has" if unchecked == 1 else f"{unchecked} cases have"
        notes[f"{named} no assertion: whatever is answered passes."] = None
    return Suite(
        path=path,
        description=entry.description,
        cases=cases if mask is None else named_uniquely(cases, mask),
        digest=suite_digest(cases, judge),
        notes=(*notes, *reader.notes),
        judge=judge,
    )


def _without_own_keys(document: YamlDocument) -> YamlDocument:
    if not isinstance(document.value, dict):
        return document
    own = {key: value for key, value in document.value.items() if not key.startswith(OWN_KEYS)}
    return replace(document, value=own)


def _notes(document: YamlDocument) -> list[str]:
    """Say which keys are ignored, and why; refuse those that would change what is asked."""
    present = document.value if isinstance(document.value, dict) else {}
    for key, reason in REFUSED_KEYS.items():
        if present.get(key):
            raise document.error(f"{key!r} cannot be obeyed: {reason}.", key=(key,), fix="Remove it.")
    return [f"{key!r} is ignored: {reason}." for key, reason in IGNORED_KEYS.items() if present.get(key) is not None]
