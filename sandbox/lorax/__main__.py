"""Serve one base model: ``python -m sandbox.lorax --model-dir DIR --model-id ID --port N``.

Prints one line, ``ready http://HOST:PORT``, on standard output when requests are answered; everything else goes to
standard error. TERM and INT stop the server with exit code 0: running sequences end, then the process does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from sandbox.lorax.api import EngineLifecycle, create_app
from sandbox.lorax.http_settings import ADAPTER_SOURCES, ServerSettings

if TYPE_CHECKING:
    from sandbox.lorax.contract import Engine

__all__ = ["main"]

PARENT_POLL_SECONDS = 0.25
SHUTDOWN_SECONDS = 2
"""How long open requests may take to end after the engine has stopped."""

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that they and not the server close them."""


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, load the model and serve until a signal."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if options.exit_with_parent is not None:
        _exit_with_parent(options.exit_with_parent or os.getppid())
    settings = ServerSettings(
        default_adapter_source=options.adapter_source,
        max_concurrent_requests=options.max_concurrent_requests,
        max_best_of=options.max_best_of,
        max_stop_sequences=options.max_stop_sequences,
        preloaded_adapter_ids=tuple(options.preloaded_adapter_ids),
    )
    app = create_app(_load_engine(options), settings)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, lifecycle=app.state.lifecycle)
    # uvicorn raises the signal once more after its shutdown; its own handler makes that harmless, so the code is 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run()


class _Server(uvicorn.Server):
    """Says when it is ready, and stops the engine before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, *, lifecycle: EngineLifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the address with the port that was really taken."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"ready http://{self.config.host}:{port}", flush=True)  # noqa: T201  # the parent waits for this line

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End running sequences first: their requests then finish at once instead of using up the grace time."""
        await asyncio.to_thread(self._lifecycle.stop)
        await super().shutdown(sockets)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.lorax", description="A LoRAX-compatible server.")
    parser.add_argument("--model-dir", type=Path, required=True, help="directory of the base model")
    parser.add_argument("--model-id", required=True, help="name of the base model, as adapters and clients know it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000, help="0 takes a free port")
    parser.add_argument("--adapter-source", choices=ADAPTER_SOURCES, default="hub", help="for requests that name none")
    parser.add_argument("--adapter-memory-bytes", type=_positive, default=1 << 30, help="bytes kept for adapters")
    parser.add_argument("--max-slots", type=_positive, default=64, help="sequences in one batch")
    parser.add_argument("--max-concurrent-requests", type=_positive, default=1024)
    parser.add_argument("--max-best-of", type=_positive, default=2)
    parser.add_argument("--max-stop-sequences", type=_positive, default=4)
    parser.add_argument("--max-input-length", type=_positive, help="tokens; one less than the total by default")
    parser.add_argument("--max-total-tokens", type=_positive, help="tokens of prompt and answer together")
    parser.add_argument(
        "--preloaded-adapter-ids", nargs="+", default=[], help="loaded at the start; all other adapters are refused"
    )
    parser.add_argument("--strict", action="store_true", help="refuse adapters that LoRAX serves wrongly in silence")
    parser.add_argument("--threads", type=_positive, default=1, help="torch threads; one is best for tiny models")
    parser.add_argument(
        "--exit-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="stop when the parent dies; PID says who that is and closes the gap before this process looks",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _load_engine(options: argparse.Namespace) -> Engine:
    # Torch takes seconds to import; a wrong command line must not wait for it.
    from sandbox.lorax.engine import TorchEngine  # noqa: PLC0415

    return TorchEngine(
        options.model_dir,
        model_id=options.model_id,
        threads=options.threads,
        max_slots=options.max_slots,
        adapter_budget_bytes=options.adapter_memory_bytes,
        max_input_length=options.max_input_length,
        max_total_tokens=options.max_total_tokens,
        default_source=options.adapter_source,
        strict=options.strict,
    )


def _exit_with_parent(parent: int) -> None:
    """Stop this process when ``parent`` is no longer its parent: politely first, for sure a little later."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SHUTDOWN_SECONDS + 3)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    main()
