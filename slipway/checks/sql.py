"""Checks of SQL, with what it may touch."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import shown
from slipway.javascript import ScriptError, check_pattern, matches
from slipway.validation_errors import describe, nearest

__all__ = ["sql_problem"]

_DIALECTS = {
    "athena": "athena",
    "bigquery": "bigquery",
    "db2": "",
    "flinksql": "",
    "hive": "hive",
    "mariadb": "mysql",
    "mysql": "mysql",
    "noql": "",
    "postgresql": "postgres",
    "redshift": "redshift",
    "snowflake": "snowflake",
    "sqlite": "sqlite",
    "transactsql": "tsql",
    "trino": "trino",
}
"""promptfoo's names, in lower case, and sqlglot's; empty is SQL in general."""
_BLOCK = re.compile(r"```(?:sql)?([^`]+)```")
_KEYS = {"databaseType", "allowedTables", "allowedColumns"}


def sql_problem(text: str, database: str, tables: tuple[str, ...] | None, columns: tuple[str, ...] | None) -> str:
    """Say why a text is no SQL, or touches what it may not; empty if neither.

    Args:
        text: One statement or several.
        database: A name of promptfoo's ``databaseType``.
        tables: Patterns of which one must match each ``action::schema::table``, in any case; ``null`` stands for a
            schema that is not named. None allows all.
        columns: The same for each ``action::table::column``; ``(.*)`` is the column of a star. A pattern with a table
            also allows that column where no table is named.

    Raises:
        ScriptError: A pattern found no end.
    """
    import sqlglot  # noqa: PLC0415  # slow to import, and few suites need it

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it warns of statements that it only half understands
    try:
        dialect = sqlglot.Dialect.get_or_raise(_DIALECTS[database.lower()])
        tokens = dialect.tokenize(text)
        statements = [part for part in dialect.parser().parse(tokens, text) if part is not None]
    except (sqlglot.errors.SqlglotError, RecursionError):
        return f"it does not follow the syntax of {database}"
    if database.lower() != "bigquery" and _has_comma_before_from(tokens):
        return f"it does not follow the syntax of {database}: a comma before FROM"
    if not statements or not all(map(_is_statement, statements)):
        return f"it is no statement of {database}"
    touched = [
        *(_refused("table", tables, statements, _tables) if tables is not None else ()),
        *(_refused("column", _with_no_table(columns), statements, _columns) if columns is not None else ()),
    ]
    return "; ".join(touched)


def _is_statement(node: Any) -> bool:  # noqa: ANN401  # sqlglot is imported late
    """Whether the text asked for something: a lone word is an expression, and a Command is text left unread."""
    from sqlglot import exp  # noqa: PLC0415  # as above

    if isinstance(node, exp.Select) and not node.expressions:
        return False  # sqlglot reads a lone SELECT
    asking = (exp.Query, exp.DML, exp.DDL, exp.Drop, exp.Alter, exp.TruncateTable, exp.Use, exp.Set, exp.Describe)
    return isinstance(node, (*asking, exp.Show, exp.Transaction, exp.Commit, exp.Rollback, exp.Pragma))


def _has_comma_before_from(tokens: list[Any]) -> bool:
    """Whether a list of columns ends with a comma, which sqlglot forgives."""
    from sqlglot.tokens import TokenType  # noqa: PLC0415  # as above

    kinds = [token.token_type for token in tokens]
    return any(pair == (TokenType.COMMA, TokenType.FROM) for pair in itertools.pairwise(kinds))


def _with_no_table(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Add to ``action::table::column`` that column without a table, as promptfoo does."""
    parted = [pattern.split("::") for pattern in columns]
    return (*columns, *(f"{parts[0]}::null::{parts[2]}" for parts in parted if len(parts) == 3))


def _refused(what: str, allowed: tuple[str, ...], statements: list[Any], touched: Any) -> Iterator[str]:  # noqa: ANN401
    for authority in sorted({found for statement in statements for found in touched(statement)}):
        if not any(matches(_whole(pattern), authority, "i") for pattern in allowed):
            yield f"the {what} {authority} is not allowed"


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _tables(statement: Any) -> Iterator[str]:  # noqa: ANN401  # as above
    from sqlglot import exp  # noqa: PLC0415  # as above

    own = {cte.alias_or_name for cte in statement.find_all(exp.CTE)}
    for table in statement.find_all(exp.Table):
        if table.name and table.name not in own:
            yield f"{_action(table, statement)}::{table.db or 'null'}::{table.name}"


def _columns(statement: Any) -> Iterator[str]:  # noqa: ANN401  # as above
    from sqlglot import exp  # noqa: PLC0415  # as above

    if isinstance(statement, exp.Insert | exp.Delete):
        target = statement.this
        written = [column.name for column in target.expressions] if isinstance(target, exp.Schema) else ["(.*)"]
        yield from (f"{statement.key}::{target.find(exp.Table).name}::{name}" for name in written)
    names = {table.alias_or_name: table.name for table in statement.find_all(exp.Table)}
    for column in statement.find_all(exp.Column, exp.Star):
        if isinstance(column, exp.Star):
            if not isinstance(column.parent, exp.Column | exp.Count):
                yield f"{_action(column, statement)}::null::(.*)"
            continue
        name = "(.*)" if isinstance(column.this, exp.Star) else column.name
        yield f"{_action(column, statement)}::{names.get(column.table, column.table) or 'null'}::{name}"


def _action(node: Any, statement: Any) -> str:  # noqa: ANN401  # as above
    """Give what is done: reading, where the node stands in a query or a condition inside another statement."""
    from sqlglot import exp  # noqa: PLC0415  # as above

    if node.find_ancestor(exp.Select, exp.Where) is not None:
        return "select"
    return str(statement.key)


def _settings(check: Check) -> Check:
    value = check.value if check.value not in (None, "") else {}
    if not isinstance(value, dict) or not set(value) <= _KEYS:
        raise ValueError(
            f"{check.type} takes no value, or an object of {', '.join(sorted(_KEYS))}; found {describe(check.value)}"
        )
    database = value.get("databaseType") or "MySQL"
    if str(database).lower() not in _DIALECTS:
        raise ValueError(f"the databaseType {database!r} is not known. {nearest(str(database).lower(), _DIALECTS)}")
    for name in ("allowedTables", "allowedColumns"):
        for pattern in _listed(value.get(name), f"{check.type}.{name}"):
            try:
                check_pattern(_whole(pattern), "i")
            except ValueError as error:
                raise ValueError(f"a pattern in {name} cannot be used: {error}") from None
    return replace(check, value={**value, "databaseType": str(database)})


def _listed(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list like ['select::null::orders']; found {describe(value)}")
    return tuple(value)


@kind("is-sql", prepare=_settings)
def _is_sql(check: Check, subject: Subject) -> Graded:
    return _graded(check, subject.output)


@kind("contains-sql", prepare=_settings)
def _contains_sql(check: Check, subject: Subject) -> Graded:
    """Look into the first block of code, or at the whole output where there is none."""
    block = _BLOCK.search(subject.output)
    return _graded(check, block.group(1) if block else subject.output)


def _graded(check: Check, text: str) -> Graded:
    value = check.value if isinstance(check.value, dict) else {}
    tables, columns = (
        None if value.get(name) is None else _listed(value[name], name) for name in ("allowedTables", "allowedColumns")
    )
    try:
        problem = sql_problem(text.strip(), str(value.get("databaseType")), tables, columns)
    except ScriptError as error:  # neither form passes: nothing was found out
        return Graded(passed=False, score=0, reason=f"The search for what is allowed was ended: {error}.")
    passed = bool(problem) == check.is_negated
    expected = "Expected the output not to be SQL that is allowed." if check.is_negated else ""
    return Graded(passed=passed, score=float(passed), reason="" if passed else expected or f"As SQL: {shown(problem)}.")
