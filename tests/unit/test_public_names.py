"""The names that DAG files import and call: keyword-only parameters, and cheap imports."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import airflow_provider_coveo
from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook
from airflow_provider_coveo.task_groups.coveo_push import push_source_update
from airflow_provider_coveo.task_groups.coveo_source import recreate_push_source
from tests.fresh import RunFresh

#: The layers whose modules a DAG file imports, or Airflow when it reads one.
ROOMS = ("assets", "decorators", "links", "notifications", "operators", "sensors", "task_groups", "triggers")
ENDINGS = ("Operator", "Sensor", "Trigger", "Notifier")


#: The hook's methods: their positional and their keyword-only parameters.
METHODS: dict[str, tuple[list[str], set[str]]] = {
    "set_source_status": (["source_id", "status"], set()),
    "delete_old_items": (["source_id", "ordering_id"], {"queue_delay"}),
    "add_or_update_item": (["source_id", "item"], {"ordering_id"}),
    "delete_item": (["source_id", "document_id"], {"delete_children", "ordering_id"}),
    "push_items": (
        ["source_id", "items"],
        {"delete", "batch_bytes", "upload_concurrency", "on_invalid", "progress"},
    ),
    "push_identities": (["provider_id"], {"members", "mappings", "deleted"}),
    "delete_old_identities": (["provider_id", "ordering_id"], {"queue_delay"}),
    "get_source": (["source_id"], set()),
    "list_sources": ([], set()),
    "duplicate_source": (["source_id", "new_name"], set()),
    "delete_source": (["source_id"], set()),
    "abort_activity": (["source_id", "activity_id"], set()),
    "count_item_logs": (["source_id", "start", "end"], set()),
    "get_limit": (["key"], set()),
    "test_connection": ([], set()),
}


def modules() -> list[str]:
    """Return the modules in these layers."""
    package = airflow_provider_coveo.__name__
    found = pkgutil.walk_packages(airflow_provider_coveo.__path__, f"{package}.")
    return [module.name for module in found if module.name.split(".")[1] in ROOMS and not module.ispkg]


def made_in_dag_files() -> Iterator[type]:
    for name in modules():
        for value in vars(importlib.import_module(name)).values():
            if inspect.isclass(value) and value.__module__ == name and value.__name__.endswith(ENDINGS):
                yield value


@pytest.mark.parametrize("made", sorted(set(made_in_dag_files()), key=str), ids=lambda made: made.__name__)
def test_everything_for_dag_files_accepts_only_keyword_arguments(made: type) -> None:
    for base in made.__mro__:
        if base.__module__.startswith(airflow_provider_coveo.__name__) and "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            named = {one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}
            by_keyword = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
            assert named == by_keyword, base


@pytest.mark.parametrize("made", [push_source_update, recreate_push_source])
def test_task_groups_accept_only_keyword_arguments(made: object) -> None:
    parameters = inspect.signature(made).parameters.values()  # type: ignore[arg-type]
    kinds = {one.kind for one in parameters}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", METHODS)
def test_the_signatures_of_the_hook_s_methods_are_unchanged(name: str) -> None:
    by_place, by_keyword = METHODS[name]
    _, *parameters = inspect.signature(getattr(CoveoPushHook, name)).parameters.values()
    assert [one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == by_place
    assert by_keyword <= {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def test_importing_modules_for_dag_files_loads_neither_http_libraries_nor_the_hook(
    run_fresh: RunFresh,
) -> None:
    script = f"""
import importlib, sys
import airflow.providers.common.compat.sdk as sdk
from airflow.triggers.base import BaseTrigger
for name in ("Asset", "BaseNotifier", "BaseOperator", "BaseOperatorLink", "BaseSensorOperator", "DAG",
             "DecoratedOperator", "PokeReturnValue", "TaskGroup", "XCom", "XComArg",
             "task_decorator_factory"):
    getattr(sdk, name)
try:
    import airflow.providers.standard.operators.empty
except ImportError:
    import airflow.operators.empty
for module in {modules()!r}:
    before = set(sys.modules)
    importlib.import_module(module)
    new = set(sys.modules) - before
    unwanted = {{"requests", "aiohttp", "urllib3", "tenacity", "pandas", "pyarrow", "zstandard"}}
    brought = [name for name in new if name.split(".")[0] in unwanted or "coveo.hooks." in name]
    assert not brought, (module, brought)
"""
    done = run_fresh(script)
    assert done.returncode == 0, done.stdout + done.stderr
