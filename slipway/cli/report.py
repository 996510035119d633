"""`slipway report`."""

from __future__ import annotations

import hashlib
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from slipway.cli.output import print_json, require_writable, stdout, write_text
from slipway.configs import ConfigKind, find_config
from slipway.errors import ConfigurationError
from slipway.gate import decide
from slipway.gate_file import load_gate
from slipway.home import resolve_home
from slipway.redaction import Redactor, scrub_text, secrets_from_environment
from slipway.report import Figures, masked, render_html, render_summary
from slipway.report.recorded import data_of_results
from slipway.results_io import read_results
from slipway.services.step_summary import append_step_summary
from slipway.suite import load_suite
from slipway.targets import load_target

__all__ = ["report"]

REPORT_FILE = "report.html"


def report(
    results: str,
    /,
    *,
    suite: str | None = None,
    gate: str | None = None,
    attempt: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    first_release: Annotated[bool, Parameter(negative="")] = False,
    target: str | None = None,
    out: Path = Path(REPORT_FILE),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Make the HTML report of recorded results, or say where a release's report is; asks no model, decides nothing.

    Args:
        results: JSONL as `slipway evaluate --out` and each release write it; or a release such as support-3.
        suite: Name or path of the suite, for the prompts.
        gate: Name or path of a gate file, for the verdict.
        attempt: Which attempt of this candidate on this suite it is, from 1.
        first_release: There is no champion yet; as for `slipway gate`.
        target: Name or path of a target file, for its judge, where the suite names none, and its `redact` patterns,
            which mask the prompts.
        out: Where to write the report.
        as_json: Print one JSON document on stdout.
    """
    path = Path(results)
    if not path.is_file():
        found = _of_release(results)
        return _tell(found, as_json=as_json)
    require_writable(out)
    where = load_target(find_config(ConfigKind.TARGET, target)) if target else None
    redactor = Redactor(where.redact if where else ())
    rules = load_gate(find_config(ConfigKind.GATE, gate)) if gate else None
    lines = read_results(path)
    verdict = decide(lines, rules, attempt=attempt, has_champion=False if first_release else None) if rules else None
    loaded = None
    if suite:
        judge = where.judge if where else None
        loaded = load_suite(find_config(ConfigKind.SUITE, suite), judge=judge, need_prompts=False, mask=redactor)
    known = data_of_results(
        lines,
        name=path.name,
        suite=loaded,
        verdict=verdict,
        gate=rules,
        references={
            "recorded results": str(path),
            "their digest": "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
            "suite": f"{suite} {loaded.digest}" if loaded else "",
            "gate": gate or "",
        },
        reproduce=(_command(path, out, suite, gate, attempt, target=target, first_release=first_release),),
    )
    data = masked(known, secrets=partial(scrub_text, secrets=secrets_from_environment(os.environ)), private=redactor)
    figures = Figures.of(data)
    write_text(out, render_html(data, figures=figures))
    append_step_summary(render_summary(data, report=out.absolute().as_uri(), figures=figures))
    return _tell(out.absolute(), as_json=as_json)


def _command(
    path: Path, out: Path, suite: str | None, gate: str | None, attempt: int, *, target: str | None, first_release: bool
) -> str:
    again = "" if attempt == 1 else str(attempt)
    given = (("--suite", suite), ("--gate", gate), ("--attempt", again), ("--target", target))
    options = [word for option, value in given if value for word in (option, value)]
    first = ["--first-release"] if first_release else []
    return shlex.join(["slipway", "report", str(path), "--out", str(out), *options, *first])


def _of_release(release_id: str) -> Path:
    path = resolve_home().releases / release_id / REPORT_FILE
    if "/" in release_id or not path.is_file():
        raise ConfigurationError(
            f"{release_id} is neither a file of results nor a release with a report under {resolve_home().releases}.",
            fix="Give a results.jsonl, or a release that `slipway history NAME` lists.",
        )
    return path


def _tell(path: Path, *, as_json: bool) -> int:
    if as_json:
        print_json({"report": str(path), "url": path.as_uri()})
    else:
        stdout().print(path.as_uri(), soft_wrap=True, markup=False)
    return 0
