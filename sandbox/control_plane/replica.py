"""One replica of a serving deployment: a LoRAX-compatible process, started, warmed, and counted while it answers."""

from __future__ import annotations

import asyncio
import logging
import os

import httpx

from sandbox.control_plane.faults import FaultKind, Faults
from sandbox.control_plane.settings import ControlPlaneSettings
from sandbox.control_plane.store import DeploymentRecord
from sandbox.supervisor import ChildFailedError, ChildProcess

__all__ = ["Launcher", "Replica", "ReplicaError"]

logger = logging.getLogger(__name__)

WARM_TIMEOUT_SECONDS = 120.0


class ReplicaError(Exception):
    """A replica could not be started or warmed. It is gone."""


class Replica:
    """A serving process and the number of requests it is answering.

    Attributes:
        is_unreachable: It refused a connection: it has ended and its watcher does not know yet.
    """

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self.in_flight = 0
        self.is_unreachable = False

    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""
        return self.process.url.rstrip("/")


class Launcher:
    """Starts replicas as a deployment's config says.

    Attributes:
        slots: Bounds how many serving processes are starting at once.
    """

    def __init__(self, settings: ControlPlaneSettings, faults: Faults, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._faults = faults
        self._client = client
        self.slots = asyncio.Semaphore(settings.parallel_starts)

    async def launch(self, record: DeploymentRecord) -> Replica:
        """Start one replica; it serves and has the preloaded adapters warm when this returns.

        Raises:
            ReplicaError: With the reason, and the last lines of the process's log.
        """
        await self._apply_fault(record.name)
        try:
            process = await ChildProcess.start(
                f"deployment {record.name}",
                self._command(record),
                log_path=self._settings.home / "logs" / "deployments" / f"{record.name}.log",
                ready_timeout_seconds=self._settings.ready_timeout_seconds,
                environment=self._environment(record),
            )
        except ChildFailedError as error:
            raise ReplicaError(str(error)) from error
        replica = Replica(process)
        try:
            await self.warm(replica, record)
        except BaseException:
            await process.stop()
            raise
        return replica

    async def warm(self, replica: Replica, record: DeploymentRecord) -> None:
        """Have a replica load the preloaded adapters, by one token from each.

        LoRAX's own ``--preloaded-adapter-ids`` would also refuse every other adapter; on Predibase they stay loadable.

        Raises:
            ReplicaError: An adapter does not load.
        """
        for adapter_id in record.config.get("preloadedAdapters", []):
            body = {
                "inputs": "warm",
                "parameters": {"adapter_id": adapter_id, "adapter_source": "pbase", "max_new_tokens": 1},
            }
            try:
                reply = await self._client.post(
                    f"{replica.url}/generate",
                    json=body,
                    headers={"Authorization": f"Bearer {self._settings.token}"},
                    timeout=WARM_TIMEOUT_SECONDS,
                )
            except httpx.HTTPError as error:
                message = f"adapter {adapter_id} could not be preloaded: {error!r}"
                raise ReplicaError(message) from error
            if not reply.is_success:
                message = f"adapter {adapter_id} could not be preloaded: {reply.text}"
                raise ReplicaError(message)

    async def _apply_fault(self, name: str) -> None:
        fault = self._faults.take_for_start(name)
        if fault is None:
            return
        await asyncio.sleep(fault.seconds)
        if fault.kind is FaultKind.FAIL_START:
            message = "injected fault: the serving process did not start"
            raise ReplicaError(message)

    def _command(self, record: DeploymentRecord) -> list[str]:
        config = record.config
        base = self._settings.base_models.find(config["baseModel"])
        if base is None:
            message = f"base model {config['baseModel']!r} is not known here any more"
            raise ReplicaError(message)
        command = [*self._settings.serving_command, *map(str, config.get("customArgs", []))]
        # After the custom arguments, so that none of them can make the process listen elsewhere.
        command += ["--model-dir", str(base.directory), "--model-id", base.id, "--host", "127.0.0.1", "--port", "0"]
        command += ["--adapter-source", "pbase", "--exit-with-parent", str(os.getpid())]
        if (tokens := config.get("maxTotalTokens")) is not None:
            command += ["--max-total-tokens", str(tokens)]
        if self._settings.strict:
            command.append("--strict")
        return command

    def _environment(self, record: DeploymentRecord) -> dict[str, str]:
        environment = {"PREDIBASE_GATEWAY_ENDPOINT": self._settings.url}
        if (hub_token := record.config.get("hfToken")) is not None:
            environment["HF_TOKEN"] = hub_token
        return environment
