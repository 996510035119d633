"""The serving deployments that we created, as the ledger has them."""

from __future__ import annotations

import sqlalchemy as sa

from slipway.ledger import DeploymentStage, DeploymentState, fold_deployments
from slipway.services import ledger_schema as schema
from slipway.services.ledger_engine import ledger_errors
from slipway.services.ledger_rows import deployment_of
from slipway.services.ledger_tables import LedgerTables

__all__ = ["RecordsDeployments"]


class RecordsDeployments(LedgerTables):
    """What we did to, and saw of, serving deployments of ours."""

    def record_deployment(
        self,
        *,
        target: str,
        name: str,
        release_id: str,
        stage: DeploymentStage | str,
        base_model: str = "",
    ) -> None:
        """Record what is about to be done to, or was seen of, a serving deployment of ours.

        ``intended`` goes in before the request that creates it, so that a crash in between leaves a name to look for.
        """
        row = {
            "target": target,
            "name": name,
            "release_id": release_id,
            "stage": DeploymentStage(stage).value,
            "base_model": base_model,
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"recording the serving deployment {name}"):
            self._insert(schema.deployments, row)

    def created_deployments(self, target: str | None = None) -> tuple[DeploymentState, ...]:
        """List the serving deployments that we created: those that may still exist first, oldest first.

        Args:
            target: Only there; None for all targets.
        """
        wanted = sa.select(schema.deployments)
        if target is not None:
            wanted = wanted.where(schema.deployments.c.target == target)
        with ledger_errors(self._engine, "reading the serving deployments"):
            rows = self._rows(wanted)
        return fold_deployments(deployment_of(row) for row in rows)
