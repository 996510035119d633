"""The checks that a model judges: a question, a strict reading of the reply, and promptfoo's rule for passing.

``judging`` has the questions, ``judge_replies`` the reading. A reply that cannot be read is asked for once more; then
the check cannot be applied and the case is missing, never failed. A blank answer is not put to a judge where the type
leaves no doubt about it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from slipway import judging
from slipway.checks.registry import Check, Graded, InapplicableCheckError, Judge, Subject, judged_kind
from slipway.checks.verdicts import answered, graded, reaches, with_text, with_threshold
from slipway.judge_replies import read_category, read_pass, read_rubric, read_score, read_texts
from slipway.validation_errors import describe

__all__: list[str] = []

_HIGHEST_SCORE = 10.0
_MOST_STEPS = 20
_FACTUALITY_SCORES = {"A": "subset", "B": "superset", "C": "agree", "D": "disagree", "E": "differButFactual"}


def _with_rubric(check: Check) -> Check:
    value = check.value
    if isinstance(value, dict | list) and value:
        value = json.dumps(value, ensure_ascii=False)
    if not check.rubric_prompt and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{check.type} needs a value: what the output must be like; found {describe(check.value)}")
    return with_threshold(_with_template(replace(check, value=value if isinstance(value, str) else "")))


def _with_criterion(check: Check) -> Check:
    return with_text(_with_template(check))


def _with_reference(check: Check) -> Check:
    _category_scores(check)
    return _with_criterion(check)


def _with_criteria(check: Check) -> Check:
    criteria = check.value if isinstance(check.value, list) else [check.value]
    if not criteria or not all(isinstance(text, str) and text.strip() for text in criteria):
        raise ValueError(f"{check.type} needs criteria: a text, or a list of texts; found {describe(check.value)}")
    for template in _g_eval_templates(check).values():
        check = replace(_with_template(replace(check, rubric_prompt=template)), rubric_prompt=check.rubric_prompt)
    # promptfoo takes 0 as none here.
    return with_threshold(replace(check, value=tuple(criteria), threshold=check.threshold or 0.7))


@judged_kind("llm-rubric", prepare=_with_rubric)
async def _llm_rubric(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Pass where the judge says so and its score reaches the threshold, if there is one.

    A reply without ``pass`` is read by its score and the threshold; promptfoo takes it as passed.
    """
    rubric = str(check.value)
    question = judging.ask_rubric(rubric, subject.output)
    if check.rubric_prompt:
        question = _custom(check, {"output": subject.output}, {**subject.vars, "rubric": rubric}, judging.RUBRIC_SHAPE)
    reply = await answered(judge, question, read_rubric)
    score = float(bool(reply.passed)) if reply.score is None else reply.score
    if reply.passed is None and check.threshold is None:
        raise InapplicableCheckError("the judge gave a score and no verdict, and the check has no threshold")
    passed = reply.passed is not False and (check.threshold is None or reaches(score, check.threshold))
    return graded(check, passed, score, reply.reason or f"The judge scores it {score:.2f}.")


@judged_kind("factuality", prepare=_with_reference, has_threshold=False)
@judged_kind("model-graded-factuality", prepare=_with_reference, has_threshold=False)
async def _factuality(check: Check, subject: Subject, judge: Judge) -> Graded:
    reference, asked = str(check.value), judging.prompt_text(subject.prompt)
    question = judging.ask_category(asked, reference, subject.output)
    is_custom = bool(check.rubric_prompt)
    if is_custom:
        question = _custom(
            check,
            {"completion": subject.output, "output": subject.output, "input": asked},
            {**subject.vars, "ideal": reference},
            judging.CATEGORY_SHAPE,
            as_json=False,
        )
    letter, reason = await answered(judge, question, lambda text: read_category(text, allow_letter=is_custom))
    score = _category_scores(check)[letter]
    return graded(check, score > 0, score, f"{letter}: {reason or judging.CATEGORIES[letter]}")


@judged_kind("model-graded-closedqa", prepare=_with_criterion, has_threshold=False)
async def _closed_qa(check: Check, subject: Subject, judge: Judge) -> Graded:
    criterion, asked = str(check.value), judging.prompt_text(subject.prompt)
    question = judging.ask_closed_qa(asked, criterion, subject.output)
    is_custom = bool(check.rubric_prompt)
    if is_custom:
        question = _custom(
            check,
            {"completion": subject.output, "output": subject.output, "input": asked},
            {**subject.vars, "criteria": criterion},
            judging.PASS_SHAPE,
            as_json=False,
        )
    passed, reason = await answered(judge, question, lambda text: read_pass(text, allow_letter=is_custom))
    return graded(check, passed, float(passed), reason or "The judge gave no reason.")


@judged_kind("g-eval", prepare=_with_criteria)
async def _g_eval(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Score each criterion along steps that the judge wrote for it, and take the mean of the scores."""
    asked = judging.prompt_text(subject.prompt)
    scores, reasons = [], []
    templates = _g_eval_templates(check)
    for criteria in check.value if isinstance(check.value, tuple) else ():
        question = judging.ask_steps(criteria)
        if "steps" in templates:
            question = _rendered(templates["steps"], {}, {"criteria": criteria}, judging.STEPS_SHAPE)
        steps = await answered(judge, question, lambda text: read_texts(text, "steps", least=1, most=_MOST_STEPS))
        question = judging.ask_score(criteria, steps, asked, subject.output)
        if "evaluate" in templates:
            question = _rendered(
                templates["evaluate"],
                {"output": subject.output, "input": asked},
                {"criteria": criteria, "steps": "\n- ".join(steps), "maxScore": f"{_HIGHEST_SCORE:g}"},
                judging.SCORE_SHAPE,
            )
        score, reason = await answered(judge, question, lambda text: read_score(text, highest=_HIGHEST_SCORE))
        scores.append(score)
        reasons.append(reason)
    score = math.fsum(scores) / len(scores)
    said = " ".join(filter(None, reasons)) or "The judge gave no reason."
    return graded(check, reaches(score, check.threshold), score, f"{score:.2f} of {check.threshold:g} needed. {said}")


def _with_template(check: Check) -> Check:
    """Refuse what cannot be read or rendered before any answer is paid for; undefined variables are empty."""
    if judging.takes_parts(check.rubric_prompt):
        return replace(
            check, unsupported="its rubricPrompt takes parts of the output; write {{output}}, which is shown whole"
        )
    judging.ask_custom(judging.chat_template(check.rubric_prompt), {}, {}, shape="")
    return check


def _g_eval_templates(check: Check) -> dict[str, str]:
    """Find the prompts for steps and evaluation, JSON ``{"steps": .., "evaluate": ..}``; promptfoo ignores others."""
    try:
        found = json.loads(check.rubric_prompt) if check.rubric_prompt.lstrip().startswith("{") else {}
    except ValueError:
        return {}
    return {key: found[key] for key in ("steps", "evaluate") if isinstance(found.get(key), str)}


def _custom(
    check: Check, untrusted: Mapping[str, str], trusted: Mapping[str, object], shape: str, *, as_json: bool = True
) -> judging.Question:
    return _rendered(judging.chat_template(check.rubric_prompt), untrusted, trusted, shape, as_json=as_json)


def _rendered(
    template: str | tuple[Mapping[str, str], ...],
    untrusted: Mapping[str, str],
    trusted: Mapping[str, object],
    shape: str,
    *,
    as_json: bool = True,
) -> judging.Question:
    try:
        return judging.ask_custom(template, untrusted, trusted, shape=shape, as_json=as_json)
    except ValueError as error:
        raise InapplicableCheckError(f"its rubricPrompt cannot be used: {error}") from error


def _category_scores(check: Check) -> dict[str, float]:
    """Read the score of each category: 0 for a contradiction, 1 for the rest, unless ``config.factuality`` differs."""
    wanted = check.config.get("factuality") or {}
    if not isinstance(wanted, dict) or not set(wanted) <= set(_FACTUALITY_SCORES.values()):
        raise ValueError(f"factuality scores have the keys {', '.join(_FACTUALITY_SCORES.values())}")
    scores = {letter: wanted.get(name, float(letter != "D")) for letter, name in _FACTUALITY_SCORES.items()}
    for score in scores.values():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise ValueError(f"a factuality score is a number from 0 to 1; found {describe(score)}")
    return {letter: float(score) for letter, score in scores.items()}
