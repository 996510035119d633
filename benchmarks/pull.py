"""How fast adapters are pulled, beside what the libraries do alone against the same servers on this machine.

Pairs are run one after the other, alternating who goes first, and the median of their ratios is printed. The libraries
only download; a pull also hashes, flushes to disk and names the bundle. Servers run in processes of their own: moto for
S3, and the stand-in of the tests for the Hub: once as fast as the loopback goes, and once paced at 400 MB/s, a network
of 3.2 Gbit/s. Unpaced its rate has no bound: SHA-256 decides it, as a core hashes hardly faster than the loopback is.

    python benchmarks/pull.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from harness.figures import Bound, interleaved, paired_ratio, print_bounds, print_table

from slipway.services.processes import ServerProcess, free_port
from slipway.services.sources import source_for
from slipway.services.store import BundleStore
from slipway.uri import parse_adapter_uri

STAND_IN = Path(__file__).parents[1] / "tests" / "contract" / "pull" / "hub_stand_in.py"
MB = 1_000_000
SIZES = {"1 MB": MB, "80 MB": 80 * MB, "2 GB": 2000 * MB}
RATED = "80 MB"
SOURCES = ("Hub", "S3")
UNPACED = "Hub"
LEAST_RATIO = 0.9
MOST_AGAIN_MS = 100.0
MOST_GROWTH_MB = 16.0

MEMORY = """
import asyncio, sys
from pathlib import Path
from slipway.services.sources import source_for
from slipway.services.store import BundleStore
from slipway.uri import parse_adapter_uri
uri = parse_adapter_uri(sys.argv[1])
asyncio.run(source_for(uri).pull(uri, BundleStore(root=Path(sys.argv[2]))))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
"""Linux's own peak of this process; getrusage's also counts the parent that it was forked from."""


def write_adapter(directory: Path, size_bytes: int) -> Path:
    """A config, and one bf16 tensor of random bytes as safetensors, written in blocks."""
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))
    header = json.dumps({"x": {"dtype": "BF16", "shape": [size_bytes // 2], "data_offsets": [0, size_bytes]}}).encode()
    random = np.random.default_rng(0)
    with (directory / "adapter_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for at in range(0, size_bytes, 1 << 24):
            file.write(random.bytes(min(1 << 24, size_bytes - at)))
    return directory


@contextlib.contextmanager
def serving_hub(directory: Path, _logs: Path, pace: str = "--pace=1000000") -> Iterator[None]:
    """The Hub's stand-in, named in the environment."""
    with subprocess.Popen(
        [sys.executable, STAND_IN, pace, f"org/adapter={directory}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        os.environ["HF_ENDPOINT"] = server.stdout.readline().strip()
        yield
        assert server.stdin is not None
        server.stdin.close()


def serving_paced_hub(directory: Path, logs: Path) -> contextlib.AbstractContextManager[None]:
    """The same, at the speed of a network."""
    return serving_hub(directory, logs, "--pace=400")


@contextlib.contextmanager
def serving_s3(directory: Path, logs: Path) -> Iterator[None]:
    """Moto with the adapter in it, named in the environment."""
    import boto3  # noqa: PLC0415  # its settings are in the environment by now

    port = free_port()
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with ServerProcess("moto", command, log=logs / "moto.log") as server:
        server.wait_until(lambda printed: "Running on" in printed, timeout_seconds=60)
        client = boto3.client("s3")
        client.create_bucket(Bucket="adapters")
        for path in directory.iterdir():
            client.upload_file(str(path), "adapters", f"team/a1/{path.name}")
        yield


def pull(address: str, store: Path) -> None:
    """What is measured."""
    uri = parse_adapter_uri(address)
    asyncio.run(source_for(uri).pull(uri, BundleStore(root=store)))


def download_from_hub(directory: Path) -> None:
    """``hf_hub_download`` alone, of both files."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # as below

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        hf_hub_download("org/adapter", name, cache_dir=directory, endpoint=os.environ["HF_ENDPOINT"])


def download_from_s3(directory: Path) -> None:
    """``download_file`` alone, of both files."""
    import boto3  # noqa: PLC0415  # its settings are in the environment by now

    directory.mkdir(parents=True)
    client = boto3.client("s3")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        client.download_file("adapters", f"team/a1/{name}", str(directory / name))


def seconds(work: Callable[[Path], None], scratch: Path) -> float:
    """Time one run into a directory of its own."""
    shutil.rmtree(scratch, ignore_errors=True)
    began = time.perf_counter()
    work(scratch)
    return time.perf_counter() - began


def again_ms(address: str, store: Path) -> float:
    """Time a pull of what is there."""
    began = time.perf_counter()
    pull(address, store)
    return 1000 * (time.perf_counter() - began)


def rate(name: str, address: str, alone: Callable[[Path], None], scratch: Path, rounds: int) -> list[Bound]:
    """Print the rates of a pull and of the library alone; give what is bounded."""
    kinds = {
        "pull": lambda: seconds(lambda directory: pull(address, directory), scratch),
        "library alone": lambda: seconds(alone, scratch),
    }
    for kind in kinds.values():  # imports, and the server's caches
        kind()
    samples = interleaved(kinds, rounds)
    print_table(
        (name, "MB/s, median", "MB/s, best"),
        [
            (kind, SIZES[RATED] / MB / statistics.median(values), SIZES[RATED] / MB / min(values))
            for kind, values in samples.items()
        ],
    )
    pull(address, scratch)
    again = statistics.median(again_ms(address, scratch) for _ in range(rounds))
    ratio = paired_ratio(samples["library alone"], samples["pull"])
    print(f"ratio of pairs {ratio:.3f}")
    rates = [
        Bound(name=f"{name}: rate of a pull to the library's alone", value=ratio, limit=LEAST_RATIO, at_least=True)
    ]
    return [
        *(rates if name != UNPACED else ()),
        Bound(name=f"{name}: unchanged pull again", value=again, limit=MOST_AGAIN_MS, unit=" ms"),
    ]


def peak_mb(address: str, store: Path) -> float:
    """Peak memory of a process that does nothing but pull."""
    shutil.rmtree(store, ignore_errors=True)
    done = subprocess.run([sys.executable, "-c", MEMORY, address, store], capture_output=True, text=True, check=True)
    shutil.rmtree(store)
    return float(done.stdout) / 1024


def main() -> int:
    """Run everything; 1 when a bound is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine, and nothing of 2 GB")
    is_quick = parser.parse_args().quick
    bounds: list[Bound] = []
    peaks: dict[tuple[str, str], float] = {}
    sizes = [label for label in SIZES if not (is_quick and label == "2 GB")]
    with tempfile.TemporaryDirectory(prefix="slipway-pull-") as name:
        root = Path(name)
        os.environ |= {"HF_HOME": str(root / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": ""}
        for label in sizes:
            adapter = write_adapter(root / "adapter", SIZES[label])
            for source, address, serve, alone in (
                ("Hub", "hf://org/adapter", serving_hub, download_from_hub),
                ("Hub at 400 MB/s", "hf://org/adapter", serving_paced_hub, download_from_hub),
                ("S3", "s3://adapters/team/a1", serving_s3, download_from_s3),
            ):
                with serve(adapter, root):
                    if label == RATED:
                        bounds += rate(source, address, alone, root / "out", 3 if is_quick else 9)
                    if source in SOURCES:
                        peaks[source, label] = peak_mb(address, root / "out")
            shutil.rmtree(adapter)
    print_table(
        ("peak memory, MB", *sizes),
        [(source, *(peaks[source, label] for label in sizes)) for source in SOURCES],
    )
    if not is_quick:
        bounds += [
            Bound(
                name=f"{source}: more memory for 2 GB than for 80 MB",
                value=peaks[source, "2 GB"] - peaks[source, RATED],
                limit=MOST_GROWTH_MB,
                unit=" MB",
            )
            for source in SOURCES
        ]
    return print_bounds(bounds)


if __name__ == "__main__":
    sys.exit(main())
