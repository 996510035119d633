"""Grading 10,000 recorded outputs with 4 deterministic assertions each, without a model.

Measured is the whole process of `slipway grade SUITE OUTPUTS.jsonl --json`: starting, reading and verifying the suite,
grading, printing. Three suites: texts only; a mix with one `javascript` and one `is-json` with a schema; and one in
which every assertion is `javascript`, which has no bound. Memory is the peak of the whole process.

    python benchmarks/grading.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.figures import Bound, interleaved, parse_rounds, print_bounds, print_table

from slipway.checks import Check, Subject, grade, prepare
from slipway.configs import ConfigKind, find_config
from slipway.grading import grade_outputs
from slipway.suite import load_suite

CASES = 10_000
LIMIT_SECONDS = 10.0
LIMIT_BYTES = 600 << 20
SLIPWAY = (sys.executable, "-c", "from slipway.cli import main; main()")

SCHEMA = """{type: object, required: [id, total, lines], properties: {
          id: {type: integer}, total: {type: number, minimum: 0},
          lines: {type: array, items: {type: object, required: [sku], properties: {sku: {type: string}}}}}}"""
SUITES: Mapping[str, str] = {
    "texts": """
    - {type: contains, value: total}
    - {type: not-icontains, value: As an AI}
    - {type: starts-with, value: "{"}
    - {type: regex, value: 'order-\\d+'}
    """,
    "a mix with javascript and a schema": f"""
    - type: is-json
      value: {SCHEMA}
    - {{type: javascript, value: 'JSON.parse(output).lines.length === 2 && context.vars.number >= 0'}}
    - {{type: icontains, value: 'order-{{{{number}}}}'}}
    - {{type: levenshtein, value: nothing like it, threshold: 1000}}
    """,
    "javascript only": """
    - {type: javascript, value: 'output.length > 10'}
    - {type: javascript, value: 'JSON.parse(output).total > 0'}
    - {type: javascript, value: '/order-\\d+/.test(output)'}
    - {type: javascript, value: "const found = JSON.parse(output); found.lines.every(line => line.sku)"}
    """,
}
HEAD = """description: benchmark
prompts: ["Invoice of order-{{number}}"]
tests: tests.jsonl
defaultTest:
  assert:"""
TYPES: Mapping[str, Check] = {
    "contains": Check(type="contains", value="total"),
    "regex": Check(type="regex", value=r"order-\d+"),
    "is-json with a schema": Check(type="is-json", value=SCHEMA),
    "contains-json": Check(type="contains-json"),
    "javascript": Check(type="javascript", value="JSON.parse(output).lines.length === 2"),
    "levenshtein": Check(type="levenshtein", value="nothing like it"),
    "rouge-n": Check(type="rouge-n", value="an order of two lines and its total"),
    "bleu": Check(type="bleu", value="an order of two lines and its total"),
    "is-refusal": Check(type="is-refusal"),
    "is-xml": Check(type="is-xml"),
    "contains-html": Check(type="contains-html"),
    "is-sql": Check(type="is-sql"),
}
REPEATS = 500


def make_output(number: int) -> str:
    """Give an answer of about 400 characters, as a model for invoices gives."""
    lines = [{"sku": f"sku-{number}-{line}", "text": "a thing that was ordered, " * 3} for line in range(2)]
    return json.dumps({"id": number, "name": f"order-{number}", "total": number * 1.5 + 1, "lines": lines})


def write_files(folder: Path) -> tuple[dict[str, Path], Path]:
    """Write the suites, their tests and the outputs."""
    tests = [json.dumps({"vars": {"number": number}}) for number in range(CASES)]
    (folder / "tests.jsonl").write_text("\n".join(tests), encoding="utf-8")
    suites = {}
    for index, (name, assertions) in enumerate(SUITES.items()):
        suites[name] = folder / f"suite-{index}.yaml"
        suites[name].write_text(f"{HEAD}{assertions}\n", encoding="utf-8")
    outputs = folder / "outputs.jsonl"
    lines = [json.dumps({"test": number, "output": make_output(number), "latency_ms": 12.5}) for number in range(CASES)]
    outputs.write_text("\n".join(lines), encoding="utf-8")
    return suites, outputs


def seconds_of(suite: Path, outputs: Path, peaks: list[int], processor: list[float]) -> Callable[[], float]:
    """Make a measurement of one whole command, in which every case must pass; notes memory and processor time too."""

    def run() -> float:
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            (*SLIPWAY, "grade", str(suite), str(outputs), "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate()
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        peaks.append(after.ru_maxrss * 1024)
        processor.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
        counts = json.loads(out or "{}").get("arms", {}).get("candidate", {})
        if counts.get("passed") != CASES:
            raise RuntimeError(f"slipway grade passed {counts} of {CASES}: {err.decode()}")
        return seconds

    return run


def parts_of(suite: Path, outputs: Path) -> list[tuple[str, float]]:
    """Time the steps of the command once more, inside this process."""
    began = time.perf_counter()
    loaded = load_suite(find_config(ConfigKind.SUITE, str(suite)), need_prompts=False)
    read = time.perf_counter()
    grade_outputs(loaded, outputs)
    return [("reading and verifying the suite", read - began), ("grading", time.perf_counter() - read)]


def micros_of(check: Check) -> float:
    """Time one check of one output, prepared and warm."""
    prepared, subject = prepare(check), Subject(output=make_output(7))
    grade([prepared], subject)
    began = time.perf_counter()
    for _ in range(REPEATS):
        grade([prepared], subject)
    return (time.perf_counter() - began) / REPEATS * 1e6


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=5, quick=2)
    peaks: list[int] = []
    processor: dict[str, list[float]] = {name: [] for name in SUITES}
    with tempfile.TemporaryDirectory() as folder:
        suites, outputs = write_files(Path(folder))
        kinds = {name: seconds_of(path, outputs, peaks, processor[name]) for name, path in suites.items()}
        samples = interleaved(kinds, rounds)
        print_table(
            (f"slipway grade, {CASES} outputs x 4 assertions", "median s", "fastest s", "slowest s", "processor s"),
            [
                (name, statistics.median(values), min(values), max(values), statistics.median(processor[name]))
                for name, values in samples.items()
            ],
        )
        for name, path in suites.items():
            print()
            print_table((name, "s"), parts_of(path, outputs))
    print()
    print_table(
        ("one check of one output", "microseconds"), [(name, micros_of(check)) for name, check in TYPES.items()]
    )
    return print_bounds(
        [
            *(
                Bound(name=name, value=statistics.median(values), limit=LIMIT_SECONDS, unit=" s")
                for name, values in samples.items()
                if name != "javascript only"
            ),
            Bound(name="peak memory", value=max(peaks) / 2**20, limit=LIMIT_BYTES / 2**20, unit=" MB"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
