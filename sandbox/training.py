"""Train the sandbox's adapters with PEFT: ``python -m sandbox.training [--out DIR] [--base DIR] [--only NAME ...]``.

Two worker processes of one torch thread each do the work; this process plans, shows progress on stderr and keeps the
cache, ``$SLIPWAY_HOME/adapters/<recipe digest>/NAME``. An adapter appears there complete or not at all.
``training.json`` beside the adapters holds how each came about and its measured accuracy. The last line on stdout is
the directory that holds one folder per adapter.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.queues import Queue
from pathlib import Path
from types import FrameType

from sandbox.recipes import DERIVATIONS, RECIPES, Derivation, Recipe, TrainingRecord
from sandbox.training_progress import Display, choose_display

__all__ = ["ADAPTER_NAMES", "BASE_DIRECTORY", "cache_directory", "main", "train_adapters"]

BASE_DIRECTORY = Path(__file__).parent / "base_model"
ADAPTER_NAMES = tuple(sorted(job.name for job in (*RECIPES, *DERIVATIONS)))
WORKERS = 2
POLL_SECONDS = 0.1
RECORDS = "training.json"
SOURCES = ("corpus.py", "finetuning.py", "modelling.py", "recipes.py", "suites.py")
"""Modules that decide what an adapter becomes: a change in any of them empties the cache."""

_reports: Queue[tuple[str, int, float]] | None = None
"""In a worker: where it tells how far it is."""


def main(arguments: list[str] | None = None) -> int:
    """Train what is not cached and print the directory. Returns 1 when training fails, 2 when the request is wrong."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.training", description="Train the sandbox's adapters.")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="copy the adapters here (default: leave them in the cache)"
    )
    parser.add_argument(
        "--base", type=Path, metavar="DIR", default=BASE_DIRECTORY, help="base model (default: the shipped)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=ADAPTER_NAMES, default=ADAPTER_NAMES, help=", ".join(ADAPTER_NAMES)
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not (options.base / "config.json").is_file():
        parser.error(f"{options.base} is not a base model: it has no config.json")
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    home = Path(os.environ.get("SLIPWAY_HOME") or ".slipway")
    try:
        with choose_display() as display:
            directory = train_adapters(home, options.base, options.only, display=display, workers=options.workers)
            if options.out is not None:
                directory = _copy_out(directory, options.out, options.only)
    except (RuntimeError, OSError) as error:
        print(f"training failed: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return 1
    print(directory.resolve())  # noqa: T201 - the command's output
    return 0


def cache_directory(home: Path, base: Path) -> Path:
    """Name the directory of all adapters by what they are made from: the base's files and our own sources."""
    digest = hashlib.sha256()
    ours = [Path(__file__).with_name(name) for name in SOURCES]
    for path in (*sorted(path for path in base.iterdir() if path.is_file()), *ours):
        digest.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n".encode())
    return home / "adapters" / digest.hexdigest()[:16]


def train_adapters(home: Path, base: Path, names: Sequence[str], *, display: Display, workers: int = WORKERS) -> Path:
    """Bring the named adapters into the cache, and those that they are derived from, and return their directory.

    Safe to run from several processes at once: one trains, the others wait and find its results.

    Raises:
        sandbox.finetuning.TrainingError: An adapter did not reach its accuracy.
        concurrent.futures.process.BrokenProcessPool: A worker was killed.
        OSError: The cache cannot be written.
    """
    directory = cache_directory(home, base)
    directory.mkdir(parents=True, exist_ok=True)
    wanted = set(names) | {job.origin for job in DERIVATIONS if job.name in names}
    with _lock(directory):
        records = _read_records(directory)
        ready = {name for name in wanted if name in records and (directory / name).is_dir()}
        for name in sorted(ready):
            display.begin(name, "cached", 0)
            display.finish(name, f"cached, {records[name].summary}")
        if ready != wanted:
            for leftover in directory.glob(".*.partial"):
                shutil.rmtree(leftover)
            _Session(directory, base, records, display).run(wanted - ready, workers)
    return directory


class _Session:
    """One run of the workers over the adapters that are due."""

    def __init__(self, directory: Path, base: Path, records: dict[str, TrainingRecord], display: Display) -> None:
        self._directory = directory
        self._base = base
        self._records = records
        self._display = display
        self._running: dict[Future[TrainingRecord], str] = {}

    def run(self, due: set[str], workers: int) -> None:
        """Train the recipes among ``due``, and derive from each as soon as it is ready."""
        recipes = [recipe for recipe in RECIPES if recipe.name in due]
        derivations = [derivation for derivation in DERIVATIONS if derivation.name in due]
        for recipe in recipes:
            self._display.begin(recipe.name, recipe.purpose, recipe.steps)
        for derivation in derivations:
            self._display.begin(derivation.name, derivation.purpose, 0)
        context = multiprocessing.get_context("spawn")
        reports: Queue[tuple[str, int, float]] = context.Queue()
        with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(reports,)) as pool:
            try:
                for recipe in recipes:
                    self._submit(pool, recipe.name, _finetune, recipe, self._base)
                self._submit_derivations(pool, [job for job in derivations if job.origin not in due])
                while self._running:
                    done, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                    self._show(reports)
                    for future in done:
                        name = self._running.pop(future)
                        self._keep(name, future.result())
                        self._submit_derivations(pool, [job for job in derivations if job.origin == name])
            except BaseException:
                # half a minute of training that nobody waits for must not outlive the command
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise

    def _submit(
        self, pool: ProcessPoolExecutor, name: str, work: Callable[..., TrainingRecord], *arguments: object
    ) -> None:
        self._running[pool.submit(work, *arguments, self._partial(name))] = name

    def _submit_derivations(self, pool: ProcessPoolExecutor, derivations: Sequence[Derivation]) -> None:
        for job in derivations:
            origin = self._directory / job.origin
            self._submit(pool, job.name, _derive, job, origin, self._records[job.origin])

    def _show(self, reports: Queue[tuple[str, int, float]]) -> None:
        while not reports.empty():
            self._display.advance(*reports.get())

    def _keep(self, name: str, record: TrainingRecord) -> None:
        """Publish a finished adapter: its record first, so that a folder without one is never taken for complete."""
        self._records[name] = record
        _write_records(self._directory, self._records)
        shutil.rmtree(self._directory / name, ignore_errors=True)
        self._partial(name).rename(self._directory / name)
        self._display.finish(name, record.summary)

    def _partial(self, name: str) -> Path:
        return self._directory / f".{name}.partial"


def _begin_worker(reports: Queue[tuple[str, int, float]]) -> None:
    global _reports  # noqa: PLW0603 - a pool hands a queue to its workers only here
    _reports = reports
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported; everything they need is local
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - a worker has one

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _finetune(recipe: Recipe, base: Path, out: Path) -> TrainingRecord:
    from sandbox.finetuning import finetune  # noqa: PLC0415 - torch is for workers only

    def report(step: int, loss: float) -> None:
        if _reports is not None:
            _reports.put((recipe.name, step, loss))

    return finetune(recipe, base, out, on_progress=report)


def _derive(derivation: Derivation, origin: Path, record: TrainingRecord, out: Path) -> TrainingRecord:
    from sandbox.finetuning import derive  # noqa: PLC0415 - torch is for workers only

    return derive(derivation, origin, out, record)


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_records(directory: Path) -> dict[str, TrainingRecord]:
    path = directory / RECORDS
    if not path.is_file():
        return {}
    return {name: TrainingRecord(**fields) for name, fields in json.loads(path.read_text()).items()}


def _write_records(directory: Path, records: dict[str, TrainingRecord]) -> None:
    partial = directory / f".{RECORDS}.new"
    fields = {name: asdict(record) for name, record in records.items()}
    partial.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    partial.replace(directory / RECORDS)


def _copy_out(cache: Path, out: Path, names: Sequence[str]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        partial = out / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(cache / name, partial)
        shutil.rmtree(out / name, ignore_errors=True)
        partial.rename(out / name)
    records = _read_records(cache)
    _write_records(out, {name: records[name] for name in names})
    return out


def _end_on_term(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_on_term)
    sys.exit(main())
