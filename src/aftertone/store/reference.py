"""The catalog's tables as text, for the documentation.

Owns: that text. Refuses to know: the rest of the page.

Theory of operation: docs/storage.md holds what ``schema_markdown`` returns, and a test compares the two; so the page cannot
fall behind. ``python -m aftertone.store.reference`` prints it.
"""

from __future__ import annotations

import sys

import sqlalchemy as sa

from aftertone.store.schema import metadata


def schema_markdown() -> str:
    """Return a table for each table of the catalog."""
    return "\n".join(_table(table) for table in metadata.tables.values())


def _table(table: sa.Table) -> str:
    lines = [f"### `{table.name}`", "", "| column | type | may be empty | |", "|---|---|---|---|"]
    lines += [
        f"| `{column.name}` | {column.type} | {'yes' if column.nullable else 'no'} | {_remark(column)} |"
        for column in table.columns
    ]
    indexes = sorted((str(index.name), [column.name for column in index.columns]) for index in table.indexes)
    if indexes:
        lines += ["", "Indexes: " + "; ".join(f"`{name}` ({', '.join(columns)})" for name, columns in indexes) + "."]
    return "\n".join([*lines, ""])


def _remark(column: sa.Column[object]) -> str:
    parts = ["key"] if column.primary_key else []
    parts += [f"refers to `{key.target_fullname}`" for key in column.foreign_keys]
    parts += [column.comment] if column.comment else []
    return "; ".join(parts)


if __name__ == "__main__":
    sys.stdout.write(schema_markdown())
