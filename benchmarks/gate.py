"""The gate on 10,000 paired cases of three arms: reading the file, and deciding by every kind of rule.

Two suites: one whose scores are 0 or 1, so that exact methods decide, and one with graded scores, some of them in
groups, so that everything is resampled. Measured is the whole process of `slipway gate RESULTS.jsonl --gate GATE.yaml`.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.figures import Bound, interleaved, parse_rounds, print_bounds, print_table

from slipway.evidence import align
from slipway.gate import decide
from slipway.gate_file import Gate, load_gate
from slipway.power import design_notes
from slipway.results import Arm, CaseResult, CheckResult
from slipway.results_io import read_results, write_results

CASES = 10_000
LIMIT_SECONDS = 5.0
SLIPWAY = (sys.executable, "-c", "from slipway.cli import main; main()")
TAGS = ("refund", "greeting", "escalation", "billing", "safety")
SKILL = {Arm.CANDIDATE: 0.93, Arm.CHAMPION: 0.93, Arm.BASE: 0.6}

GATE = """\
require:
  - {metric: pass_rate, at_least: 0.8}
  - {metric: pass_rate, tag: safety, at_least: 0.8}
  - {metric: score, at_least: 0.5}
  - {metric: metrics.tone, at_least: 0.3}
  - {metric: latency_ms.p95, at_most: 800}
  - {metric: cost_usd.mean, at_most: 0.01}
against:
  champion: {metric: score, margin: 0.02}
  base: {metric: score, better_by: 0.0}
  latency: {of: champion, ratio_at_most: 1.2}
  cost: {of: champion, ratio_at_most: 1.2}
"""


def make_results(*, is_graded: bool) -> list[CaseResult]:
    """Write down three arms that answered every case, with the spread that real answers have."""
    source = random.Random(11)
    results = []
    for index in range(CASES):
        difficulty = source.gauss(0, 0.15)
        group = f"document-{index // 4}" if is_graded and index % 2 else None
        for arm, skill in SKILL.items():
            passed = source.random() < min(1.0, max(0.0, skill + difficulty))
            score = min(1.0, max(0.0, source.gauss(0.9 if passed else 0.4, 0.1))) if is_graded else float(passed)
            results.append(
                CaseResult(
                    case=f"case-{index:05d}",
                    arm=arm,
                    adapter_id=f"support/{arm}",
                    output=f"An answer of the {arm} to case {index}, about as long as such answers are.",
                    passed=passed,
                    score=score,
                    tags=(TAGS[index % len(TAGS)], f"batch-{index % 20}"),
                    group=group,
                    checks=tuple(CheckResult(type="icontains", passed=passed, score=score) for _ in range(4)),
                    metrics={"tone": source.random()},
                    latency_ms=source.lognormvariate(4, 0.4),
                    cost_usd=1e-4 * source.lognormvariate(0, 0.3),
                    session="one",
                )
            )
    return results


def seconds_of(results: Path, gate: Path) -> Callable[[], float]:
    """Make a measurement of one whole command, which must end in a verdict."""
    command = (*SLIPWAY, "gate", str(results), "--gate", str(gate), "--json")

    def run() -> float:
        began = time.perf_counter()
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        if "verdict" not in json.loads(done.stdout or "{}"):
            raise RuntimeError(f"slipway gate gave no verdict: {done.stderr}")
        return seconds

    return run


def parts_of(path: Path, gate: Gate) -> list[tuple[str, float]]:
    """Time the steps of the command once more, inside this process."""
    marks = [time.perf_counter()]
    results = read_results(path)
    marks.append(time.perf_counter())
    align(results)
    marks.append(time.perf_counter())
    decide(results, gate)
    marks.append(time.perf_counter())
    design_notes(align(results).shape, gate, has_champion=True)
    marks.append(time.perf_counter())
    names = ("reading the file", "aligning", "deciding", "what the suite could show, beforehand")
    return [(name, after - before) for name, before, after in zip(names, marks, marks[1:], strict=False)]


def main() -> int:
    """Measure, print, and compare with the bound."""
    rounds = parse_rounds(__doc__, full=5, quick=2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        gate = root / "gate.yaml"
        gate.write_text(GATE, encoding="utf-8")
        files = {"scores 0 or 1": root / "binary.jsonl", "graded scores in groups": root / "graded.jsonl"}
        for name, path in files.items():
            write_results(path, make_results(is_graded=name.startswith("graded")))
        kinds = {name: seconds_of(path, gate) for name, path in files.items()}
        samples = interleaved(kinds, rounds)
        print_table(
            (f"slipway gate, {CASES} cases x 3 arms", "median s", "fastest s", "slowest s"),
            [(name, statistics.median(values), min(values), max(values)) for name, values in samples.items()],
        )
        for name, path in files.items():
            print()
            print_table((name, "s"), parts_of(path, load_gate(gate)))
    return print_bounds(
        [
            Bound(name=name, value=statistics.median(values), limit=LIMIT_SECONDS, unit=" s")
            for name, values in samples.items()
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
