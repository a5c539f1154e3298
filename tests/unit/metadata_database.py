"""A database with Airflow's own tables, as a web server reads it."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.orm import scoped_session, sessionmaker

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
#: Of all releases; since 3.4, XComs are in three tables.
TABLES = (
    *("variable", "dag", "dag_run", "task_instance", "xcom", "log_template"),
    *("xcom_v1", "xcom_v2", "legacy_task_data_owner"),
)


class Database:
    """
    A database, what to put into it, and what was asked of it.

    :param path: Its file.
    :param more: The tables that it has beside :data:`TABLES`, where Airflow has them.
    """

    def __init__(self, path: Path, *more: str) -> None:
        import airflow.models
        from airflow.models.base import Base

        airflow.models.import_all_models()
        self.engine = create_engine(f"sqlite:///{path}")
        with suppress(ImportError):
            # Airflow 2.11 keeps who wrote a note among the tables of its users.
            importlib.import_module("airflow.providers.fab.auth_manager.models")
        self.tables = Base.metadata.tables
        names = [name for name in (*TABLES, *more) if name in self.tables]
        Base.metadata.create_all(self.engine, tables=[self.tables[name] for name in names])
        self.statements: list[str] = []
        event.listen(self.engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.statements.append(statement)

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        """Insert rows; what else a column must hold is made up."""
        columns = [
            column
            for column in self.tables[table].columns
            if not column.nullable and column.default is None and column.autoincrement is not True
        ]
        full = []
        for number, row in enumerate(rows):
            made_up = {}
            for column in columns:
                if column.name in row or (column.primary_key and column.name == "id" and table == "variable"):
                    continue
                kind = column.type.python_type.__name__ if hasattr(column.type, "python_type") else ""
                made_up[column.name] = {
                    "int": number + 1,
                    "bool": False,
                    "datetime": AT,
                    "float": 0.0,
                    "dict": {},
                }.get(kind, f"x{number}")
            full.append({**made_up, **row})
        with self.engine.begin() as connection:
            for row in full:
                connection.execute(self.tables[table].insert().values(**row))

    def tasks(self, *rows: dict[str, Any]) -> None:
        """Insert task instances. Since 3.4, the column of the map index has another name."""
        from airflow.models.taskinstance import TaskInstance

        table = self.tables["task_instance"]
        index = "map_index" if "map_index" in table.columns else TaskInstance.map_index.expression.key
        for row in rows:
            made = {index if name == "map_index" else name: value for name, value in row.items()}
            if "id" in table.columns and table.columns["id"].type.python_type is str:
                made.setdefault("id", f"{row['task_id']}{row['map_index']}")
            self.add("task_instance", made)

    def xcoms(self, task: dict[str, Any], **values: Any) -> None:
        """Store XComs of a task instance, by key. Since 3.4, they belong to one of its attempts."""
        if "xcom_v2" not in self.tables:
            self.add("xcom", *({"dag_run_id": 1, **task, "key": key, "value": values[key]} for key in values))
            return
        attempt = uuid.uuid4()
        self.tasks({**task, "id": attempt})
        self.add(
            "xcom_v2",
            *({"task_instance_id": attempt, "key": key, "value": values[key]} for key in values),
        )

    @property
    def xcom_table(self) -> str:
        """The table that this release writes XComs to."""
        return "xcom_v2" if "xcom_v2" in self.tables else "xcom"

    def variables(self, **values: Any) -> None:
        """Store Variables as Airflow does."""
        from airflow.models.variable import Variable

        made = [Variable(key=key, val=json.dumps(value)) for key, value in values.items()]
        self.add("variable", *({"key": v.key, "val": v._val, "is_encrypted": v.is_encrypted} for v in made))


@contextmanager
def metadata_database(path: Path, patch: pytest.MonkeyPatch, *more: str) -> Iterator[Database]:
    """
    Make a database that of this process.

    :param path: Its file.
    :param patch: What undoes that.
    :param more: The tables that it has beside :data:`TABLES`.
    """
    import airflow.settings

    made = Database(path, *more)
    maker = sessionmaker(bind=made.engine)
    patch.setattr(airflow.settings, "Session", scoped_session(maker), raising=False)
    patch.setattr(airflow.settings, "NonScopedSession", maker, raising=False)
    yield made
    made.engine.dispose()
