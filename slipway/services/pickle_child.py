"""Run as a script, by ``services.pickles`` alone: read one pickle of tensors and write them as safetensors.

    python -I pickle_child.py PICKLE SAFETENSORS MEMORY_BYTES CPU_SECONDS FILE_BYTES

Imports nothing of Slipway, so that it needs no path to it. Everything that a pickle could want is taken away before it
is opened: memory, time, disk, other processes, the network. ``weights_only`` is torch's own reader of pickles, which
builds tensors and refuses everything else. Exits 3 without torch, 4 with the reason on stderr for a refused pickle.
"""

import json
import resource
import sys
from typing import Any, NoReturn

NO_TORCH = 3
REFUSED = 4
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.putenv",
    "pty.",
    "shutil.",
    "ctypes.",
    "urllib.",
    "webbrowser.",
)
"""Beginnings of audit events (https://docs.python.org/3/library/audit_events.html) that tensors never cause."""

DTYPES = {
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.float32": "F32",
    "torch.float64": "F64",
}


def main(pickle: str, target: str, memory: str, cpu: str, size: str) -> None:
    """Convert one file."""
    try:
        import torch  # noqa: PLC0415  # needs more memory and files than what follows is allowed
    except ImportError:
        sys.exit(NO_TORCH)
    torch.set_num_threads(1)
    with open(pickle, "rb") as source, open(target, "wb") as output:  # noqa: PTH123  # no more imports than needed
        _confine(int(memory), int(cpu), int(size))
        try:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
            _write(_tensors(loaded, torch), output, torch)
        except MemoryError:
            _refuse("it needs more memory than its size explains")
        except Exception as error:  # noqa: BLE001  # whatever a hostile file causes is a refusal
            _refuse(f"{type(error).__name__}: {error}")


def _confine(memory: int, cpu: int, size: int) -> None:
    """Take away what is not needed. Memory is counted from here on, as torch itself has taken much already."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        used = int(statm.read().split()[0]) * resource.getpagesize()
    spent = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 1
    for kind, limit in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CPU, spent + cpu),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event.startswith(FORBIDDEN):
            raise PermissionError(f"reading tensors needs no {event}")

    sys.addaudithook(audit)


def _tensors(loaded: object, torch: Any) -> dict[str, Any]:  # noqa: ANN401  # imported late
    if not isinstance(loaded, dict) or not loaded:
        _refuse("it holds no dictionary of tensors")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            _refuse("it holds something else than plain tensors by name")
        if str(value.dtype) not in DTYPES:
            _refuse(f"it holds {value.dtype}, and not floats of 16 bits or more")
    return loaded


def _write(tensors: dict[str, Any], output: Any, torch: Any) -> None:  # noqa: ANN401
    """Write safetensors: eight bytes of length, JSON, the numbers."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype = DTYPES[str(tensor.dtype)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    output.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        output.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(reason[:500])
    sys.stderr.flush()
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
