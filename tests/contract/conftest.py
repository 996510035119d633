"""Shared by the contract tests: servers in threads on free ports, and an engine that is quick and predictable."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from sandbox.lorax.api import create_app
from sandbox.lorax.contract import (
    AdapterError,
    AdapterRequest,
    EngineInfo,
    Finished,
    FinishReason,
    GenerationRequest,
    Token,
)
from sandbox.lorax.http_settings import ServerSettings

PAD, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
"""Token ids of ``SpellingEngine``: three special ones, then one for each byte."""

SPELLING_INFO = EngineInfo(
    model_id="spelling/base",
    dtype="float32",
    device="cpu",
    max_input_length=62,
    max_total_tokens=64,
    max_slots=8,
)


@dataclass(kw_only=True)
class SpellingEngine:
    """An engine that continues the alphabet after the prompt's last letter and ends after "z".

    With an adapter the letters are upper case. Some adapter ids misbehave: ``missing/..`` cannot be had, ``broken/..``
    fails after two tokens, ``nan/..`` has NaN log probabilities, ``silent/..`` ends without a word, and ``slow/..``
    takes a second for each token.
    """

    info: EngineInfo = SPELLING_INFO
    has_chat_template: bool = True
    end_is_special: bool = True
    fails: bool = False
    is_running: bool = False
    cancelled: int = 0
    requests: list[GenerationRequest] = field(default_factory=list)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [BOS] * add_special_tokens + [byte + FIRST_BYTE for byte in text.encode()]

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool) -> list[tuple[int, str, int, int]]:
        start = [(BOS, "<s>", 0, 0)] if add_special_tokens else []
        return start + [(ord(letter) + FIRST_BYTE, letter, at, at + 1) for at, letter in enumerate(text)]

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> str:
        if not self.has_chat_template:
            raise ValueError("template not found")
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finished, None]:
        self.requests.append(request)
        name = ",".join(request.adapter.ids) if request.adapter else ""
        if name.startswith("missing/"):
            raise AdapterError(f"No valid adapter config file found: tried None and None for {name}")
        if self.fails:
            raise RuntimeError("CUDA out of memory")
        try:
            async for event in self._spell(request, name):
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def _spell(self, request: GenerationRequest, name: str) -> AsyncGenerator[Token | Finished, None]:
        chance = random.Random(request.sampling.seed)
        last, text, count = chr(request.input_ids[-1] - FIRST_BYTE).lower(), "", 0
        reason = None
        while reason is None:
            await asyncio.sleep(1.0 if name.startswith("slow/") else 0)
            if name.startswith("broken/") and count == 2:
                raise RuntimeError("No suitable kernel")
            if name.startswith("silent/") and count == 2:
                return
            ended = last == "z" and not request.ignore_eos_token
            letter = chr((ord(last) - ord("a") + 1) % 26 + ord("a"))
            if request.sampling.do_sample:
                letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
            last, count = letter, count + 1
            shown = "</s>" if ended else (letter.upper() if name else letter)
            text += "" if ended else shown
            logprob = math.nan if name.startswith("nan/") else -ord(letter) / 100
            yield Token(
                id=EOS if ended else ord(shown) + FIRST_BYTE,
                text=shown,
                logprob=logprob,
                special=ended and self.end_is_special,
                alternatives=tuple((FIRST_BYTE + at, chr(at), -9.0) for at in range(request.alternatives)),
            )
            if count == request.max_new_tokens:
                reason = FinishReason.LENGTH
            elif ended:
                reason = FinishReason.EOS_TOKEN
            elif any(text.endswith(stop) for stop in request.stop):
                reason = FinishReason.STOP_SEQUENCE
        prefill = tuple(
            (token, chr(max(token - FIRST_BYTE, 0)), -0.5 if at else math.nan)
            for at, token in enumerate(request.input_ids)
        )
        yield Finished(
            reason=reason,
            text=text,
            generated_tokens=count,
            queue_ms=3.9,
            inference_ms=20.0,
            prefill=prefill if request.prefill_logprobs else (),
        )

    def reference_logprobs(self, adapter: AdapterRequest | None, input_ids: list[int]) -> list[float]:
        if adapter is not None and adapter.ids[0].startswith("missing/"):
            raise AdapterError("No local weights found")
        return [-0.25 if adapter else -0.5] * (len(input_ids) - 1)

    def gauges(self) -> dict[str, float]:
        return {
            "queue_length": 0.0,
            "batch_size": 0.0,
            "batch_max_tokens": 0.0,
            "adapters_resident": 2.0,
            "adapter_bytes": 512.0,
        }

    def start(self) -> None:
        self.is_running = True

    def stop(self) -> None:
        self.is_running = False


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port in a thread; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server stopped while it started"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(scope="session")
def serve() -> Callable[[Any], contextlib.AbstractContextManager[str]]:
    """Serve an ASGI application for the length of a ``with`` block."""
    return serving


@pytest.fixture(scope="session")
def spelling_engine() -> type[SpellingEngine]:
    """The class of the predictable engine, for tests that need one of their own."""
    return SpellingEngine


@dataclass(frozen=True, kw_only=True)
class SpellingServer:
    """A LoRAX-compatible server over a ``SpellingEngine``."""

    url: str
    engine: SpellingEngine


@pytest.fixture(scope="session")
def spelling_server() -> Iterator[SpellingServer]:
    """One server with LoRAX's default limits, shared by all tests that do not look at its counts."""
    engine = SpellingEngine()
    with serving(create_app(engine, ServerSettings())) as url:
        yield SpellingServer(url=url, engine=engine)
