"""Lines that are appended as they come."""

from __future__ import annotations

import asyncio
import resource
from contextlib import contextmanager

import pytest

from slipway.errors import StoreError
from slipway.services.line_writer import FLUSH_BYTES, FLUSH_SECONDS, LineWriter


async def test_nothing_is_made_before_there_is_a_line(tmp_path):
    with LineWriter(tmp_path / "a" / "lines", header=b"head"):
        pass
    assert not (tmp_path / "a").exists()


async def test_lines_are_there_a_moment_later(tmp_path):
    path = tmp_path / "a" / "lines"
    with LineWriter(path, header=b"head") as writer:
        writer.add(b"one")
        writer.add(b"two")
        await asyncio.sleep(3 * FLUSH_SECONDS)
        assert path.read_bytes() == b"head\none\ntwo\n"


async def test_a_large_batch_does_not_wait(tmp_path):
    with LineWriter(tmp_path / "lines") as writer:
        writer.add(b"x" * FLUSH_BYTES)
        assert (tmp_path / "lines").stat().st_size == FLUSH_BYTES + 1


async def test_closing_writes_what_waits_and_leaves_no_timer(tmp_path):
    with LineWriter(tmp_path / "lines") as writer:
        writer.add(b"one")
    assert (tmp_path / "lines").read_bytes() == b"one\n"
    await asyncio.sleep(2 * FLUSH_SECONDS)


async def test_a_torn_last_line_is_ended_and_the_header_is_written_once(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"head\none\ntw")
    with LineWriter(path, header=b"head") as writer:
        writer.add(b"three")
    assert path.read_bytes() == b"head\none\ntw\nthree\n"


async def test_two_writers_do_not_tear_each_others_lines(tmp_path):
    with LineWriter(tmp_path / "lines") as first, LineWriter(tmp_path / "lines") as second:
        for number in range(200):
            (first if number % 2 else second).add(b"%04d" % number * 50)
            if number % 7 == 0:
                await asyncio.sleep(0.01)
    lines = (tmp_path / "lines").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%04d" % number * 50 for number in range(200))


async def test_no_file_tells_of_what_the_one_before_it_has_not_got(tmp_path):
    first = LineWriter(tmp_path / "first")
    with first, LineWriter(tmp_path / "second", after=(first,)) as second:
        second.add(b"one")
        await asyncio.sleep(FLUSH_SECONDS / 2)
        first.add(b"one")  # its own turn comes after the second's
        while not (tmp_path / "second").exists():
            await asyncio.sleep(0.001)
        assert (tmp_path / "first").read_bytes() == b"one\n"


async def test_a_failure_of_a_timer_is_told_by_the_next_call(tmp_path):
    (tmp_path / "file").write_text("in the way")
    writer = LineWriter(tmp_path / "file" / "lines")
    writer.add(b"one")
    await asyncio.sleep(2 * FLUSH_SECONDS)
    with pytest.raises(StoreError, match="cannot be written"):
        writer.add(b"two")
    with pytest.raises(StoreError):
        writer.close()


@contextmanager
def room_for(size_bytes):
    """No file may be longer, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size_bytes", [10, 12, 14, 15, 19])
async def test_a_full_disk_leaves_whole_lines(tmp_path, size_bytes):
    """What could be written can be read: the line that there was no room for is not there at all."""
    path = tmp_path / "lines"
    path.write_bytes(b"zero\n")
    writer = LineWriter(path)
    writer.add(b"four")
    writer.add(b"nine")
    writer.add(b"more")
    with room_for(size_bytes):
        writer.flush()
    with pytest.raises(StoreError, match="cannot be written"):
        writer.close()
    assert path.read_bytes() == b"zero\nfour\nnine\n"[: size_bytes // 5 * 5]


async def test_the_first_error_of_a_block_is_the_one_that_counts(tmp_path):
    (tmp_path / "file").write_text("in the way")

    def fail_with(writer):
        with writer:
            writer.add(b"one")
            raise KeyError

    with pytest.raises(KeyError):
        fail_with(LineWriter(tmp_path / "file" / "lines"))
