"""One pass over the bytes: the digest, and what is not finite or all zero."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from slipway.errors import StoreError
from slipway.hashing import BLOCK_BYTES, OverlappedHash, hash_file
from slipway.scan import scan_file
from slipway.tensors import Header, read_header


def scanned(path):
    header = read_header(path)
    assert isinstance(header, Header), header
    return scan_file(path, header)


def written(tmp_path, parts):
    """Write ``name: (dtype, bytes)`` one after the other, aligned to nothing."""
    header, data = {}, b""
    for name, (dtype, content) in parts.items():
        width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
        span = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": [len(content) // width], "data_offsets": span}
        data += content
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


PATTERNS = {
    "F64": ("<u8", 0x7FF0000000000000, 0xFFF8000000000000, 0x7FEFFFFFFFFFFFFF, 1 << 63),
    "F32": ("<u4", 0x7F800000, 0xFFC00000, 0x7F7FFFFF, 1 << 31),
    "F16": ("<u2", 0x7C00, 0xFE00, 0x7BFF, 1 << 15),
    "BF16": ("<u2", 0x7F80, 0xFFC0, 0x7F7F, 1 << 15),
    "F8_E5M2": ("u1", 0x7C, 0xFE, 0x7B, 1 << 7),
    "F8_E4M3": ("u1", 0x7F, 0xFF, 0x7E, 1 << 7),
}


@pytest.mark.parametrize("dtype", PATTERNS)
def test_infinity_nan_largest_number_and_minus_zero_of_each_format(tmp_path, dtype):
    kind, infinity, nan, largest, minus_zero = PATTERNS[dtype]

    def tensor(*bits):
        return dtype, np.array(bits, kind).tobytes()

    path = written(
        tmp_path,
        {
            "infinity": tensor(0, infinity, 0),
            "nan": tensor(0, 0, nan),
            "largest": tensor(largest, 1),
            "zero": tensor(0, minus_zero),
            "tiny": tensor(0, 1),
        },
    )
    scan = scanned(path)
    assert scan.nonfinite == ("infinity", "nan")
    assert scan.zero == ("zero",)
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_integers_are_hashed_and_not_judged(tmp_path):
    path = written(tmp_path, {"codes": ("U8", b"\xff" * 9), "zero": ("I8", b"\0")})
    scan = scanned(path)
    assert (scan.nonfinite, scan.zero) == ((), ())
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensor_without_elements_is_not_zero(tmp_path):
    save_file({"none": np.zeros((0, 3), "<f4"), "one": np.ones(1, "<f4")}, tmp_path / "x.safetensors")
    assert scanned(tmp_path / "x.safetensors").zero == ()


@pytest.mark.parametrize("at", [0, 1, BLOCK_BYTES // 4 - 1, BLOCK_BYTES // 4, 3 * BLOCK_BYTES // 4 + 7])
def test_single_nan_is_found_wherever_blocks_end(tmp_path, at):
    array = np.zeros(3 * BLOCK_BYTES // 4 + 8, "<f4")
    array[at] = np.nan
    save_file({"before": np.ones(3, "<f4"), "x": array, "y": np.ones(3, "<f4")}, tmp_path / "x.safetensors")
    scan = scanned(tmp_path / "x.safetensors")
    assert (scan.nonfinite, scan.zero) == (("x",), ())


@pytest.mark.parametrize("shift", [1, 2, 3, 5, 7])
def test_no_element_is_cut_in_two_where_tensors_are_not_aligned(tmp_path, shift):
    """A halved element would hide a NaN, or make one up."""
    doubles = np.full(2 * BLOCK_BYTES // 8, 1.5, "<f8")
    doubles[BLOCK_BYTES // 8 - 1] = np.inf
    halves = np.full(BLOCK_BYTES, 0x0102, "<u2")
    path = written(
        tmp_path,
        {"pad": ("U8", b"\xff" * shift), "f64": ("F64", doubles.tobytes()), "f16": ("F16", halves.tobytes())},
    )
    scan = scanned(path)
    assert (scan.nonfinite, scan.zero) == (("f64",), ())
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_that_got_shorter_since_its_header_was_read_is_an_error(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": np.ones(10, "<f4")}, path)
    header = read_header(path)
    with path.open("r+b") as file:
        file.truncate(header.file_size_bytes - 4)
    with pytest.raises(StoreError, match="shorter"):
        scan_file(path, header)


def test_hash_of_a_whole_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert hash_file(tmp_path / "x") == (hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(StoreError, match="cannot be read"):
        hash_file(tmp_path / "missing")


def test_hashing_thread_ends_also_when_the_caller_fails():
    with pytest.raises(RuntimeError), OverlappedHash():
        raise RuntimeError
    assert not [thread for thread in threading.enumerate() if thread.name == "slipway-sha256"]


@pytest.mark.parametrize(("dtype", "kind"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8")])
def test_norms_agree_with_numpy(tmp_path, dtype, kind):
    random = np.random.default_rng(0)
    arrays = {
        "a": random.standard_normal(3 * BLOCK_BYTES // 8),
        "tiny": np.full(7, 6e-8),
        "large": np.full(5, 6e4),
        "zero": np.zeros(4),
    }
    kinds = {name: array.astype(kind) for name, array in arrays.items()}
    path = written(tmp_path, {name: (dtype, array.tobytes()) for name, array in kinds.items()})
    expected = {name: float(np.linalg.norm(array.astype(np.float64))) for name, array in kinds.items()}
    norms = scanned(path).norms
    assert norms == pytest.approx(expected, rel=0.03)
    assert {name: norms[name] for name in ("tiny", "large", "zero")} == pytest.approx(
        {name: expected[name] for name in ("tiny", "large", "zero")}, rel=1e-5
    )


def test_norm_of_bfloat16_is_that_of_its_numbers(tmp_path):
    numbers = np.random.default_rng(0).standard_normal(1000).astype("<f4")
    bits = (numbers.view("<u4") >> 16).astype("<u2")
    path = written(tmp_path, {"x": ("BF16", bits.tobytes())})
    expected = np.linalg.norm((bits.astype("<u4") << 16).view("<f4").astype(np.float64))
    assert scanned(path).norms == pytest.approx({"x": expected}, rel=1e-5)


def test_what_is_not_finite_or_has_8_bits_has_no_norm(tmp_path):
    path = written(
        tmp_path,
        {
            "nan": ("F32", np.array([1, np.nan], "<f4").tobytes()),
            "eight": ("F8_E4M3", b"\x01"),
            "code": ("U8", b"\x01"),
        },
    )
    assert scanned(path).norms == {}


def test_norm_too_large_for_single_precision_is_infinite_and_raises_nothing(tmp_path):
    path = written(tmp_path, {"x": ("F32", np.full(9, 3e38, "<f4").tobytes())})
    assert scanned(path).norms == {"x": np.inf}
