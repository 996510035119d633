"""How fast an adapter is inspected: 8B-shaped, rank 16, all seven projections of 32 layers, bfloat16, 84 MB.

Against SHA-256 over the same file by ``hashlib``, against ``PeftModel.from_pretrained`` onto a base of the same shape
on torch's meta device, and, with the page cache emptied of the file, against a plain read of it. Interleaved, medians
and medians of paired ratios. Memory is the peak above what the imports need, in a process of its own.

    python benchmarks/inspect_adapter.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness.figures import Bound, interleaved, paired_ratio, parse_rounds, print_bounds, print_table

from slipway.adapter import AdapterFile, Bundle, bundle_digest
from slipway.base_model import BaseModel
from slipway.base_shapes import derive_modules
from slipway.hashing import hash_file
from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile

SHA_RATIO = 1.3
COLD_RATIO = 2.0
PEFT_SPEEDUP = 5.0
MEMORY_BYTES = 50 << 20
PROCESS_SECONDS = 0.6

RANK = 16
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
BASE_ID = "org/8b"
TYPES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import inspect_adapter as here
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
before = peak()
bundle, base, profile = here.bundle_of(Path(sys.argv[1])), here.base_model(), here.find_profile("lorax-0.12")
here.inspect_bundle(bundle, base, profile)
print(peak() - before)
"""


def base_model() -> BaseModel:
    """The base that the adapter is for."""
    return BaseModel(
        id=BASE_ID,
        model_type="llama",
        architectures=("LlamaForCausalLM",),
        hidden_size=4096,
        layers=32,
        vocab_size=128256,
        modules=derive_modules(CONFIG),
    )


def write_adapter(directory: Path) -> Path:
    """Write the adapter as PEFT does, with random numbers of the usual size."""
    random = np.random.default_rng(0)
    header, blocks, offset = {}, [], 0
    for path, (rows, columns) in (derive_modules(CONFIG) or {}).items():
        if path != "lm_head":
            for side, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
                numbers = random.standard_normal(shape, np.float32) * 0.01
                blocks.append((numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                name = f"base_model.model.{path}.lora_{side}.weight"
                end = offset + len(blocks[-1])
                header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
                offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE_ID, "r": RANK,
        "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none", "target_modules": list(TYPES),
    }  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return directory


def bundle_of(directory: Path) -> Bundle:
    """Take a directory as a bundle, as the store would."""
    files = []
    for path in sorted(directory.iterdir()):
        digest, size = hash_file(path)
        files.append(AdapterFile(name=path.name, size_bytes=size, sha256=digest))
    name = bundle_digest(files)
    return Bundle(digest=name, directory=directory, files=tuple(files), uri=str(directory), resolved_revision=name)


def timed(work: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Callable[[], float]:
    """Give the seconds that a call takes, whatever has to be done before it."""

    def run() -> float:
        before()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


def hash_plainly(path: Path) -> str:
    """SHA-256 in the way of hashlib's documentation."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_plainly(path: Path) -> None:
    """Read a file and do nothing with it."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peft_loader(directory: Path) -> Callable[[], float]:
    """Load the adapter onto a fresh base of the meta device; only the loading is timed."""
    import torch  # noqa: PLC0415  # these three would be in the memory that is measured in another process
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    torch.set_num_threads(os.cpu_count() or 1)
    config = AutoConfig.for_model(**CONFIG)

    def run() -> float:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PeftModel.from_pretrained(model, str(directory))
        return time.perf_counter() - began

    return run


def peak_memory(directory: Path) -> int:
    """Bytes that an inspection needs above what its imports do."""
    command = [sys.executable, "-c", MEMORY, str(directory), str(Path(__file__).parent)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def whole_process(directory: Path, home: Path) -> Callable[[], float]:
    """`slipway inspect PATH` from start to exit."""
    command = [sys.executable, "-c", "from slipway.cli import main; main()", "inspect", str(directory)]
    environment = {**os.environ, "SLIPWAY_HOME": str(home)}
    return timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=15, quick=5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        directory = write_adapter(root / "adapter")
        weights = directory / "adapter_model.safetensors"
        bundle, base, profile = bundle_of(directory), base_model(), find_profile("lorax-0.12")
        findings = inspect_bundle(bundle, base, profile).findings
        if findings:
            raise SystemExit(f"the adapter is not what it should be: {findings}")
        memory = peak_memory(directory)
        warm = interleaved(
            {
                "inspect": timed(lambda: inspect_bundle(bundle, base, profile)),
                "hashlib": timed(lambda: hash_plainly(weights)),
            },
            rounds,
        )
        cold = interleaved(
            {
                "inspect, cold": timed(lambda: inspect_bundle(bundle, base, profile), before=lambda: forget(weights)),
                "read, cold": timed(lambda: read_plainly(weights), before=lambda: forget(weights)),
            },
            rounds,
        )
        peft = interleaved(
            {
                "inspect, beside PEFT": timed(lambda: inspect_bundle(bundle, base, profile)),
                "PeftModel, meta device": peft_loader(directory),
            },
            max(3, rounds // 3),
        )
        small = root / "small"
        small.mkdir()
        (small / "adapter_config.json").write_bytes((directory / "adapter_config.json").read_bytes())
        _write_small(small / "adapter_model.safetensors")
        processes = interleaved({"slipway inspect PATH": whole_process(small, root / "home")}, max(3, rounds // 2))
        samples = {**warm, **cold, **peft, **processes}
        print_table(
            ("what", "median s", "fastest s", "slowest s"),
            [(name, statistics.median(values), min(values), max(values)) for name, values in samples.items()],
        )
    return print_bounds(
        [
            Bound(
                name="inspect over hashlib, warm", value=paired_ratio(warm["inspect"], warm["hashlib"]), limit=SHA_RATIO
            ),
            Bound(
                name="inspect over plain read, cold",
                value=paired_ratio(cold["inspect, cold"], cold["read, cold"]),
                limit=COLD_RATIO,
            ),
            Bound(
                name="inspect over PeftModel",
                value=paired_ratio(peft["inspect, beside PEFT"], peft["PeftModel, meta device"]),
                limit=1 / PEFT_SPEEDUP,
            ),
            Bound(
                name="peak memory above imports", value=memory / (1 << 20), limit=MEMORY_BYTES / (1 << 20), unit=" MiB"
            ),
            Bound(
                name="slipway inspect PATH, whole process",
                value=statistics.median(processes["slipway inspect PATH"]),
                limit=PROCESS_SECONDS,
                unit=" s",
            ),
        ]
    )


def _write_small(path: Path) -> None:
    """One layer of it: what is measured with it is the process, not the bytes."""
    header, offset = {}, 0
    for kind in TYPES:
        for side, shape in (("A", (RANK, 256)), ("B", (256, RANK))):
            end = offset + 2 * RANK * 256
            name = f"base_model.model.model.layers.0.self_attn.{kind}.lora_{side}.weight"
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x01\x3c" * (offset // 2))


if __name__ == "__main__":
    sys.exit(main())
