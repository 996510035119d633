"""How the tests are dealt out to the workers of pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest

ONE_WORKER = ("tests/orchestration/", "tests/contract/cli/", "tests/contract/ledger/")
"""Directories whose tests share servers that take seconds to start: one worker runs each. Longest first, and what is
short last, so that the workers end together.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid))  # stable: a file's tests keep their order


def _place(nodeid: str) -> int:
    order = (*ONE_WORKER, "tests/contract/", "tests/")
    return next((place for place, start in enumerate(order) if nodeid.startswith(start)), len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """``--dist loadfile`` with whole directories for some files; ``--no-loadscope-reorder`` keeps the order above."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((start for start in ONE_WORKER if nodeid.startswith(start)), super()._split_scope(nodeid))

    return Scheduling(config, log)
