"""Alembic migrations of the ledger, run by ``services.ledger_engine``; never by hand.

To change the schema: change ``services.ledger_schema``, add a file under ``versions`` and raise ``HEAD``. A test
compares the three.
"""

__all__ = ["HEAD"]

HEAD = "0001"
"""The newest revision, written here so that opening an up-to-date ledger need not import Alembic."""
