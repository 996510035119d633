"""Headers of safetensors files that were written by somebody else, or by nobody."""

from __future__ import annotations

import json
import random
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from slipway.errors import StoreError
from slipway.tensors import MAX_HEADER_BYTES, Header, HeaderProblem, HeaderProblemKind, Tensor, read_header, shown


def entry(start, end, *, dtype="U8", shape=None):
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def file_of(tmp_path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def problem_of(path):
    problem = read_header(path)
    assert isinstance(problem, HeaderProblem), problem
    return problem


def test_header_of_a_file_that_safetensors_wrote(tmp_path):
    arrays = {"a": np.zeros((2, 3), "<f4"), "b": np.zeros(5, "<f2"), "none": np.zeros((0, 4), "<f4")}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert isinstance(header, Header)
    assert header.metadata == {"format": "pt"}
    assert {(tensor.name, tensor.dtype, tensor.shape, tensor.elements) for tensor in header.tensors} == {
        ("a", "F32", (2, 3), 6),
        ("b", "F16", (5,), 5),
        ("none", "F32", (0, 4), 0),
    }
    assert {tensor.name: tensor.end - tensor.start for tensor in header.tensors} == {"a": 24, "b": 10, "none": 0}
    assert header.tensors[-1].end == header.file_size_bytes


def test_scalar_and_padding_are_allowed(tmp_path):
    header = read_header(file_of(tmp_path, b'{"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}   ', b"x"))
    assert isinstance(header, Header)
    assert header.tensors == (Tensor(name="s", dtype="U8", shape=(), start=63, end=64),)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", HeaderProblemKind.EMPTY),
        (b"1234567", HeaderProblemKind.TRUNCATED),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", HeaderProblemKind.LFS_POINTER),
        (b"\n <!DOCTYPE HTML><title>Sign in</title>", HeaderProblemKind.HTML),
        (b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl", HeaderProblemKind.PICKLE),
        (b"\x80\x02}q\0.abcdef", HeaderProblemKind.PICKLE),
        (b"GGUF\3\0\0\0\0\0\0\0", HeaderProblemKind.GGUF),
        (b"\xff" * 64, HeaderProblemKind.HEADER),
        ((2).to_bytes(8, "little") + b"{", HeaderProblemKind.TRUNCATED),
        ((0).to_bytes(8, "little"), HeaderProblemKind.HEADER),
    ],
)
def test_foreign_and_cut_files_are_named_for_what_they_are(tmp_path, content, kind):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert problem_of(path).kind is kind


def test_length_that_looks_like_a_pickle_is_still_a_length(tmp_path):
    """0x0280 is a fair length of a header, and also how a pickle of protocol 2 begins."""
    header = {"__metadata__": {"pad": ""}, "a": entry(0, 1)}
    header["__metadata__"]["pad"] = "x" * (0x0280 - len(json.dumps(header)))
    assert isinstance(read_header(file_of(tmp_path, header, b"x")), Header)


@pytest.mark.parametrize(
    ("header", "data", "kind", "words"),
    [
        (b"[]", b"", HeaderProblemKind.HEADER, "brace"),
        (b"{", b"", HeaderProblemKind.HEADER, "not JSON"),
        (b"{}}", b"", HeaderProblemKind.HEADER, "not JSON"),
        (b'{"\xff":1}', b"", HeaderProblemKind.HEADER, "UTF-8"),
        (b'{"a":' + b"[" * 100_000, b"", HeaderProblemKind.HEADER, "deeply"),
        (b'{"a":NaN}', b"", HeaderProblemKind.HEADER, "NaN"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", HeaderProblemKind.HEADER, "too long"),
        (b'{"a":{},"a":{}}', b"", HeaderProblemKind.HEADER, "'a' twice"),
        (
            b'{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}',
            b"x",
            HeaderProblemKind.HEADER,
            "'dtype' twice",
        ),
        (b'{"\\ud800":{}}', b"", HeaderProblemKind.HEADER, "Unicode"),
        ({"__metadata__": {"a": 1}}, b"", HeaderProblemKind.HEADER, "__metadata__"),
        ({"__metadata__": []}, b"", HeaderProblemKind.HEADER, "__metadata__"),
        ({"a": 1}, b"", HeaderProblemKind.HEADER, "not an object"),
        ({"a": {"dtype": "U8"}}, b"", HeaderProblemKind.HEADER, "not an object"),
        ({"a": entry(0, 1) | {"more": 1}}, b"x", HeaderProblemKind.HEADER, "not an object"),
        ({"a": entry(0, 1, dtype="U9")}, b"x", HeaderProblemKind.HEADER, "dtype"),
        ({"a": entry(0, 1, dtype=["U8"])}, b"x", HeaderProblemKind.HEADER, "dtype"),
        ({"a": entry(0, 1, shape=[-1])}, b"x", HeaderProblemKind.HEADER, "shape"),
        ({"a": entry(0, 1, shape=[True])}, b"x", HeaderProblemKind.HEADER, "shape"),
        ({"a": entry(0, 1, shape=[1.0])}, b"x", HeaderProblemKind.HEADER, "shape"),
        ({"a": entry(0, 1, shape=1)}, b"x", HeaderProblemKind.HEADER, "shape"),
        ({"a": entry(0, 1, shape=[1 << 40, 1 << 40, 0])}, b"x", HeaderProblemKind.HEADER, "counted"),
        ({"a": entry(0, 0, shape=[1 << 70])}, b"", HeaderProblemKind.HEADER, "shape"),
        ({"a": entry(0, 1, shape=[2])}, b"x", HeaderProblemKind.OFFSETS, "of its shape"),
        ({"a": entry(0, 3, dtype="F32", shape=[1])}, b"xxx", HeaderProblemKind.OFFSETS, "of its shape"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [2, 1]}}, b"x", HeaderProblemKind.OFFSETS, "range"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [-1, 0]}}, b"x", HeaderProblemKind.OFFSETS, "range"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"x", HeaderProblemKind.OFFSETS, "range"),
        ({"a": entry(0, 2), "b": entry(1, 3)}, b"xxx", HeaderProblemKind.OFFSETS, "overlaps"),
        ({"a": entry(0, 1), "b": entry(2, 3)}, b"xxx", HeaderProblemKind.OFFSETS, "gap"),
        ({"a": entry(1, 2)}, b"xx", HeaderProblemKind.OFFSETS, "gap"),
        ({"a": entry(0, 1)}, b"xx", HeaderProblemKind.OFFSETS, "follow"),
        ({"a": entry(0, 2)}, b"x", HeaderProblemKind.TRUNCATED, "need"),
    ],
)
def test_hostile_header_is_a_problem_with_a_name(tmp_path, header, data, kind, words):
    problem = problem_of(file_of(tmp_path, header, data))
    assert problem.kind is kind
    assert words in problem.message


def test_announced_length_is_bounded_before_anything_is_read(tmp_path):
    """The file is sparse, so its size does not stop us; the limit has to."""
    path = file_of(tmp_path, b"{}", length=MAX_HEADER_BYTES + 1)
    with path.open("r+b") as file:
        file.truncate(1 << 34)
    tracemalloc.start()
    try:
        assert problem_of(path).kind is HeaderProblemKind.HEADER
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_unreadable_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        read_header(tmp_path / "missing.safetensors")


def test_long_and_hostile_names_are_cut_and_quoted():
    assert shown("a" * 1000) == repr("a" * 100 + "...")
    assert shown("\x1b[31m") == r"'\x1b[31m'"


def test_mutated_headers_never_crash(tmp_path):
    """Whatever a file says, the answer is a header or a problem."""
    path = tmp_path / "x.safetensors"
    save_file({f"t{index}": np.ones((2, index + 1), "<f4") for index in range(6)}, path)
    original = path.read_bytes()
    rng = random.Random(7)
    problems = 0
    for _ in range(2000):
        mutated = bytearray(original)
        for _ in range(rng.randint(1, 6)):
            match rng.randrange(4):
                case 0:
                    mutated[rng.randrange(len(mutated))] = rng.randrange(256)
                case 1:
                    del mutated[rng.randrange(len(mutated)) :]
                case 2:
                    at = rng.randrange(len(mutated))
                    mutated[at:at] = rng.choice([b"[", b"{", b'"', b"-", b"9" * 30, b"\xff", b"null", b"1e999"])
                case _:
                    at = rng.randrange(len(mutated))
                    del mutated[at : at + rng.randrange(8)]
            mutated = mutated or bytearray(b"{")
        path.write_bytes(mutated)
        problems += isinstance(read_header(path), HeaderProblem)
    assert problems > 1000
