"""Lengths of modules and functions, depth of operators, imports inside functions, and ``Any``."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

import airflow_provider_coveo

PACKAGE = Path(airflow_provider_coveo.__file__).parent
MAX_LINES = 600
#: Without the docstring, whose length is not limited.
MAX_LINES_OF_FUNCTION = 75
#: The number of ``Any`` in annotations, which hide errors from mypy. Lower it whenever you can.
MAX_ANY = 95
MAX_CLASSES = 3

#: Modules with imports of the package inside functions. Otherwise, a DAG file that imports them would load
#: HTTP libraries, parsers or Airflow's plugins: the hook, the readers of content, and the encoders of items.
#: The hook itself does this for features that few pushes need. Modules of state/ that only the operators'
#: tasks need would double their import time.
IMPORT_INSIDE_FUNCTIONS = {
    "bracket/callbacks.py",
    "bracket/closing.py",
    "bracket/end_tasks.py",
    "coveo/client/fields.py",
    "cursors/coveo_push.py",
    "decorators/coveo_push.py",
    "hooks/dry_runs.py",
    "hooks/observer.py",
    "links/push_sources_page.py",
    "notifications/coveo_push.py",
    "operators/base.py",
    "operators/coveo_push.py",
    "operators/coveo_source.py",
    "operators/coveo_watchdog.py",
    "operators/fields.py",
    "operators/file_input.py",
    "operators/only_changes.py",
    "operators/push_base.py",
    "operators/rejected_push.py",
    "operators/sql_push.py",
    "plugins/push_sources.py",
    "sensors/coveo_push.py",
    "triggers/coveo_push.py",
}
#: The layers with operators.
LAYERS = ("bracket", "decorators", "operators", "sensors", "task_groups")

#: The nouns that messages count. Bytes are not among them: messages give those of large content only.
COUNTED = (
    "attempts|batches|calls|changes|characters|columns|days|deletions|digits|documents|entries|events|"
    "fields|files|folders|hours|identities|items|keys|mappings|members|minutes|names|operations|permissions|"
    "records|requests|responses|rows|runs|seconds|sources|statuses|tasks|times|tokens|uploads|values"
)
#: A plural right after a number, with at most three words in between, as in "1 invalid items".
PLURAL = re.compile(rf" (?:[a-zA-Z]+ ){{0,3}}(?:{COUNTED})\b")

MODULES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def operators() -> Iterator[type]:
    for module in pkgutil.walk_packages([str(PACKAGE)], "airflow_provider_coveo."):
        if module.name.split(".")[1] in LAYERS and not module.ispkg:
            for value in vars(importlib.import_module(module.name)).values():
                is_own = inspect.isclass(value) and value.__module__ == module.name
                if is_own and issubclass(value, BaseOperator):
                    yield value


def test_no_module_is_too_long() -> None:
    assert [name for name, text in MODULES.items() if text.count("\n") > MAX_LINES] == []


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{name}: {function.name}": lines_of(function)
        for name, text in MODULES.items()
        for function in functions(text)
        if lines_of(function) > MAX_LINES_OF_FUNCTION
    }
    assert too_long == {}


@pytest.mark.parametrize("operator", sorted(set(operators()), key=str), ids=lambda each: each.__name__)
def test_no_operator_has_too_many_base_classes(operator: type) -> None:
    ours = [
        base.__name__ for base in operator.__mro__ if base.__module__.startswith("airflow_provider_coveo")
    ]
    assert len(ours) <= MAX_CLASSES, ours


def test_no_temporary_file_outlives_a_killed_process() -> None:
    # An unnamed file ends with its process, and the next scratch folder deletes an abandoned one.
    named = re.compile(r"\b(mkdtemp|mkstemp|TemporaryDirectory|NamedTemporaryFile)\b")
    assert {name for name, text in MODULES.items() if named.search(text)} == {"content/scratch.py"}


def annotations(text: str) -> Iterator[ast.expr]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.annotation
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns is not None:
            yield node.returns


def is_count(formatted: ast.FormattedValue) -> bool:
    """Whether a number is formatted, or a length, that can be 1."""
    length = isinstance(formatted.value, ast.Call) and ast.unparse(formatted.value.func) == "len"
    number = formatted.format_spec is not None and re.search("[,d]", ast.unparse(formatted.format_spec))
    named = re.search(r"(^|[._])(count|number|total)$", ast.unparse(formatted.value))
    return bool(length or number or named) and not is_fixed(formatted.value)


def is_fixed(value: ast.expr) -> bool:
    """Whether it is a constant's value, or an attribute of one, so that it is never 1."""
    while isinstance(value, ast.Attribute):
        if value.attr.isupper():
            return True
        value = value.value
    return isinstance(value, ast.Name) and value.id.isupper()


def plurals_after_numbers(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            for number, after in zip(node.values, node.values[1:], strict=False):
                if (
                    isinstance(number, ast.FormattedValue)
                    and is_count(number)
                    and isinstance(after, ast.Constant)
                ):
                    found = PLURAL.match(str(after.value))
                    if found is not None:
                        yield found[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(rf"%d{PLURAL.pattern}", node.value)


def test_no_message_can_combine_the_number_one_with_a_plural() -> None:
    assert [(name, found) for name, text in MODULES.items() for found in plurals_after_numbers(text)] == []


def test_annotations_rarely_use_any() -> None:
    names = (
        name
        for text in MODULES.values()
        for annotation in annotations(text)
        for name in ast.walk(annotation)
        if isinstance(name, ast.Name) and name.id == "Any"
    )
    assert sum(1 for _ in names) <= MAX_ANY


def test_only_the_transport_and_the_triggers_start_threads_from_the_event_loop() -> None:
    # From a thread that asyncio started, Airflow 3.1 can't read connections and Variables: see threads.py.
    found = {
        name
        for name, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr in {"to_thread", "run_in_executor"}
    }
    assert sorted(found - {"transports/aiohttp_transport.py", "triggers/coveo_push.py"}) == []


def test_only_some_modules_import_inside_functions() -> None:
    found = {
        name
        for name, text in MODULES.items()
        for function in functions(text)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_provider_coveo")
    }
    assert sorted(found - IMPORT_INSIDE_FUNCTIONS) == []
