"""The life of a serving deployment.

::

    create -> pending -> initializing -> ready <-> updating        (update while it serves)
                              |            |
                              |            +-> standby -> pending  (idle; a request wakes it)
                              +-> errored                          (a replica does not start, or keeps crashing)

``stopped`` is entered and left by hand. A *rollout* is one attempt to get replicas for the current config: create,
update, waking up and a restart of the control plane each begin one, and only its events are shown. While an update
rolls out the old replicas go on serving; when it fails they keep serving and the old config is restored.

Everything runs on the event loop; between two awaits nothing else happens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from sandbox.control_plane.replica import Launcher, Replica, ReplicaError
from sandbox.control_plane.settings import ControlPlaneSettings
from sandbox.control_plane.store import DeploymentRecord, DeploymentStatus, Store
from sandbox.control_plane.wire import ApiError

__all__ = ["Deployment"]

logger = logging.getLogger(__name__)

SAVE_ACTIVE_SECONDS = 5.0
DRAIN_POLL_SECONDS = 0.05
CRASH_BACKOFF_SECONDS = 0.25
SHOULD_RUN = frozenset(
    {DeploymentStatus.PENDING, DeploymentStatus.INITIALIZING, DeploymentStatus.READY, DeploymentStatus.UPDATING}
)
# A change to any other key needs a new process.
KEYS_WITHOUT_RESTART = frozenset(
    {
        "cooldownTime",
        "maxReplicas",
        "minReplicas",
        "preloadedAdapters",
        "requestLoggingEnabled",
        "scaleUpRequestThreshold",
    }
)


class Deployment:
    """One serving deployment: its record, its replicas, and the tasks that look after them."""

    def __init__(
        self, record: DeploymentRecord, *, store: Store, settings: ControlPlaneSettings, launcher: Launcher
    ) -> None:
        self.record = record
        self._store = store
        self._settings = settings
        self._launcher = launcher
        self._replicas: list[Replica] = []
        self._rollout: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._waiting = 0
        self._last_used = time.monotonic()
        self._crashes: deque[float] = deque()
        self._last_tick = time.monotonic()
        self._unsaved_seconds = 0.0
        self._is_closed = False
        self._served_config = record.config

    # What can be seen

    @property
    def status(self) -> DeploymentStatus:
        """Where it is in its life."""
        return self.record.status

    @property
    def current_replicas(self) -> int:
        """Replicas that serve."""
        return len(self._replicas)

    @property
    def active_seconds(self) -> float:
        """How long it has had replicas, in all."""
        return self.record.active_seconds + self._unsaved_seconds

    @property
    def wanted_replicas(self) -> int:
        """How many replicas run while it is not scaled to zero."""
        return max(1, int(self.record.config.get("minReplicas", 0)))

    @property
    def cooldown_seconds(self) -> float:
        """Idle time before scale to zero."""
        return float(self.record.config.get("cooldownTime", self._settings.default_cooldown_seconds))

    # What can be asked of it

    def create(self) -> None:
        """Begin its life."""
        self._roll_out("created")

    def resume(self) -> None:
        """Carry on after a restart of the control plane."""
        if self.status in SHOULD_RUN:
            self._roll_out("the control plane was restarted")

    def update(self, config: dict[str, Any], description: str | None) -> None:
        """Apply the given config keys and roll them out.

        A stopped deployment takes the config and stays stopped.
        """
        after = {**self.record.config, **config}
        self._save(config=after, description=self.record.description if description is None else description)
        if self.status is DeploymentStatus.STOPPED:
            return
        changed = {key for key in after if after[key] != self._served_config.get(key)}
        self._roll_out("updated", restart=not changed <= KEYS_WITHOUT_RESTART)

    def stand_by(self) -> None:
        """Scale to zero now; the next request wakes it."""
        self._scale_to_zero(DeploymentStatus.STANDBY, "Standby", "scaled to zero")

    def stop(self) -> None:
        """Scale to zero and stay there whatever is requested."""
        self._scale_to_zero(DeploymentStatus.STOPPED, "Stopped", "stopped by hand")

    async def crash(self) -> int:
        """Kill its serving processes as a crash would, and wait until they are gone; returns how many."""
        killed = list(self._replicas)
        for replica in killed:
            replica.process.kill()
            await replica.process.wait()
        return len(killed)

    async def acquire(self) -> Replica:
        """Return a replica for one request, waking the deployment and waiting if need be. ``release`` it afterwards.

        Raises:
            ApiError: 404 when it was deleted meanwhile, 503 when it is errored or stopped, 504 after the wake timeout.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.wake_timeout_seconds):
                while True:
                    if replica := self._least_busy():
                        replica.in_flight += 1
                        return replica
                    self._wake()
                    await self._changed.wait()
        except TimeoutError as error:
            message = f"deployment {self.record.name!r} is {self.status} and did not become ready in time"
            raise ApiError(504, message, error_type="unavailable") from error
        finally:
            self._waiting -= 1

    def release(self, replica: Replica) -> None:
        """Give a replica back."""
        replica.in_flight -= 1
        self._last_used = time.monotonic()

    def tick(self) -> None:
        """Count active time and scale to zero after the cooldown; called every fraction of a second."""
        now = time.monotonic()
        if self._replicas or self.status in (DeploymentStatus.INITIALIZING, DeploymentStatus.UPDATING):
            self._unsaved_seconds += now - self._last_tick
        self._last_tick = now
        if self._unsaved_seconds > SAVE_ACTIVE_SECONDS:
            self._save()
        is_busy = self._waiting > 0 or any(replica.in_flight for replica in self._replicas)
        may_sleep = self.status is DeploymentStatus.READY and self.record.config.get("minReplicas", 0) == 0
        if may_sleep and not is_busy and now - self._last_used >= self.cooldown_seconds:
            self.stand_by()

    def close(self) -> asyncio.Task[None]:
        """End it here and now for those who wait; the task that is returned stops its processes.

        Saves the active time and from then on writes nothing, so that a deleted record stays deleted.
        """
        self._save()
        self._is_closed = True
        if self._rollout is not None:
            self._rollout.cancel()
        replicas, self._replicas = self._replicas, []
        self._notify()

        async def finish() -> None:
            await self._stop_all(replicas)
            if self._tasks:
                await asyncio.wait(self._tasks)

        return asyncio.create_task(finish(), name=f"end of deployment {self.record.name}")

    # Rollouts

    def _roll_out(self, reason: str, *, restart: bool = True) -> None:
        previous = self._rollout
        if previous is not None:
            previous.cancel()
        self._crashes.clear()
        self._store.clear_events(self.record.uuid)
        self._event("Queued", reason)
        self._set_status(DeploymentStatus.UPDATING if self._replicas else DeploymentStatus.PENDING)
        self._rollout = self._spawn(self._run_rollout(previous, restart=restart))

    async def _run_rollout(self, previous: asyncio.Task[None] | None, *, restart: bool) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        started: list[Replica] = []
        try:
            async with self._launcher.slots:
                if not self._replicas:
                    self._set_status(DeploymentStatus.INITIALIZING)
                self._event("Initializing", "")
                kept = [] if restart else self._replicas[: self.wanted_replicas]
                for replica in kept:
                    await self._launcher.warm(replica, self.record)
                while len(kept) + len(started) < self.wanted_replicas:
                    started.append(await self._launcher.launch(self.record))
        except ReplicaError as error:
            await self._stop_all(started)
            self._fail(str(error))
        except BaseException:
            await self._stop_all(started)
            raise
        else:
            # One that crashed meanwhile is not kept; its watcher has asked for another.
            kept = [replica for replica in kept if replica in self._replicas]
            self._serve_with(kept + started)

    def _serve_with(self, replicas: list[Replica]) -> None:
        retired = [replica for replica in self._replicas if replica not in replicas]
        for replica in replicas:
            if replica not in self._replicas:
                self._spawn(self._watch(replica))
        self._replicas = replicas
        self._served_config = self.record.config
        self._last_used = time.monotonic()
        if replicas:
            self._event("Ready", f"{len(replicas)} of {self.wanted_replicas} replicas")
            self._set_status(DeploymentStatus.READY)
        for replica in retired:
            self._spawn(self._retire(replica))
        if len(replicas) < self.wanted_replicas:
            self._rollout = self._spawn(self._replace_crashed())

    def _fail(self, reason: str) -> None:
        logger.warning("deployment %s: %s", self.record.name, reason)
        if self._replicas:
            self._save(config=self._served_config)
        self._event("Failed", reason)
        self._set_status(DeploymentStatus.READY if self._replicas else DeploymentStatus.ERRORED)

    async def _watch(self, replica: Replica) -> None:
        """Notice the end of a process that should go on, and see to a new one."""
        status = await replica.process.wait()
        if self._is_closed or replica not in self._replicas:
            return
        self._replicas.remove(replica)
        self._event("ReplicaCrashed", f"the serving process ended with status {status}")
        self._notify()
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > self._settings.crash_window_seconds:
            self._crashes.popleft()
        if self._rollout is None or self._rollout.done():
            self._rollout = self._spawn(self._replace_crashed())
        await replica.process.stop()  # what it may have started

    async def _replace_crashed(self) -> None:
        crashes = len(self._crashes)
        if crashes > self._settings.crash_limit:
            self._fail(f"the serving process crashed {crashes} times in a short while")
            return
        if not self._replicas:
            self._set_status(DeploymentStatus.INITIALIZING)
        await asyncio.sleep(CRASH_BACKOFF_SECONDS * 2**crashes)
        started: list[Replica] = []
        try:
            async with self._launcher.slots:
                while len(self._replicas) + len(started) < self.wanted_replicas:
                    started.append(await self._launcher.launch(self.record))
        except ReplicaError as error:
            await self._stop_all(started)
            self._fail(str(error))
        except BaseException:
            await self._stop_all(started)
            raise
        else:
            self._serve_with(self._replicas + started)

    def _scale_to_zero(self, status: DeploymentStatus, event: str, message: str) -> None:
        if self._rollout is not None:
            self._rollout.cancel()
        retired, self._replicas = self._replicas, []
        self._crashes.clear()
        self._event(event, message)
        self._set_status(status)
        for replica in retired:
            self._spawn(self._retire(replica))

    async def _retire(self, replica: Replica) -> None:
        """Let a replica finish what it is answering, then stop it."""
        deadline = time.monotonic() + self._settings.drain_timeout_seconds
        while replica.in_flight and time.monotonic() < deadline and not self._is_closed:  # noqa: ASYNC110 - three reasons to end
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        await replica.process.stop()

    async def _stop_all(self, replicas: list[Replica]) -> None:
        await asyncio.gather(*(replica.process.stop() for replica in replicas))

    # Small parts

    def _wake(self) -> None:
        if self._is_closed:
            raise ApiError(404, f"deployment {self.record.name!r} was deleted", error_type="unavailable")
        if self.status is DeploymentStatus.STANDBY:
            self._roll_out("woken by a request")
        elif self.status in (DeploymentStatus.ERRORED, DeploymentStatus.STOPPED):
            events = self._store.list_events(self.record.uuid)
            reason = f": {events[-1].message}" if events else ""
            message = f"deployment {self.record.name!r} is {self.status}{reason}"
            raise ApiError(503, message, error_type="unavailable")

    def _least_busy(self) -> Replica | None:
        running = [each for each in self._replicas if each.process.is_running and not each.is_unreachable]
        return min(running, key=lambda replica: replica.in_flight, default=None)

    def _set_status(self, status: DeploymentStatus) -> None:
        self._save(status=status)
        self._notify()

    def _save(self, **changes: Any) -> None:  # noqa: ANN401 - the record's own fields, checked by its constructor
        if self._is_closed:
            return
        self.record = replace(self.record, active_seconds=self.active_seconds, **changes)
        self._unsaved_seconds = 0.0
        self._store.save_deployment(self.record)

    def _event(self, event_type: str, message: str) -> None:
        if not self._is_closed:
            self._store.add_event(self.record.uuid, event_type, message)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"deployment {self.record.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
