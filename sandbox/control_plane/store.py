"""The control plane's memory: repositories, adapter versions, uploads, serving deployments and their events.

One SQLite file in WAL mode, used from the event loop's thread only; every statement is a matter of microseconds. What
is committed survives ``kill -9`` of the process. Adapter files are beside it, each version in a directory that is never
renamed, so that a single commit makes a version complete.

Tags count per repository *name* and outlive the repository: LoRAX remembers what ``repo/tag`` resolved to for as long
as it runs, so a tag that came back with other weights would serve the old ones.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = [
    "AdapterVersion",
    "DeploymentRecord",
    "DeploymentStatus",
    "Event",
    "HomeInUseError",
    "Repo",
    "Store",
    "Upload",
    "timestamp",
]

SCHEMA = """
create table if not exists repos (
    uuid text primary key, name text not null unique, description text, created_at text not null);
create table if not exists tags (repo_name text primary key, last integer not null);
create table if not exists versions (
    repo_uuid text not null references repos (uuid) on delete cascade, tag integer not null, base_model text not null,
    directory text not null, archived integer not null default 0, created_at text not null,
    primary key (repo_uuid, tag));
create table if not exists uploads (
    token text primary key, repo_uuid text not null references repos (uuid) on delete cascade,
    directory text not null unique, expires_at real not null, tag integer);
create table if not exists deployments (name text primary key, document text not null);
create table if not exists events (
    id integer primary key, deployment_uuid text not null, type text not null, timestamp text not null,
    message text not null);
create index if not exists events_by_deployment on events (deployment_uuid, id);
"""


class HomeInUseError(Exception):
    """Another control plane runs on this home directory."""


class DeploymentStatus(StrEnum):
    """Where a serving deployment is in its life; the spelling is the wire's."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    READY = "ready"
    UPDATING = "updating"
    STANDBY = "standby"
    STOPPED = "stopped"
    ERRORED = "errored"


@dataclass(frozen=True, kw_only=True)
class Repo:
    """An adapter repository."""

    uuid: str
    name: str
    description: str | None
    created_at: str


@dataclass(frozen=True, kw_only=True)
class AdapterVersion:
    """One immutable version of an adapter. ``directory`` is its name below the adapters directory."""

    repo_name: str
    tag: int
    base_model: str
    directory: str
    archived: bool
    created_at: str


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One three-step upload; ``tag`` is set once it is finalised. ``expires_at`` is seconds since the epoch."""

    token: str = field(repr=False)
    repo_uuid: str
    directory: str
    expires_at: float
    tag: int | None


@dataclass(frozen=True, kw_only=True)
class DeploymentRecord:
    """What is known of a serving deployment while no process runs for it.

    Attributes:
        name: Its key.
        uuid: Distinguishes it from an earlier deployment of the same name.
        type: ``private`` or ``shared``.
        description: Free text.
        config: The config keys that were given, as on the wire, without nulls.
        status: See ``DeploymentStatus``.
        active_seconds: How long it has had replicas, in all.
    """

    name: str
    uuid: str
    type: str
    description: str | None
    config: dict[str, Any] = field(repr=False)
    status: DeploymentStatus
    active_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a serving deployment during its current rollout."""

    type: str
    timestamp: str
    message: str


def timestamp() -> str:
    """Return the time now as the wire writes it: UTC, microseconds, ``Z``."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Store:
    """Reads and writes the state under one home directory.

    Attributes:
        adapters: One directory per adapter version or unfinished upload.
        scratch: For files that live as long as a request; emptied at each start.

    Raises:
        HomeInUseError: Another process has it open.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.adapters = home / "adapters"
        self.adapters.mkdir(exist_ok=True)
        self.scratch = home / "scratch"
        self._lock = (home / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            message = f"another sandbox is using {home}; stop it or choose another --home"
            raise HomeInUseError(message) from error
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        database = home / "control-plane.sqlite3"
        self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        database.chmod(0o600)  # deployment configs may hold a Hub token
        self._db.row_factory = sqlite3.Row
        # NORMAL loses nothing when the process is killed, only when the machine loses power.
        self._db.executescript("pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on;")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Release the home directory."""
        self._db.close()
        self._lock.close()

    # Repositories and versions

    def create_repo(self, name: str, description: str | None) -> Repo:
        """Add a repository whose name is not taken."""
        repo = Repo(uuid=str(uuid.uuid4()), name=name, description=description, created_at=timestamp())
        self._db.execute("insert into repos values (:uuid, :name, :description, :created_at)", asdict(repo))
        return repo

    def find_repo(self, name_or_uuid: str) -> Repo | None:
        """Return the repository of that uuid, else of that name."""
        row = self._db.execute(
            "select * from repos where name = ?1 or uuid = ?1 order by uuid = ?1 desc limit 1", (name_or_uuid,)
        ).fetchone()
        return Repo(**row) if row else None

    def list_repos(self, limit: int) -> list[Repo]:
        """Return the newest repositories first."""
        rows = self._db.execute("select * from repos order by created_at desc limit ?", (limit,))
        return [Repo(**row) for row in rows]

    def delete_repo(self, repo: Repo) -> None:
        """Remove a repository with its versions and unfinished uploads, and their files."""
        rows = self._db.execute(
            "select directory from versions where repo_uuid = ?1 "
            "union select directory from uploads where repo_uuid = ?1",
            (repo.uuid,),
        ).fetchall()
        self._db.execute("delete from repos where uuid = ?", (repo.uuid,))
        for row in rows:
            self._remove_files(row["directory"])

    def list_versions(self, repo: Repo) -> list[AdapterVersion]:
        """Return all versions, archived ones too, lowest tag first."""
        rows = self._db.execute("select * from versions where repo_uuid = ? order by tag", (repo.uuid,))
        return [_version(repo.name, row) for row in rows]

    def find_version(self, repo: Repo, tag: int) -> AdapterVersion | None:
        """Return one version."""
        row = self._db.execute("select * from versions where repo_uuid = ? and tag = ?", (repo.uuid, tag)).fetchone()
        return _version(repo.name, row) if row else None

    def set_archived(self, repo: Repo, tag: int, *, archived: bool) -> None:
        """Hide a version from listings, or show it again. Serving is not affected."""
        self._db.execute(
            "update versions set archived = ? where repo_uuid = ? and tag = ?", (int(archived), repo.uuid, tag)
        )

    def delete_version(self, repo: Repo, version: AdapterVersion) -> None:
        """Remove a version and its files. Its tag is not given out again."""
        self._db.execute("delete from versions where repo_uuid = ? and tag = ?", (repo.uuid, version.tag))
        self._remove_files(version.directory)

    # Uploads

    def create_upload(self, repo: Repo, expires_at: float) -> Upload:
        """Open an upload with a directory for its files."""
        upload = Upload(
            token=secrets.token_urlsafe(32),
            repo_uuid=repo.uuid,
            directory=uuid.uuid4().hex,
            expires_at=expires_at,
            tag=None,
        )
        (self.adapters / upload.directory).mkdir()
        self._db.execute(
            "insert into uploads values (:token, :repo_uuid, :directory, :expires_at, :tag)", asdict(upload)
        )
        return upload

    def find_upload(self, token: str) -> Upload | None:
        """Return the upload of a token."""
        row = self._db.execute("select * from uploads where token = ?", (token,)).fetchone()
        return Upload(**row) if row else None

    def find_upload_by_directory(self, directory: str) -> Upload | None:
        """Return the upload that a presigned address belongs to."""
        row = self._db.execute("select * from uploads where directory = ?", (directory,)).fetchone()
        return Upload(**row) if row else None

    def finalise_upload(self, upload: Upload, repo: Repo, base_model: str) -> AdapterVersion:
        """Turn an upload into the next version, in one commit."""
        with self._transaction():
            (tag,) = self._db.execute(
                "insert into tags values (?, 1) on conflict do update set last = last + 1 returning last", (repo.name,)
            ).fetchone()
            self._db.execute(
                "insert into versions (repo_uuid, tag, base_model, directory, created_at) values (?, ?, ?, ?, ?)",
                (repo.uuid, tag, base_model, upload.directory, timestamp()),
            )
            self._db.execute("update uploads set tag = ? where token = ?", (tag, upload.token))
        version = self.find_version(repo, tag)
        if version is None:
            message = f"{repo.name}/{tag} vanished while it was made"
            raise RuntimeError(message)
        return version

    def sweep(self, now: float) -> None:
        """Forget uploads that expired unfinished, and remove directories that nothing refers to."""
        self._db.execute("delete from uploads where tag is null and expires_at < ?", (now,))
        rows = self._db.execute(
            "select directory from versions union select directory from uploads where tag is null"
        ).fetchall()
        used = {row["directory"] for row in rows}
        for path in self.adapters.iterdir():
            if path.name not in used:
                self._remove_files(path.name)

    def _remove_files(self, directory: str) -> None:
        shutil.rmtree(self.adapters / directory, ignore_errors=True)

    # Deployments

    def save_deployment(self, record: DeploymentRecord) -> None:
        """Insert or replace by name."""
        self._db.execute("insert or replace into deployments values (?, ?)", (record.name, json.dumps(asdict(record))))

    def list_deployments(self) -> list[DeploymentRecord]:
        """Return all, by name."""
        rows = self._db.execute("select document from deployments order by name").fetchall()
        documents = [json.loads(row["document"]) for row in rows]
        return [
            DeploymentRecord(**{**document, "status": DeploymentStatus(document["status"])}) for document in documents
        ]

    def delete_deployment(self, record: DeploymentRecord) -> None:
        """Remove it with its events."""
        with self._transaction():
            self._db.execute("delete from deployments where name = ?", (record.name,))
            self._db.execute("delete from events where deployment_uuid = ?", (record.uuid,))

    def add_event(self, deployment_uuid: str, event_type: str, message: str) -> None:
        """Append to the current rollout."""
        self._db.execute(
            "insert into events (deployment_uuid, type, timestamp, message) values (?, ?, ?, ?)",
            (deployment_uuid, event_type, timestamp(), message),
        )

    def clear_events(self, deployment_uuid: str) -> None:
        """Begin a rollout: the SDK's wait ends at the first ``Ready`` it sees, so an older one must not be there."""
        self._db.execute("delete from events where deployment_uuid = ?", (deployment_uuid,))

    def list_events(self, deployment_uuid: str) -> list[Event]:
        """Return the events of the current rollout, oldest first."""
        rows = self._db.execute(
            "select type, timestamp, message from events where deployment_uuid = ? order by id", (deployment_uuid,)
        )
        return [Event(**row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")


def _version(repo_name: str, row: sqlite3.Row) -> AdapterVersion:
    return AdapterVersion(
        repo_name=repo_name,
        tag=row["tag"],
        base_model=row["base_model"],
        directory=row["directory"],
        archived=bool(row["archived"]),
        created_at=row["created_at"],
    )
