"""The report of one release: half a page of Markdown to read at once, and an HTML file to audit.

Pure: values in, text out. The flow fills ``ReportData`` with what it has; sections without content are left out.
"""

from slipway.report.data import CheckGap, FindingLine, FitLine, Note, ProofLine, ReportData
from slipway.report.figures import Figures
from slipway.report.html import render_html
from slipway.report.masking import masked
from slipway.report.summary import render_summary

__all__ = [
    "CheckGap",
    "Figures",
    "FindingLine",
    "FitLine",
    "Note",
    "ProofLine",
    "ReportData",
    "masked",
    "render_html",
    "render_summary",
]
