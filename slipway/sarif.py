"""Write an inspection as SARIF 2.1.0, the format in which code-review tools take findings.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from slipway import __version__
from slipway.adapter_config import CONFIG_NAME, MAX_CONFIG_BYTES
from slipway.errors import ConfigurationError
from slipway.findings import Finding, Fix
from slipway.inspection import Inspection
from slipway.rules import Rule, ServerProfile

__all__ = ["to_sarif", "write_sarif"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_ADAPTER: Final = "ADAPTER"
_HELP: Final = {
    Fix.FIT: "`slipway fit` mends it without changing what the adapter computes.",
    Fix.MANUAL: "It has to be mended where the adapter was trained or saved.",
    Fix.NONE: "There is nothing to be mended in the adapter.",
}


def to_sarif(inspection: Inspection, profile: ServerProfile) -> dict[str, Any]:
    """Give the document: one run, all rules of the profile, one result per finding.

    Args:
        inspection: The outcome.
        profile: The profile that it was made with.
    """
    index = {rule.code: number for number, rule in enumerate(profile.rules)}
    lines = _key_lines(inspection.bundle.directory / CONFIG_NAME)
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "slipway inspect",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [_rule(rule, profile) for rule in profile.rules],
                    }
                },
                "originalUriBaseIds": {_ADAPTER: {"uri": inspection.bundle.uri.rstrip("/") + "/"}},
                "artifacts": [
                    {
                        "location": _artifact(file.name),
                        "length": file.size_bytes,
                        "hashes": {"sha-256": file.sha256},
                    }
                    for file in inspection.bundle.files
                ],
                "results": [_result(finding, index, inspection, lines) for finding in inspection.findings],
                "properties": {
                    "profile": inspection.profile,
                    "prediction": inspection.prediction,
                    "verdict": inspection.verdict,
                    "digest": inspection.bundle.digest,
                },
            }
        ],
    }


def write_sarif(path: Path, inspection: Inspection, profile: ServerProfile) -> None:
    """Write the document to a file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    text = json.dumps(to_sarif(inspection, profile), indent=2, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.", fix="Give another file.") from error


def _rule(rule: Rule, profile: ServerProfile) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.summary},
        "help": {"text": f"{rule.summary} {_HELP[rule.fix]} Source: {profile.reference}: {rule.source}."},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"prediction": rule.prediction, "fix": rule.fix},
    }


def _result(finding: Finding, index: dict[str, int], inspection: Inspection, lines: dict[str, int]) -> dict[str, Any]:
    file, key = _place(finding, inspection)
    physical: dict[str, Any] = {"artifactLocation": _artifact(file)}
    if file == CONFIG_NAME:
        physical["region"] = {"startLine": lines.get(key, 1)}
    location: dict[str, Any] = {"physicalLocation": physical}
    if finding.where:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.where}]
    return {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": finding.severity,
        "message": {"text": finding.message},
        "locations": [location],
        "partialFingerprints": {"finding/v1": hashlib.sha256(f"{finding.code}\n{finding.where}".encode()).hexdigest()},
        "properties": {"prediction": finding.prediction, "fix": finding.fix},
    }


def _place(finding: Finding, inspection: Inspection) -> tuple[str, str]:
    """Find the file that a finding is about, and the config's key if it is about one."""
    names = [file.name for file in inspection.bundle.files]
    file, _, key = finding.where.partition(": ")
    named = next((name for name in names if name == file or repr(name) in finding.where), None)
    weights = next((name for name in names if name.endswith(".safetensors")), CONFIG_NAME)
    return named or weights, key.partition(",")[0]


def _artifact(name: str) -> dict[str, str]:
    return {"uri": quote(name), "uriBaseId": _ADAPTER}


def _key_lines(path: Path) -> dict[str, int]:
    """Give the 1-based line of every key at the beginning of a line; nothing for a file that is not there."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, colon, _ = line.strip().removeprefix("{").strip().partition(":")
        if colon and key.startswith('"'):
            found.setdefault(key.strip().strip('"'), number)
    return found
