"""Render templates in a process of its own, which may be ended whatever it is doing.

Nothing inside a process bounds what one expression of Jinja2 computes: ``9**99999999`` is a single step. The process
has limits on processor time and memory, an empty environment, and lives as long as this one; it starts with the first
template that needs it, in about 0.1 s, and again after one that ran into a limit. Texts and variables cross as JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

__all__ = ["MEMORY_LIMIT_BYTES", "TIME_LIMIT_SECONDS", "LimitError", "RefusedError", "render_apart", "serve"]

TIME_LIMIT_SECONDS = 1.0
"""Of processor time, for one template; as scripts have it."""
MEMORY_LIMIT_BYTES = 2**30
"""Of addresses of the whole process, Python and Jinja2 included (about 0.1 GB). Not every system keeps to it."""

_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from slipway import template_process as t; t.serve()"
)


class LimitError(Exception):
    """A template needs more time or memory than there is; says so as a clause."""


class RefusedError(Exception):
    """The template cannot be filled in; says why."""


class _Renderer:
    """The process, seen from outside."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603  # our own module, found where we found it
            [sys.executable, "-I", "-c", _COMMAND, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,  # Ctrl-C is for us
        )
        atexit.register(self.close)

    def ask(self, question: object) -> Any:  # noqa: ANN401  # JSON
        """Send one question and wait for the answer; EOFError where the process ended instead."""
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None  # noqa: S101  # both are pipes
        assert answers is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            questions.write(json.dumps(question).encode() + b"\n")
            questions.flush()
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def close(self) -> int:
        """End the process if it has not ended, and give its exit code."""
        atexit.unregister(self.close)
        if self.owner != os.getpid():
            return 0  # that of the process that this one was forked from
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return self._process.wait()


_lock = threading.Lock()
_renderers: list[_Renderer] = []
"""At most one."""


def render_apart(text: str, variables: Mapping[str, object]) -> str:
    """Fill in one template, with limits.

    Args:
        text: The template.
        variables: What it names, as JSON has it.

    Raises:
        LimitError: It takes too long, or too much memory.
        RefusedError: As ``templates.render_here``; says why.
    """
    with _lock:
        if _renderers and _renderers[0].owner != os.getpid():
            _renderers.clear()
        if not _renderers:
            _renderers.append(_Renderer())
        try:
            answer = _renderers[0].ask([text, variables])
        except EOFError:
            code = _renderers.pop().close()
            if code == -signal.SIGPROF:
                raise LimitError(f"it takes more than {TIME_LIMIT_SECONDS:g} s of processor time") from None
            raise LimitError(f"the process that rendered it ended ({code}), as when memory runs out") from None
        except BaseException:  # interrupted: what it would say next answers an old question
            _renderers.pop().close()
            raise
    if "text" not in answer:
        raise RefusedError(answer["refused"])
    return str(answer["text"])


def serve() -> None:
    """Be the process: answer questions until there are no more."""
    import resource  # noqa: PLC0415  # the process alone needs it

    from slipway.templates import render, render_here  # noqa: PLC0415  # which imports this module

    render("{{ready}}!", {})  # imports Jinja2 while there are no limits
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, also in the middle of one step
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    questions: BinaryIO = sys.stdin.buffer
    for line in questions:
        signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_SECONDS)
        try:
            text, variables = json.loads(line)
            answer = {"text": render_here(text, variables)}
        except ValueError as error:
            answer = {"refused": str(error)}
        written = json.dumps(answer).encode() + b"\n"
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()
