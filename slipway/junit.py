"""Recorded results as JUnit XML, for CI systems. Pure.

One test suite per arm; a failed case is a failure, a missing answer is skipped: the instrument failed, not the adapter.
Checks that could not be applied are named in the output of their case.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from slipway.results import Arm, CaseResult

__all__ = ["junit_xml"]

ILLEGAL = dict.fromkeys([*range(0x20), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF])
"""What XML 1.0 cannot hold (https://www.w3.org/TR/xml/#charsets), with halves of characters cut in two."""
for _allowed in (0x9, 0xA, 0xD):
    ILLEGAL.pop(_allowed)


def junit_xml(title: str, results: Sequence[CaseResult]) -> str:
    """Render results. Characters that XML 1.0 cannot hold are left out."""
    root = ET.Element("testsuites", name=_clean(title))
    for arm in Arm:
        of_arm = [result for result in results if result.arm is arm]
        if not of_arm:
            continue
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"{_clean(title)} ({arm})",
            tests=str(len(of_arm)),
            failures=str(sum(result.passed is False for result in of_arm)),
            errors="0",
            skipped=str(sum(result.error is not None for result in of_arm)),
            time=f"{sum(result.latency_ms or 0.0 for result in of_arm) / 1000:.3f}",
        )
        for result in of_arm:
            _add_case(suite, result)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ET.Element, result: CaseResult) -> None:
    seconds = (result.latency_ms or 0.0) / 1000
    case = ET.SubElement(suite, "testcase", name=_clean(result.case), classname=str(result.arm), time=f"{seconds:.3f}")
    if result.error is not None:
        ET.SubElement(case, "skipped", message=_clean(result.error))
    elif result.passed is False:
        reasons = [check.reason or check.type for check in result.checks if check.passed is False]
        failure = ET.SubElement(case, "failure", message=_clean("; ".join(reasons) or "below the case's threshold"))
        failure.text = _clean(result.output)
    gaps = [f"not applied: {check.type}: {check.reason}" for check in result.checks if check.passed is None]
    if gaps:
        ET.SubElement(case, "system-out").text = _clean("\n".join(gaps))


def _clean(text: str) -> str:
    return text.translate(ILLEGAL)
