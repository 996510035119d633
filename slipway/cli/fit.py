"""`slipway fit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.markup import escape

from slipway.adapter import Bundle
from slipway.base_model import BaseModel, resolve_base
from slipway.cli.output import print_json, stderr, stdout
from slipway.cli.progress_bar import showing_bars
from slipway.configs import ConfigKind, config_directory
from slipway.findings import Fix, InspectionVerdict, Severity
from slipway.fit.wanted import wants_fit
from slipway.inspection import Inspection, inspect_bundle
from slipway.profiles import DEFAULT_PROFILE, find_profile
from slipway.rules import ServerProfile
from slipway.server_facts import ServerFacts
from slipway.services.export import export_bundle
from slipway.services.fitting import Fitted, Refused, fit_bundle
from slipway.services.sources import source_for
from slipway.services.workspace import open_store
from slipway.uri import parse_adapter_uri

__all__ = ["fit"]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What came of it: a bundle to write, and a proof if it is another one; or the reasons against it."""

    original: Bundle
    bundle: Bundle | None = None
    fitted: Fitted | None = None
    reasons: tuple[str, ...] = ()


async def fit(
    adapter: str,
    /,
    *,
    base: str,
    out: Path,
    tensor_parallel: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))] = 1,
    dtype: Literal["bfloat16", "float16"] | None = None,
    profile: str = DEFAULT_PROFILE,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Rewrite an adapter so that the server computes what was trained, and prove it. Exits 1 when that cannot be done.

    Args:
        adapter: A path, `hf://ORG/NAME@REVISION`, `s3://BUCKET/PREFIX/` or `pbase://REPO/TAG`.
        base: The base model that it is to be served on: a Hub id, a directory, or a JSON file of base facts.
        out: Directory to write; it must not be there yet.
        tensor_parallel: GPUs that share the model (`--num-shard` of LoRAX).
        dtype: Round all matrices to this format. This is lossy; without it every matrix keeps its own.
        profile: The server version whose rules the result must pass.
        as_json: Print one JSON document on stdout.
    """
    rules = find_profile(profile)
    uri = parse_adapter_uri(adapter)
    facts = resolve_base(base, bases_directory=config_directory() / ConfigKind.BASE)
    with showing_bars(stderr()):
        bundle = await source_for(uri).pull(uri, open_store())
    answer = _fit(bundle, facts, rules, ServerFacts(tensor_parallel=tensor_parallel), dtype)
    if answer.bundle is not None:
        export_bundle(answer.bundle, out)
    if as_json:
        print_json(_document(answer, out))
    else:
        _print(answer, out, stdout())
    return 0 if answer.bundle is not None else 1


def _fit(bundle: Bundle, base: BaseModel, rules: ServerProfile, server: ServerFacts, dtype: str | None) -> _Answer:
    """Inspect, fit what fitting can mend, and inspect again: nothing is called servable on the word of `fit` alone."""
    before = inspect_bundle(bundle, base, rules, server)
    if before.verdict is InspectionVerdict.REFUSED:
        return _Answer(original=bundle, reasons=_unmendable(before))
    if not wants_fit(before) and dtype is None:
        return _Answer(original=bundle, bundle=bundle)
    fitted = fit_bundle(bundle, base, open_store(), tensor_parallel=server.tensor_parallel, dtype=dtype)
    if isinstance(fitted, Refused):
        return _Answer(original=bundle, reasons=fitted.reasons)
    after = inspect_bundle(fitted.bundle, base, rules, server)
    if after.verdict is not InspectionVerdict.SERVABLE:
        return _Answer(original=bundle, reasons=after.reasons)
    return _Answer(original=bundle, bundle=fitted.bundle, fitted=fitted)


def _unmendable(inspection: Inspection) -> tuple[str, ...]:
    return tuple(
        f"{finding.where}: {finding.message}" if finding.where else finding.message
        for finding in inspection.findings
        if finding.severity is Severity.ERROR and finding.fix is not Fix.FIT
    )


def _document(answer: _Answer, out: Path) -> dict[str, object]:
    bundle, fitted = answer.bundle, answer.fitted
    return {
        "adapter": {"uri": answer.original.uri, "digest": answer.original.digest},
        "verdict": InspectionVerdict.REFUSED if bundle is None else InspectionVerdict.SERVABLE,
        "reasons": list(answer.reasons),
        "out": None if bundle is None else str(out),
        "digest": None if bundle is None else bundle.digest,
        "files": [] if bundle is None else [asdict(file) for file in bundle.files],
        "derived_from": None if fitted is None else fitted.derived_from,
        "changes": [] if fitted is None else list(fitted.changes),
        "proof": None if fitted is None else asdict(fitted.proof),
    }


def _print(answer: _Answer, out: Path, console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    line(f"[dim]adapter[/]      {escape(answer.original.uri)}")
    line(f"[dim]digest[/]       {answer.original.digest}")
    if answer.bundle is None:
        line("[bold red]refused[/]: there is no servable form with the same function")
        for reason in answer.reasons:
            line(f"  - {escape(reason)}")
        return
    if answer.fitted is None:
        line(f"[bold green]servable already[/]: copied unchanged to {escape(str(out))}")
        return
    for change in answer.fitted.changes:
        line(f"[dim]changed[/]      {escape(change)}")
    line(f"[dim]proof[/]        {escape(str(answer.fitted.proof))}")
    line(f"[dim]new digest[/]   {answer.bundle.digest}")
    line(f"[bold green]servable[/]: written to {escape(str(out))}")
