"""`slipway doctor`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

import httpx
from cyclopts import Parameter
from packaging.version import Version
from rich.text import Text

from slipway.cli.output import print_json, print_table
from slipway.cli.preflight import reach_target
from slipway.configs import ConfigKind, config_directory, find_config
from slipway.errors import SlipwayError
from slipway.gate_file import load_gate
from slipway.home import resolve_home
from slipway.services.workspace import open_workspace
from slipway.suite import load_suite
from slipway.targets import load_target
from slipway.wording import counted

__all__ = ["doctor"]

CAPS = {
    "prefect": ("3.8.8", "4", "flows are tested from 3.8.8 on"),
    "fastapi": ("0.139", "0.151", "newer releases break the Prefect server at start"),
    "sqlalchemy": ("2.0", "2.1", "with 2.1 Prefect 3.8 never creates scheduled runs"),
}
"""Lowest version, first version that is too new, and why."""

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at. ``fix`` says what to do about a warning or problem."""

    subject: str
    state: Literal["ok", "warning", "problem"]
    message: str
    fix: str = ""


def doctor(
    *,
    target: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Check credentials, endpoints, versions and the Prefect server, and say how to fix what is wrong.

    Exits 1 when there is a problem; a warning is none.

    Args:
        target: Also connect to this target.
        as_json: Print one JSON document on stdout.
    """
    checks = [_python(), *_versions(), _home(), *_configs(), _prefect(), *_ledger()]
    if target is not None:
        checks.append(_target(target))
    if as_json:
        print_json([check.__dict__ for check in checks])
    else:
        print_table(
            ("", "what", "", "fix"),
            [(Text(check.state, STYLES[check.state]), check.subject, check.message, check.fix) for check in checks],
            empty="",
        )
    return 1 if any(check.state == "problem" for check in checks) else 0


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(subject="Python", state="ok", message=found)


def _versions() -> list[Check]:
    checks = []
    for package, (lowest, too_new, why) in CAPS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            checks.append(
                Check(
                    subject=package, state="problem", message="not installed", fix="Install with `pip install slipway`."
                )
            )
            continue
        fits = Version(lowest) <= Version(found) < Version(too_new)
        checks.append(
            Check(
                subject=package,
                state="ok" if fits else "problem",
                message=found if fits else f"{found}: {why}",
                fix="" if fits else f"pip install '{package}>={lowest},<{too_new}'",
            )
        )
    try:
        checks.append(Check(subject="torch (sandbox)", state="ok", message=version("torch")))
    except PackageNotFoundError:
        checks.append(
            Check(
                subject="torch (sandbox)",
                state="warning",
                message="not installed: no sandbox, no rehearsal",
                fix="pip install 'slipway[sandbox]'",
            )
        )
    return checks


def _home() -> Check:
    home = resolve_home().root
    existing = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Check(
            subject="SLIPWAY_HOME",
            state="problem",
            message=f"{home} is not writable",
            fix="Set SLIPWAY_HOME to a place that is.",
        )
    return Check(subject="SLIPWAY_HOME", state="ok", message=str(home))


def _configs() -> list[Check]:
    directory = config_directory()
    loaders: dict[ConfigKind, Callable[..., object]] = {
        ConfigKind.TARGET: load_target,
        ConfigKind.SUITE: load_suite,
        ConfigKind.GATE: load_gate,
    }
    if not directory.is_dir():
        return [
            Check(
                subject="configs",
                state="warning",
                message=f"there is no {directory}",
                fix="Run from a directory with configs/, or set SLIPWAY_CONFIGS.",
            )
        ]
    checks, count = [], 0
    for kind, load in loaders.items():
        for path in sorted((directory / kind).glob("*.yaml")):
            count += 1
            try:
                load(path)
            except SlipwayError as error:
                checks.append(Check(subject=str(kind), state="problem", message=error.message, fix=error.fix))
    return [*checks, Check(subject="configs", state="ok", message=f"{counted(count, 'file')} read in {directory}")]


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        return Check(
            subject="Prefect server",
            state="warning",
            message="PREFECT_API_URL is not set: each command starts a temporary server of its own (10 s or more)",
            fix="Run `prefect server start`, and `export PREFECT_API_URL=http://127.0.0.1:4200/api`.",
        )
    try:
        reply = httpx.get(f"{url.rstrip('/')}/health", timeout=5.0)
        reply.raise_for_status()
    except httpx.HTTPError as error:
        return Check(
            subject="Prefect server",
            state="problem",
            message=f"{url} does not answer ({type(error).__name__})",
            fix="Start it, or correct PREFECT_API_URL.",
        )
    return Check(subject="Prefect server", state="ok", message=url)


def _ledger() -> list[Check]:
    try:
        ledger = open_workspace().ledger
        releases = ledger.releases()
        forgotten = [state for state in ledger.created_deployments() if state.is_open]
    except SlipwayError as error:
        return [Check(subject="ledger", state="problem", message=error.message, fix=error.fix)]
    open_releases = {release.id for release in releases if release.is_open}
    checks = [Check(subject="ledger", state="ok", message=f"{ledger.address} ({counted(len(releases), 'release')})")]
    checks += [
        Check(
            subject="deployment",
            state="warning",
            message=f"{state.name} on {state.target}, made for {state.release_id}, which was cut: it may cost money",
            fix="Give the same `slipway release` again, or delete the deployment.",
        )
        for state in forgotten
        if state.release_id in open_releases
    ]
    return checks


def _target(name: str) -> Check:
    try:
        path = find_config(ConfigKind.TARGET, name)
        target = load_target(path)
        tenant = asyncio.run(reach_target(target, path.stem))
        return Check(subject=f"target {name}", state="ok", message=f"reached, as {tenant}")
    except SlipwayError as error:
        return Check(subject=f"target {name}", state="problem", message=error.message, fix=error.fix)
