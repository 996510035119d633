"""Checks that a suite brings itself, in JavaScript, and its transforms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject, kind
from slipway.checks.values import javascript_text, shown
from slipway.javascript import Returned, Script, ScriptError, ScriptNeedsError, call_script, unmet_need
from slipway.validation_errors import describe

__all__ = ["TransformError", "transformed"]


class TransformError(Exception):
    """A transform threw, or returned nothing, for this output: it is not in the form that the suite expects."""


def transformed(script: str | Script, subject: Subject) -> Subject:
    """Give the subject with what a transform makes of its output.

    Raises:
        TransformError: It throws on this output, runs into a limit, or returns nothing.
        InapplicableCheckError: It wants something that is not here.
    """
    try:
        returned = call_script(_as_script(script), _output_of(subject), _context_of(subject))
    except ScriptError as error:
        raise TransformError(f"the transform threw: {error}") from None
    except ScriptNeedsError as error:
        raise InapplicableCheckError(f"the transform needs `{error}`") from None
    if returned.type in {"undefined", "null", "function", "symbol"}:
        raise TransformError("the transform returned nothing")
    if isinstance(returned.value, dict | list):
        text = json.dumps(returned.value, ensure_ascii=False, separators=(",", ":"))
        return subject._replace(output=text, data=returned.value)
    data = None if isinstance(returned.value, str) else returned.value  # a number stays one for the next script
    return subject._replace(output=javascript_text(returned.value), data=data)


def _as_script(script: str | Script) -> Script:
    return Script(source=script) if isinstance(script, str) else script


def _output_of(subject: Subject) -> object:
    return subject.output if subject.data is None else subject.data


def _context_of(subject: Subject, config: Mapping[str, object] | None = None) -> dict[str, object]:
    """Give the second argument of scripts, of promptfoo's: prompt, vars, test, logProbs, config, providerResponse."""
    prompt = subject.prompt if isinstance(subject.prompt, str | None) else json.dumps(list(map(dict, subject.prompt)))
    tokens = (subject.prompt_tokens, subject.generated_tokens)
    context: dict[str, object] = {
        "prompt": prompt,
        "vars": dict(subject.vars),
        "test": {"vars": dict(subject.vars)},
        "providerResponse": {
            "output": _output_of(subject),
            "latencyMs": subject.latency_ms,
            "cost": subject.cost_usd,
            "finishReason": subject.finish_reason,
            "tokenUsage": {"prompt": tokens[0], "completion": tokens[1], "total": sum(filter(None, tokens))},
        },
    }
    if subject.logprobs is not None:
        context["logProbs"] = subject.logprobs
    if config:
        context["config"] = dict(config)
    return context


def _runnable(check: Check) -> Check:
    if not (isinstance(check.value, Script) or (isinstance(check.value, str) and check.value.strip())):
        raise ValueError(f"{check.type} needs JavaScript as its value; found {describe(check.value)}")
    if check.threshold is not None and not math.isfinite(check.threshold):
        raise ValueError(f"the threshold of {check.type} must be a number")
    try:
        return replace(check, unsupported=unmet_need(check.value))
    except ValueError as error:
        raise ValueError(f"{error}, in {shown(_as_script(check.value).source.strip())!r}") from None


@kind("javascript", prepare=_runnable, has_threshold=True)
def _javascript(check: Check, subject: Subject) -> Graded:
    """Grade by what the script returns: a boolean, a number, or ``{pass, score, reason}``.

    A script that throws, runs into a limit or returns something else fails the check, also in its ``not-`` form
    (promptfoo 0.121.9 for the first and the last).
    """
    script = check.value if isinstance(check.value, Script) else Script(source=str(check.value))
    try:
        returned = call_script(script, _output_of(subject), _context_of(subject, check.config))
    except ScriptError as error:
        return Graded(passed=False, score=0, reason=f"Custom function threw error: {shown(error)}")
    except ScriptNeedsError as error:
        raise InapplicableCheckError(f"the script needs `{error}`") from None
    return _judged(check, returned)


def _judged(check: Check, returned: Returned) -> Graded:
    value = returned.value
    if isinstance(value, bool):
        passed = value != check.is_negated
        said = f"Custom function returned {str(value).lower()}."
        return Graded(passed=passed, score=float(passed), reason="" if passed else said)
    if isinstance(value, int | float) and math.isfinite(value):
        holds = value >= check.threshold if check.threshold else value > 0
        return _scored(check, holds=holds, score=float(value), reason=f"Custom function returned {value:g}.")
    match value:
        case {"pass": bool(holds), "score": int() | float() as score, "reason": str(reason)} if math.isfinite(score):
            scores = value.get("namedScores")
            named = {str(name): found for name, found in scores.items()} if isinstance(scores, dict) else {}
            graded = _scored(check, holds=holds, score=float(score), reason=reason)
            numbers = {name: float(found) for name, found in named.items() if isinstance(found, int | float)}
            return graded._replace(metrics=numbers)
    what = f"the text {value!r}" if isinstance(value, str) else returned.type
    return Graded(
        passed=False,
        score=0,
        reason="Custom function must return a boolean, a number, or an object of pass, score and reason; "
        f"it returned {shown(what)}.",
    )


def _scored(check: Check, *, holds: bool, score: float, reason: str) -> Graded:
    score = min(1.0, max(0.0, score))
    return Graded(passed=holds != check.is_negated, score=1 - score if check.is_negated else score, reason=reason)
