"""Run the control plane: ``python -m sandbox.control_plane --home DIR``. Prints ``ready URL`` once it serves."""

from __future__ import annotations

import argparse
import logging
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from sandbox.control_plane.app import create_app
from sandbox.control_plane.settings import BaseModel, BaseModels, ControlPlaneSettings, load_or_create_token
from sandbox.control_plane.store import HomeInUseError, Store
from sandbox.supervisor import exit_with_parent

__all__ = ["main"]

HOST = "127.0.0.1"
GRACEFUL_SHUTDOWN_SECONDS = 3


class _Server(uvicorn.Server):
    """A server that says when it serves."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            print(f"ready {self._url}", flush=True)  # noqa: T201 - the contract with whoever started us


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home: Path = options.home.resolve()
    try:
        store = Store(home)
        listener = _listen(options.port)
    except (HomeInUseError, OSError) as error:
        print(f"the control plane cannot start: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 2
    if options.exit_with_parent is not None:
        exit_with_parent(options.exit_with_parent)
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    settings = ControlPlaneSettings(
        home=home,
        token=load_or_create_token(home / "token"),
        url=url,
        base_models=BaseModels(options.base),
        strict=options.strict,
        **_given(options),
    )
    config = uvicorn.Config(
        create_app(settings, store),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        proxy_headers=False,
        server_header=False,
    )
    _Server(config, url).run(sockets=[listener])
    return 0


def _listen(port: int) -> socket.socket:
    """Open the port, on this machine only."""
    # asyncio switches Nagle's algorithm off only where a socket names its protocol, which socket.create_server does not
    # do; with it on, each reply to a kept connection waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.control_plane", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="directory of the state")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--base", type=_base, action="append", required=True, metavar="ID=DIR", help="a base model; may be repeated"
    )
    parser.add_argument("--strict", action="store_true", help="refuse adapters that LoRAX would drop or mis-scale")
    parser.add_argument("--serving-command", type=shlex.split, help="starts one LoRAX-compatible process")
    parser.add_argument("--minimum-cooldown-seconds", type=float, help="smallest cooldownTime; Predibase documents 600")
    parser.add_argument("--ready-timeout-seconds", type=float, help="how long a serving process may take to start")
    parser.add_argument("--wake-timeout-seconds", type=float, help="how long a request waits for a replica")
    parser.add_argument("--shared-requests-per-second", type=int, help="limit of the shared endpoints")
    parser.add_argument("--exit-with-parent", type=int, metavar="PID", help="end when that parent process ends")
    return parser


def _base(text: str) -> BaseModel:
    name, separator, directory = text.partition("=")
    path = Path(directory).resolve()
    if not separator or not name:
        message = f"{text!r} is not ID=DIR"
        raise argparse.ArgumentTypeError(message)
    return BaseModel(id=name, directory=path)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given; the others keep their defaults."""
    names = (
        "minimum_cooldown_seconds",
        "ready_timeout_seconds",
        "wake_timeout_seconds",
        "shared_requests_per_second",
    )
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.serving_command:
        given["serving_command"] = tuple(options.serving_command)
    return given


if __name__ == "__main__":
    sys.exit(main())
