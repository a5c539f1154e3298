"""The docstrings, which the reference shows, describe each parameter and mark templated ones."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_coveo.decorators.coveo_push import _CoveoPushDecoratedOperator, coveo_push_task
from airflow_provider_coveo.operators.coveo_push import DeleteItemsOperator, RepushRejectedItemsOperator
from airflow_provider_coveo.operators.push_base import ADDITIONS_ONLY, WHOLE_INPUTS_ONLY

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
#: Methods that Airflow calls, in addition to those that its own classes declare.
CALLED_BY_AIRFLOW = {"async_notify", "execute_complete"}
#: Tasks that only the task groups create, and that send no requests to Coveo.
MADE_BY_GROUPS = {"ApproveByParamOperator", "PushSourceUpdateDone"}


def _modules(page: Path) -> list[str]:
    return re.findall(r"^\.\. automodule:: (\S+)", page.read_text(), re.MULTILINE)


#: The modules with public names, without those on the page Internals.
PUBLIC = [
    name
    for page in sorted(REFERENCE.glob("*.rst"))
    if page.name != "inside.rst"
    for name in _modules(page)
    # Only push_source_update creates these tasks.
    if name != "airflow_provider_coveo.operators.coveo_push_update"
]


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("airflow_provider_coveo")


def _public(module_name: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the functions, classes and methods of a module, each with its class."""
    for name, value in vars(importlib.import_module(module_name)).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module_name:
            continue
        if inspect.isclass(value):
            yield name, value, None
            for attribute, member in vars(value).items():
                function = getattr(member, "__func__", member)
                inherited = any(hasattr(base, attribute) for base in value.__mro__[1:] if not _is_ours(base))
                if not attribute.startswith("_") and inspect.isfunction(function) and not inherited:
                    yield f"{name}.{attribute}", function, value
        elif inspect.isfunction(value):
            yield name, value, None


def _parameters(function: Any) -> set[str]:
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    signature = inspect.signature(function).parameters.values()
    return {one.name for one in signature if one.kind in named} - {"self", "cls"}


def _parameters_of_class(value: type) -> set[str]:
    """Return the constructor's parameters of a class, up to its first base class from elsewhere."""
    found: set[str] = set()
    for base in value.__mro__:
        if _is_ours(base) and inspect.isfunction(vars(base).get("__init__")):
            found |= _parameters(vars(base)["__init__"])
    # These set some parameters themselves.
    own = {DeleteItemsOperator: ADDITIONS_ONLY, RepushRejectedItemsOperator: WHOLE_INPUTS_ONLY}
    return found - set(own.get(value, ()))


def _described(value: Any) -> dict[str, str]:
    """Return a docstring's text for each parameter."""
    parts = re.split(r"^:", inspect.getdoc(value) or "", flags=re.MULTILINE)[1:]
    found = (re.match(r"param (\w+): (.*)", part, re.DOTALL) for part in parts)
    return {one[1]: " ".join(one[2].split()) for one in found if one}


@pytest.mark.parametrize("module_name", PUBLIC)
def test_each_parameter_is_described(module_name: str) -> None:
    missing = {}
    for name, value, owner in _public(module_name):
        if name.rpartition(".")[2] in CALLED_BY_AIRFLOW:
            continue
        wanted = _parameters_of_class(value) if inspect.isclass(value) else _parameters(value)
        described = {*_described(value), *(_described(owner) if owner else ())}
        if inspect.isclass(value):
            # Subclasses need not repeat the parameters of a public class.
            public = [base for base in value.__mro__ if _is_ours(base) and not base.__name__.startswith("_")]
            described.update(*map(_described, public))
        if wanted - described:
            missing[name] = sorted(wanted - described)
    assert missing == {}


def _templated() -> Iterator[tuple[str, set[str], dict[str, str]]]:
    """Yield each class with templated fields, these fields, and the texts for its parameters."""

    def parameters(fields: Any) -> set[str]:
        # Airflow's operators have a method with the name of the parameter.
        return {"dry_run" if field == "is_dry_run" else field for field in fields}

    for module_name in PUBLIC:
        for name, value, _ in _public(module_name):
            if inspect.isclass(value) and hasattr(value, "template_fields"):
                yield name, parameters(value.template_fields), _described(value)
    fields = parameters(_CoveoPushDecoratedOperator.template_fields) - {
        "op_args",
        "op_kwargs",
        "templates_dict",
    }
    yield "coveo_push_task", fields, _described(coveo_push_task)


@pytest.mark.parametrize(
    ("name", "fields", "described"), [pytest.param(*one, id=one[0]) for one in _templated()]
)
def test_exactly_the_parameters_marked_as_templated_are_templated(
    name: str, fields: set[str], described: dict[str, str]
) -> None:
    marked = {
        parameter
        for parameter, words in described.items()
        if words.endswith(("(templated)", "(references are resolved, strings are not templated)"))
    }
    assert marked == fields


@pytest.mark.parametrize("name", sorted({name for name, _, _ in _templated()} - MADE_BY_GROUPS))
def test_classes_for_dag_files_name_their_errors_and_coveo_s_page(name: str) -> None:
    modules = map(importlib.import_module, PUBLIC)
    found = next(vars(module)[name] for module in modules if name in vars(module))
    words = inspect.getdoc(found) or ""
    assert "https://docs.coveo.com/en/" in words
    assert ":raises " in words
