"""Leases: at most one live process does one piece of work. The one table of the ledger whose rows change.

A lease is no proof of anything to an auditor; it only spares two processes from doing the same work. What must not
happen twice is also guarded by the ledger's unique keys.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from slipway.errors import LeaseHeldError
from slipway.services.ledger_engine import ledger_errors, writing
from slipway.services.ledger_schema import leases

__all__ = ["DEFAULT_TTL_SECONDS", "Lease", "hold_lease", "is_alive", "process_holder"]

logger = logging.getLogger(__name__)

DEFAULT_TTL_SECONDS = 60.0
"""How long a lease outlives a holder on another machine that died; renewed every third of it."""


class Lease:
    """A lease that we hold. It renews itself until its block is left.

    Attributes:
        resource: What it is on.
        holder: Us, as ``host:pid:starttime``.
    """

    def __init__(self, *, resource: str, holder: str, nonce: str) -> None:
        self.resource = resource
        self.holder = holder
        self._nonce = nonce
        self._lost = threading.Event()

    @property
    def is_lost(self) -> bool:
        """Whether another process may be doing the work by now."""
        return self._lost.is_set()

    def confirm(self) -> None:
        """Make sure, before an effect that cannot be taken back, that the lease is still ours.

        Raises:
            LeaseHeldError: It ran out while this process was suspended or could not reach the ledger.
        """
        if self.is_lost:
            raise LeaseHeldError(
                f"The lease on {self.resource} was lost while working under it.",
                fix="Run this again; it continues from what the ledger has recorded.",
            )


@contextmanager
def hold_lease(
    engine: sa.Engine,
    resource: str,
    holder: str,
    *,
    clock: Callable[[], datetime],
    ttl_seconds: float = DEFAULT_TTL_SECONDS,
) -> Iterator[Lease]:
    """Hold the lease on a resource for the length of a block; see ``Ledger.lease``."""
    lease = Lease(resource=resource, holder=holder, nonce=uuid.uuid4().hex)
    ttl = timedelta(seconds=ttl_seconds)
    with ledger_errors(engine, f"acquiring the lease on {resource}"):
        _acquire(engine, lease, clock(), ttl)
    done = threading.Event()
    renewal = threading.Thread(
        target=_keep_renewing, args=(engine, lease, clock, ttl, done), name=f"lease-{resource}", daemon=True
    )
    renewal.start()
    try:
        yield lease
    finally:
        done.set()
        renewal.join()
        _release(engine, lease)


def _acquire(engine: sa.Engine, lease: Lease, now: datetime, ttl: timedelta) -> None:
    mine = {"holder": lease.holder, "nonce": lease._nonce, "acquired_at": now, "expires_at": now + ttl}  # noqa: SLF001  # this module's class
    with writing(engine) as connection:
        held = connection.execute(sa.select(leases).where(leases.c.resource == lease.resource)).one_or_none()
        if held is not None and held.expires_at > now and is_alive(held.holder) is not False:
            raise _held(lease.resource, held.holder, held.acquired_at, held.expires_at)
        if held is not None:
            logger.warning("taking over the lease on %s: its holder %s is gone", lease.resource, held.holder)
            # Only the very row that was judged: another process may have taken it over since.
            same = (leases.c.resource == lease.resource) & (leases.c.nonce == held.nonce)
            if connection.execute(sa.update(leases).where(same).values(mine)).rowcount == 1:
                return
        else:
            with contextlib.suppress(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(sa.insert(leases).values(resource=lease.resource, **mine))
                return
        winner = connection.execute(sa.select(leases).where(leases.c.resource == lease.resource)).one_or_none()
    if winner is None:  # taken and given back in between
        _acquire(engine, lease, now, ttl)
        return
    raise _held(lease.resource, winner.holder, winner.acquired_at, winner.expires_at)


def _held(resource: str, holder: str, since: datetime, until: datetime) -> LeaseHeldError:
    return LeaseHeldError(
        f"{resource} is being worked on by {holder} since {since:%Y-%m-%d %H:%M:%S} UTC.",
        fix=f"Wait for it to end. If that process is gone, its lease ends by itself at {until:%H:%M:%S} UTC.",
    )


def _keep_renewing(
    engine: sa.Engine, lease: Lease, clock: Callable[[], datetime], ttl: timedelta, done: threading.Event
) -> None:
    good_until = clock() + ttl
    while not done.wait(ttl.total_seconds() / 3):
        now = clock()
        try:
            if not _renew(engine, lease, now, ttl):
                lease._lost.set()  # noqa: SLF001  # this module's class
                return
            good_until = now + ttl
        except SQLAlchemyError as error:
            # The next round tries again; only when the lease has run out may somebody else have it.
            logger.warning("cannot renew the lease on %s: %s", lease.resource, type(error).__name__)
            if clock() >= good_until:
                lease._lost.set()  # noqa: SLF001  # this module's class


def _renew(engine: sa.Engine, lease: Lease, now: datetime, ttl: timedelta) -> bool:
    ours = (leases.c.resource == lease.resource) & (leases.c.nonce == lease._nonce)  # noqa: SLF001  # this module's class
    with writing(engine) as connection:
        return connection.execute(sa.update(leases).where(ours).values(expires_at=now + ttl)).rowcount == 1


def _release(engine: sa.Engine, lease: Lease) -> None:
    ours = (leases.c.resource == lease.resource) & (leases.c.nonce == lease._nonce)  # noqa: SLF001  # this module's class
    try:
        with writing(engine) as connection:
            connection.execute(sa.delete(leases).where(ours))
    except SQLAlchemyError as error:
        # The work is done and its own errors matter more; the row runs out by itself.
        logger.warning("cannot give back the lease on %s: %s", lease.resource, type(error).__name__)


def process_holder() -> str:
    """Name this process as ``host:pid:starttime``.

    The host carries the process-id namespace where there is one, because two containers may share a host name and a
    process id means nothing outside its namespace.
    """
    return f"{_host()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(holder: str) -> bool | None:
    """Tell whether a holder's process lives: False when it is certainly dead, None when it is on another host."""
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != _host() or not rest.isdecimal():
        return None
    return _start_time(int(rest)) == holder.rpartition(":")[2]


def _host() -> str:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    except OSError:  # no /proc: not Linux
        namespace = ""
    # Colons separate the parts of a holder.
    return f"{socket.gethostname()}/{namespace}".rstrip("/").replace(":", "-")


def _start_time(pid: int) -> str:
    """When a process started, as text to compare; empty if there is none. Ids are used again, this pair is not."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        # proc(5): field 3 is the state, field 22 the start in clock ticks after boot; the name before ")" is cut off.
        return "" if fields[0] in {"Z", "X"} else fields[19]
    started = subprocess.run(  # noqa: S603  # fixed program, an integer argument
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return started.stdout.strip().replace(" ", "-").replace(":", ".")
