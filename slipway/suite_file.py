"""What a suite file may say, in the words of promptfoo 0.121.9: its keys, and why some of them mean nothing here.

Knows keys and the types of their values; where values are read from and what they make is for others.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from slipway.judge_settings import JudgeSettings

__all__ = [
    "IGNORED_KEYS",
    "IGNORED_OPTIONS",
    "IGNORED_TEST_KEYS",
    "OWN_KEYS",
    "REFUSED_KEYS",
    "REFUSED_OPTIONS",
    "AssertionEntry",
    "GenerationEntry",
    "OptionsEntry",
    "PromptEntry",
    "ScenarioEntry",
    "SuiteEntry",
    "TestEntry",
]

_ADAPTER = "what is asked is the adapter"
_SERVER = "the server is not asked for it"
_JUDGE = "the judge is the one under `judge:`, or the target's"
_OUTSIDE = "it is about the run of promptfoo"

IGNORED_KEYS = {
    "providers": _ADAPTER,
    "targets": _ADAPTER,
    "tags": _OUTSIDE,
    "metadata": _OUTSIDE,
    "evaluateOptions": "speed follows the server, and the same case asked again (`repeat`) is no new evidence",
    "outputPath": _OUTSIDE,
    "env": "a suite reads no environment variables",
    "sharing": _OUTSIDE,
    "commandLineOptions": _OUTSIDE,
    "writeLatestResults": _OUTSIDE,
    "derivedMetrics": "metrics of the whole run are not computed",
    "nunjucksFilters": "programs of a suite are not run; a template that uses one of these filters is refused",
    "redteam": "tests are read, not generated",
    "tracing": _OUTSIDE,
}
"""Keys of a suite that are promptfoo's and mean nothing here, each with the reason."""

REFUSED_KEYS = {"extensions": "they are programs that may change what is asked, and programs of a suite are not run"}
"""Keys of a suite that would change what is asked, and cannot be obeyed."""

OWN_KEYS = ("x-", "_", ".")
"""Keys of a suite that start so hold anchors, parts to refer to and comments of its author's."""

IGNORED_TEST_KEYS = {"provider": _ADAPTER, "providers": _ADAPTER, "provider_output": "the adapter's own is graded"}
"""By field of ``TestEntry``."""

IGNORED_OPTIONS = {
    "provider": _JUDGE,
    "run_serially": "cases do not depend on each other",
    "disable_conversation_var": "cases have no conversation before them",
    **dict.fromkeys(
        (
            "response_format",
            "tools",
            "tool_choice",
            "functions",
            "function_call",
            "frequency_penalty",
            "presence_penalty",
            "reasoning_effort",
            "verbosity",
        ),
        _SERVER,
    ),
}
"""By field of ``OptionsEntry``."""

REFUSED_OPTIONS = {
    "transform_vars": "it is a program that changes what is asked; write the variables as it would make them",
    "store_output_as": "the answers come in any order, so no case can wait for another's; write the text into its vars",
}
"""By field of ``OptionsEntry``: they would change what is asked."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class GenerationEntry(_Strict):
    """How an answer is generated; what is not said is left to the target."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    stop: tuple[str, ...] = ()
    """Texts that end the answer."""


class OptionsEntry(GenerationEntry):
    """``options`` of a test: what surrounds the prompt, how the answer is generated and what is made of it."""

    prefix: str = ""
    """Put before a prompt that is text."""
    suffix: str = ""
    """Put after a prompt that is text."""
    transform: str = ""
    """JavaScript that makes what is graded out of the output, or the ``file://`` of it."""
    postprocess: str = ""
    """Old name of ``transform``."""
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt")
    """What judged checks ask instead of their own question."""
    disable_var_expansion: bool = Field(default=False, alias="disableVarExpansion")
    """Lists in ``vars`` are values and make no cases."""
    disable_default_asserts: bool = Field(default=False, alias="disableDefaultAsserts")
    """Leave out the assertions of ``defaultTest``."""
    factuality: Any = None
    """Scores of the categories of ``factuality``."""
    transform_vars: Any = Field(default=None, alias="transformVars")
    store_output_as: Any = Field(default=None, alias="storeOutputAs")
    provider: Any = None
    run_serially: Any = Field(default=None, alias="runSerially")
    disable_conversation_var: Any = Field(default=None, alias="disableConversationVar")
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None


class PromptConfigEntry(GenerationEntry):
    """``config`` of a prompt, of which the rest is for providers."""

    model_config = ConfigDict(extra="ignore")


class PromptEntry(_Strict):
    """One prompt with a name: ``raw`` is its text or file, else ``id`` is."""

    id: str | None = None
    label: str | None = None
    raw: str | None = None
    config: PromptConfigEntry = PromptConfigEntry()
    """How its answers are generated; the options of a test come before it."""


class AssertionEntry(_Strict):
    """One entry of ``assert``."""

    type: str
    value: Any = None
    """What to compare with; ``file://`` reads it."""
    threshold: float | None = None
    weight: float = Field(default=1.0, ge=0)
    """Share in the score; 0 only measures."""
    metric: str = ""
    """Name under which scores are gathered."""
    transform: str = ""
    """JavaScript that makes what is checked out of the output, or the ``file://`` of it."""
    config: Any = None
    provider: Any = None
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt")
    """What a judged check asks instead of its own question."""
    context_transform: Any = Field(default=None, alias="contextTransform")
    assertions: list[Any] | None = Field(default=None, alias="assert")
    """Of ``assert-set``: its assertions."""


class TestEntry(_Strict):
    """One entry of ``tests``, or ``defaultTest``."""

    __test__ = False  # pytest takes every class named Test... for its own

    id: str | None = Field(default=None, min_length=1)
    """Names the case in results; no other test may have it."""
    description: str | None = Field(default=None, min_length=1)
    """Names the case in results, with a number where several tests share it."""
    vars: dict[str, Any] | list[str] | str | None = None
    """What templates are filled with, or files of it. A list of texts makes one case for each."""
    assertions: list[Any] | None = Field(default=None, alias="assert")
    threshold: float | None = None
    """Score from which the case passes; without it every assertion must pass."""
    metadata: dict[str, Any] | None = None
    """``tags`` are what rules of a gate narrow to, ``group`` names cases of one source."""
    tags: list[str] | str = []
    """Added to ``metadata.tags``."""
    options: OptionsEntry = OptionsEntry()
    transform: str = ""
    """As ``options.transform``."""
    prompts: list[str] | None = None
    """Labels or ids of the prompts that this test asks; all by default."""
    assert_scoring_function: Any = Field(default=None, alias="assertScoringFunction")
    provider: Any = None
    providers: Any = None
    provider_output: Any = Field(default=None, alias="providerOutput")


class ScenarioEntry(_Strict):
    """One entry of ``scenarios``: every test with every entry of ``config``."""

    description: str = ""
    config: Any
    """Tests, or files of them, whose variables and assertions come before those of each test."""
    tests: Any = None


class SuiteEntry(_Strict):
    """The top of a suite file."""

    schema_: Any = Field(default=None, alias="$schema")
    description: str = ""
    prompts: Any = None
    """Texts with ``{{variables}}``, conversations, or files and globs of them."""
    tests: Any = None
    """Tests, or files and globs of them."""
    default_test: Any = Field(default=None, alias="defaultTest")
    """Defaults of every test, or the file of it."""
    scenarios: Any = None
    """Tests that are asked with several sets of variables."""
    assertion_templates: dict[str, Any] = Field(default={}, alias="assertionTemplates")
    """Assertions that ``$ref: '#/assertionTemplates/NAME'`` stands for."""
    judge: JudgeSettings | None = None
    """Who judges answers; comes before the target's."""
    providers: Any = None
    targets: Any = None
    tags: Any = None
    metadata: Any = None
    evaluate_options: Any = Field(default=None, alias="evaluateOptions")
    output_path: Any = Field(default=None, alias="outputPath")
    env: Any = None
    sharing: Any = None
    command_line_options: Any = Field(default=None, alias="commandLineOptions")
    write_latest_results: Any = Field(default=None, alias="writeLatestResults")
    derived_metrics: Any = Field(default=None, alias="derivedMetrics")
    nunjucks_filters: Any = Field(default=None, alias="nunjucksFilters")
    redteam: Any = None
    tracing: Any = None
    extensions: Any = None
