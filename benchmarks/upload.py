"""How fast a large adapter is uploaded and in how much memory, against ``curl -T`` of the same file to the same place.

Puts 500 MB to presigned addresses of a local control plane: with curl, with our client's ``put_file``, and as the whole
``publish`` of the backend with its ledger; interleaved, medians of five. Memory is the peak of a fresh process that
publishes 50 MB and of one that publishes 500 MB.

    python benchmarks/upload.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.adapters import BASE_ID, WEIGHTS_NAME, write_large_adapter
from harness.figures import Bound, interleaved, paired_ratio, parse_rounds, print_bounds, print_table
from harness.servers import ControlPlane, control_plane
from pydantic import SecretStr

from slipway.adapter import Bundle
from slipway.services.backends.predibase import PredibaseBackend
from slipway.services.ledger_store import Ledger
from slipway.services.local import LocalSource
from slipway.services.predibase import PredibaseClient
from slipway.services.store import BundleStore
from slipway.targets import Target
from slipway.uri import parse_adapter_uri

LARGE_BYTES, SMALL_BYTES = 500_000_000, 50_000_000
LEAST_RATE = 0.9
MOST_GROWTH_MB = 50.0
REPOSITORY = "upload"


class Uploads:
    """The ways to get the weights of one bundle to the control plane. Each returns its seconds."""

    def __init__(self, plane: ControlPlane, bundle: Bundle, root: Path) -> None:
        self._plane = plane
        self._bundle = bundle
        self._weights = bundle.directory / WEIGHTS_NAME
        self._root = root

    def curl(self) -> float:
        """``curl -T``, by its own clock, which does not count its start."""
        url, headers = asyncio.run(self._slot())
        command = ["curl", "--silent", "--show-error", "--fail", "--upload-file", str(self._weights)]
        command += [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
        command += ["--output", "/dev/null", "--write-out", "%{time_total}", url]
        seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self._forget()
        return seconds

    def put_file(self) -> float:
        """One call of our client."""
        url, headers = asyncio.run(self._slot())

        async def put() -> float:
            async with self._client() as client:
                began = time.perf_counter()
                await client.put_file(url, self._weights, headers)
                return time.perf_counter() - began

        seconds = asyncio.run(put())
        self._forget()
        return seconds

    def publish(self) -> float:
        """All three steps and what the ledger keeps of them; a ledger that knows the bundle would send nothing."""
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            ledger = new_ledger(Path(folder))
            began = time.perf_counter()
            publish(self._plane, self._bundle, ledger)
            seconds = time.perf_counter() - began
        self._forget()
        return seconds

    def _client(self) -> PredibaseClient:
        return PredibaseClient(self._plane.url, SecretStr(self._plane.token))

    async def _slot(self) -> tuple[str, dict[str, str]]:
        async with self._client() as client:
            await client.create_repo(REPOSITORY)
            slot = await client.start_upload(REPOSITORY)
        return slot.presigned_urls[WEIGHTS_NAME], dict(slot.required_headers)

    def _forget(self) -> None:
        """Delete what arrived, so that the disk is not written to during the next run."""
        for received in self._plane.state.glob(f"adapters/*/{WEIGHTS_NAME}"):
            received.unlink()


def new_ledger(home: Path) -> Ledger:
    """Make a ledger in ``home``, with its tables."""
    return Ledger(f"sqlite:///{home / 'ledger.db'}")


def publish(plane: ControlPlane, bundle: Bundle, ledger: Ledger) -> None:
    """Publish a bundle as a release does."""
    target = Target.model_validate(
        {"kind": "sandbox", "gateway": plane.url, "serving": plane.url, "bases": {BASE_ID: {}}}
    )

    async def run() -> None:
        async with PredibaseBackend(target, "sandbox", ledger, token=SecretStr(plane.token)) as backend:
            await backend.publish(bundle, repository=REPOSITORY, description="benchmark")

    asyncio.run(run())


def peak_mb(plane: ControlPlane, bundle: Bundle, home: Path) -> float:
    """Publish, and return the peak resident memory of this process, which is to be a fresh one."""
    publish(plane, bundle, new_ledger(home))
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss begins at the size of the process that started this one
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def pull(root: Path, size_bytes: int) -> Bundle:
    """Write an adapter of this size and take it into a store."""
    directory = write_large_adapter(root / f"adapter-{size_bytes}", size_bytes)
    store = BundleStore(root=root / "bundles")
    return asyncio.run(LocalSource().pull(parse_adapter_uri(str(directory)), store))


def peak_of_fresh_process(plane: ControlPlane, bundle: Bundle, root: Path) -> float:
    """As ``peak_mb``, in a new interpreter."""
    with tempfile.TemporaryDirectory(dir=root) as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_mb, (plane, bundle, Path(folder)))


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=5, quick=2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small, large = pull(root, SMALL_BYTES), pull(root, LARGE_BYTES)
        with control_plane(root) as plane:
            uploads = Uploads(plane, large, root)
            kinds = {"curl -T": uploads.curl, "put_file": uploads.put_file, "publish": uploads.publish}
            samples = interleaved(kinds, rounds)
            peaks = [peak_of_fresh_process(plane, bundle, root) for bundle in (small, large)]
    rates = {name: LARGE_BYTES / 1e6 / statistics.median(values) for name, values in samples.items()}
    ratios = {name: paired_ratio(samples["curl -T"], values) for name, values in samples.items()}
    print_table(
        ("upload of 500 MB", "median s", "MB/s", "rate to curl's"),
        [(name, statistics.median(samples[name]), f"{rates[name]:.0f}", ratios[name]) for name in kinds],
    )
    print(f"\npeak memory: {peaks[0]:.0f} MB when publishing 50 MB, {peaks[1]:.0f} MB when publishing 500 MB")
    return print_bounds(
        [
            Bound(name="rate of put_file to curl's", value=ratios["put_file"], limit=LEAST_RATE, at_least=True),
            Bound(name="rate of publish to curl's", value=ratios["publish"], limit=LEAST_RATE, at_least=True),
            Bound(name="growth of the peak", value=peaks[1] - peaks[0], limit=MOST_GROWTH_MB, unit=" MB"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
