"""The set of serving deployments: which exist, who may change them, and what a config may say."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import uuid
from typing import Any

from sandbox.control_plane.lifecycle import Deployment
from sandbox.control_plane.replica import Launcher
from sandbox.control_plane.repos import find_adapter
from sandbox.control_plane.settings import BaseModel, ControlPlaneSettings
from sandbox.control_plane.store import DeploymentRecord, DeploymentStatus, Store
from sandbox.control_plane.wire import (
    ApiError,
    DeploymentConfig,
    deployment_json,
)

__all__ = ["DEFAULT_MAX_REPLICAS", "Deployments"]

logger = logging.getLogger(__name__)

DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
RESERVED_NAMES = frozenset({"recommended-config"})
DEFAULT_MAX_REPLICAS = 1
CREATE_ONLY_KEYS = ("baseModel", "accelerator", "quantization", "computeSpec")
TICK_SECONDS = 0.1


class Deployments:
    """All serving deployments of the tenant, shared endpoints included, by name."""

    def __init__(self, store: Store, settings: ControlPlaneSettings, launcher: Launcher) -> None:
        self._store = store
        self._settings = settings
        self._launcher = launcher
        self._by_name: dict[str, Deployment] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Carry on with what the store knows, and offer the shared endpoints."""
        for record in self._store.list_deployments():
            self._adopt(record).resume()
        if self._settings.shared_endpoints:
            for base in self._settings.base_models:
                self._add_shared(base)

    async def keep_time(self) -> None:
        """Let each deployment notice the passing of time, until cancelled."""
        while True:
            for deployment in list(self._by_name.values()):
                try:
                    deployment.tick()
                except sqlite3.Error:
                    # A full disk passes; the clock must go on.
                    logger.exception("deployment %s could not be saved", deployment.record.name)
            await asyncio.sleep(TICK_SECONDS)

    async def close(self) -> None:
        """Stop every process; what should run will be resumed."""
        self._closing.update(deployment.close() for deployment in self._by_name.values())
        if self._closing:
            await asyncio.wait(self._closing)

    def list(self) -> list[Deployment]:
        """Return all, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def require(self, name: str) -> Deployment:
        """Return one.

        Raises:
            ApiError: 404.
        """
        deployment = self._by_name.get(name)
        if deployment is None:
            raise ApiError(404, f"deployment {name!r} does not exist")
        return deployment

    def require_own(self, name: str) -> Deployment:
        """Return one that the tenant may change.

        Raises:
            ApiError: 404; 403 for a shared endpoint.
        """
        deployment = self.require(name)
        if deployment.record.type == "shared":
            raise ApiError(403, f"{name!r} is a shared endpoint; only private deployments can be changed")
        return deployment

    def create(self, name: str, config: DeploymentConfig, description: str | None) -> Deployment:
        """Add a private deployment and begin its first rollout.

        Raises:
            ApiError: 400 when the config is wrong, 409 when the name is taken.
        """
        if not DEPLOYMENT_NAME.fullmatch(name) or name in RESERVED_NAMES:
            raise ApiError(
                400,
                f"invalid deployment name {name!r}: use up to 63 letters, digits, '.', '_' and '-', "
                "a letter or digit first",
            )
        given = config.given()
        self._check(given)
        if name in self._by_name:
            raise ApiError(409, f"deployment {name!r} already exists")
        deployment = self._adopt(_record(name, "private", given, description))
        deployment.create()
        return deployment

    def update(self, name: str, config: DeploymentConfig | None, description: str | None) -> Deployment:
        """Change a private deployment and roll the change out.

        Raises:
            ApiError: 400 when the config is wrong, 403, 404.
        """
        deployment = self.require_own(name)
        given = config.given() if config else {}
        current = deployment.record.config
        base = self._settings.base_models.find(given.get("baseModel", ""))
        if base is not None and base == self._settings.base_models.find(current["baseModel"]):
            given["baseModel"] = current["baseModel"]  # another of its names
        for key in CREATE_ONLY_KEYS:
            if key in given and given[key] != current.get(key):
                raise ApiError(400, f"{key} cannot be changed after creation; create another deployment")
        self._check({**current, **given})
        deployment.update(given, description)
        return deployment

    def delete(self, name: str) -> None:
        """Remove a private deployment; its processes stop in the background.

        Raises:
            ApiError: 403, 404.
        """
        deployment = self.require_own(name)
        task = deployment.close()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        del self._by_name[name]
        self._store.delete_deployment(deployment.record)

    def base_of(self, name: str | None) -> BaseModel:
        """Return the base model of that name.

        Raises:
            ApiError: 400, listing those that exist.
        """
        known = self._settings.base_models
        if not name:
            raise ApiError(400, f"config.baseModel is missing; base models here: {known.names()}")
        base = known.find(name)
        if base is None:
            raise ApiError(400, f"unknown base model {name!r}; base models here: {known.names()}")
        return base

    def render(self, deployment: Deployment) -> dict[str, Any]:
        """Render one for the wire."""
        record = deployment.record
        base = self._settings.base_models.find(record.config["baseModel"])
        return deployment_json(
            record,
            current_replicas=deployment.current_replicas,
            max_input_length=base.max_input_length if base else 0,
        )

    def _check(self, config: dict[str, Any]) -> None:
        self.base_of(config.get("baseModel"))
        least, most = config.get("minReplicas", 0), config.get("maxReplicas", DEFAULT_MAX_REPLICAS)
        if least > most:
            raise ApiError(400, f"minReplicas {least} is above maxReplicas {most}")
        cooldown = config.get("cooldownTime")
        if cooldown is not None and cooldown < self._settings.minimum_cooldown_seconds:
            raise ApiError(400, f"cooldownTime is {cooldown:g}; at least {self._settings.minimum_cooldown_seconds:g} s")
        for adapter_id in config.get("preloadedAdapters", []):
            if find_adapter(self._store, adapter_id) is None:
                raise ApiError(400, f"preloadedAdapters: {adapter_id!r} does not exist; write repository/tag")

    def _adopt(self, record: DeploymentRecord) -> Deployment:
        deployment = Deployment(record, store=self._store, settings=self._settings, launcher=self._launcher)
        self._by_name[record.name] = deployment
        return deployment

    def _add_shared(self, base: BaseModel) -> None:
        """Offer a base model's shared endpoint. It begins in standby, so it costs nothing until somebody uses it."""
        if base.short_name in self._by_name:
            return
        record = _record(base.short_name, "shared", {"baseModel": base.id, "minReplicas": 0, "maxReplicas": 1}, None)
        self._store.save_deployment(record)
        self._adopt(record)


def _record(name: str, kind: str, config: dict[str, Any], description: str | None) -> DeploymentRecord:
    return DeploymentRecord(
        name=name,
        uuid=str(uuid.uuid4()),
        type=kind,
        description=description,
        config=config,
        status=DeploymentStatus.STANDBY if kind == "shared" else DeploymentStatus.PENDING,
    )
