"""The arrows of the layout: flows -> tasks -> slipway; the sandbox stands alone."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {"slipway", "tasks", "flows", "sandbox"}
MAY_IMPORT = {
    "slipway": set(),
    "tasks": {"slipway"},
    "flows": {"tasks", "slipway"},
    "sandbox": set(),
}
CLI = ROOT / "slipway" / "cli"
"""The outermost layer: it starts flows, and nothing imports it."""


@cache
def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules(layer: str) -> list[Path]:
    found = sorted((ROOT / layer).rglob("*.py"))
    assert found, f"no modules in {layer}: the test would pass for nothing"
    return found


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_arrows_run_one_way(layer):
    """A rule that could import a task, or a sandbox that could import a client, would make both untestable apart."""
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in modules(layer)
        if not path.is_relative_to(CLI)
        for name in imports_of(path)
        if (top := name.split(".")[0]) in LAYERS and top != layer and top not in MAY_IMPORT[layer]
    }
    assert not wrong


def test_the_domain_does_not_know_prefect():
    """Rules are read, typed and tested without a scheduler."""
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in modules("slipway")
        if not path.is_relative_to(CLI)
        for name in imports_of(path)
        if name.split(".")[0] == "prefect"
    }
    assert not wrong


def test_only_the_command_line_knows_the_command_line():
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for layer in LAYERS
        for path in modules(layer)
        if not path.is_relative_to(CLI)
        for name in imports_of(path)
        if name == "slipway.cli" or name.startswith("slipway.cli.")
    }
    assert not wrong


PURE = [
    "adapter",
    "answers",
    "bootstrap",
    "cases",
    "checks",
    "comparison",
    "concurrency",
    "cost",
    "coverage",
    "early_stop",
    "effective_size",
    "evaluation",
    "evidence",
    "findings",
    "gate",
    "gate_file",
    "gate_rules",
    "grading_queue",
    "history",
    "inspection",
    "javascript",
    "judg",
    "junit",
    "ledger",
    "live_proof",
    "lora",
    "paired_rates",
    "power",
    "progress",
    "prompts",
    "recording",
    "regressions",
    "report",
    "result_table",
    "results",
    "scoreboard",
    "sequential",
    "statistics",
    "suite",
    "templates",
    "tensors",
    "vectors",
]


def test_pure_rules_use_no_network_and_no_database():
    """What decides takes values and returns values."""
    forbidden = {"httpx", "requests", "sqlalchemy", "boto3", "huggingface_hub", "socket", "subprocess"}
    found = [path for name in PURE for path in (ROOT / "slipway").glob(f"{name}*")]
    paths = [module for path in found for module in ([path] if path.suffix == ".py" else path.rglob("*.py"))]
    assert len(paths) > 10
    wrong = {
        (path.name, name)
        for path in paths
        for name in imports_of(path)
        if name.split(".")[0] in forbidden or name.startswith("slipway.services")
    }
    assert not wrong


ORCHESTRATING = ["slipway.cli", "tasks.serving", "flows.release", "flows.rollback", "flows.rehearsal"]
HEAVY = ["torch", "transformers", "peft"]


def test_importing_does_not_load_torch():
    """A worker that only orchestrates need not carry gigabytes, and a command must start at once."""
    code = f"import importlib, sys\nfor name in {ORCHESTRATING}:\n    importlib.import_module(name)\n"
    code += f"    print(name, *sys.modules.keys() & {HEAVY})\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=120)
    assert done.stdout.decode().splitlines() == ORCHESTRATING  # and nothing after a name
