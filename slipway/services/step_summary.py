"""The summary of a step in GitHub Actions: Markdown appended to the file that ``GITHUB_STEP_SUMMARY`` names.

Other CI systems that read the same variable (Gitea, Forgejo) work alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["VARIABLE", "append_step_summary"]

VARIABLE = "GITHUB_STEP_SUMMARY"

MAX_BYTES = 1024 * 1024
"""Of one step; GitHub drops a longer summary whole:
https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#step-isolation-and-limits"""

logger = logging.getLogger(__name__)


def append_step_summary(markdown: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Append to the step's summary, if there is one; says whether it did.

    A summary is a courtesy: one that cannot be written, or would be too long, is logged and fails nothing.

    Args:
        markdown: With secrets masked already.
        environ: Where the variable is looked up.
    """
    name = environ.get(VARIABLE, "").strip()
    if not name:
        return False
    path, text = Path(name), f"{markdown.rstrip()}\n\n".encode("utf-8", "replace")
    try:
        if (path.stat().st_size if path.exists() else 0) + len(text) > MAX_BYTES:
            logger.warning("The step's summary would exceed 1 MiB, so nothing was added to it.")
            return False
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        logger.warning("The step's summary cannot be written to %s: %s.", path, error.strerror)
        return False
    return True
