"""A LoRAX that does what it is told to and counts who asks, and the files of an evaluation against it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

OK: tuple[int, dict[str, str]] = (200, {})


@dataclass(kw_only=True)
class Stub:
    """Answers ``good`` to whatever it is asked.

    Attributes:
        seconds: That an answer takes.
        decide: Prompt, adapter and how often this was asked to a status and headers; status 0 breaks off the reply.
        output: The answer, given the prompt.
        error: What it says beside a status that is no success.
        asked: Every prompt with its adapter; the empty one is the base.
        most_in_flight: At once.
    """

    seconds: float = 0.0
    decide: Callable[[str, str, int], tuple[int, dict[str, str]]] = lambda _prompt, _adapter, _count: OK
    output: Callable[[str], str] = lambda _: "good"
    error: str = "not now"
    asked: list[tuple[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter(self.asked)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/info":
            await self._reply(send, 200, {"model_id": "stub/base", "model_dtype": "float16", "version": "0.12.1"}, {})
            return
        request = json.loads(body)
        adapter = request["parameters"].get("adapter_id") or ""
        self.asked.append((request["inputs"], adapter))
        status, headers = self.decide(request["inputs"], adapter, self.asked.count((request["inputs"], adapter)))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds if status == 200 else 0)
        finally:
            self.in_flight -= 1
        if status != 200:
            await self._reply(
                send, status or 200, {"error": self.error, "error_type": "overloaded"}, headers, status == 0
            )
            return
        text = self.output(request["inputs"])
        token = {"id": 7, "text": text, "logprob": -0.5, "special": False}
        details = {
            "finish_reason": "length", "prompt_tokens": 40, "generated_tokens": 10, "skipped_tokens": 0, "seed": None,
            "prefill": [], "tokens": [token],
        }  # fmt: skip
        times = {"x-queue-time": "1", "x-inference-time": "20", "x-time-per-token": "2", "x-total-time": "21"}
        await self._reply(send, 200, {"generated_text": text, "details": details}, times)

    async def _reply(self, send: Any, status: int, body: object, headers: dict[str, str], broken: bool = False) -> None:  # noqa: FBT001, FBT002
        content = json.dumps(body).encode()
        lines = {"content-type": "application/json", "content-length": str(len(content)), **headers}
        raw = [(name.encode(), value.encode()) for name, value in lines.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content[:5] if broken else content, "more_body": broken})


@pytest.fixture
def stub(serve: Callable[..., Any]) -> Iterator[Stub]:
    """A server for one test."""
    stub = Stub()
    with serve(stub) as url:
        stub.url = url
        yield stub


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where an evaluation's files are."""

    directory: Path

    @property
    def suite(self) -> Path:
        return self.directory / "suite.yaml"

    @property
    def target(self) -> Path:
        return self.directory / "stub.yaml"

    @property
    def out(self) -> Path:
        return self.directory / "results.jsonl"

    @property
    def answers(self) -> list[Path]:
        return sorted((self.directory / "home" / "answers").glob("*.jsonl"))

    def write_suite(self, cases: int, *, value: str = "good", repeat: int = 1) -> None:
        tests = [
            {
                "description": f"case {number}",
                "vars": {"n": number // repeat},
                "assert": [{"type": "equals", "value": value}],
            }
            for number in range(cases)
        ]
        self.suite.write_text(yaml.safe_dump({"prompts": ["prompt {{n}}"], "tests": tests}))

    def write_target(self, url: str, **settings: Any) -> None:
        target = {"kind": "lorax", "url": url, "bases": {"stub/base": {}}, "max_concurrency": 4, **settings}
        self.target.write_text(yaml.safe_dump(target))

    def recorded(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


@pytest.fixture
def files(tmp_path: Path, stub: Stub) -> Files:
    """A suite of ten cases, and a target that is the stub."""
    files = Files(directory=tmp_path)
    files.write_suite(10)
    files.write_target(stub.url)
    return files
