"""When an adapter is to be fitted."""

from __future__ import annotations

from slipway.findings import Fix, InspectionVerdict, Severity
from slipway.inspection import Inspection

__all__ = ["wants_fit"]


def wants_fit(inspection: Inspection) -> bool:
    """Whether fitting would mend something worse than a note, and nothing stands that it cannot mend."""
    return inspection.verdict is not InspectionVerdict.REFUSED and any(
        finding.fix is Fix.FIT and finding.severity is not Severity.NOTE for finding in inspection.findings
    )
