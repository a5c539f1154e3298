"""
The only reader and writer of Airflow Variables.

On Airflow 3, it sends requests to the API server itself. If the API server does not respond, ``Variable.get``
reports that the Variable does not exist (3.1 and later), and ``Variable.set`` only logs an error (3.0 to 3.2,
apache/airflow#68537): callers would then trust a missing record. It bypasses Airflow's secrets cache, whose
values can be 15 minutes old, because the owner of a source can change within seconds.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from airflow_provider_coveo.state.airflow_runs import supervisor

T = TypeVar("T")

_ATTEMPTS_TO_READ: Final = 3
_ATTEMPTS_TO_WRITE: Final = 3
#: The maximum length of a Variable's key in the metadata database.
_MAX_KEY: Final = 250


def read_variable(name: str, *, as_json: bool = True) -> Any:
    """
    Return the current value of a Variable in the metadata database, ``None`` if it does not exist.

    :param name: Its key.
    :param as_json: Whether to decode it; text that is not JSON then counts as missing. Default ``True``.
    """
    _forget_cached(name)
    comms = supervisor()
    text = _read_by_class(name) if comms is None else _read_by_supervisor(comms, name)
    if text is None or not as_json:
        return text
    try:
        return json.loads(text)
    except ValueError:
        # Someone edited it by hand.
        return None


def write_variable(name: str, value: object, description: str) -> None:
    """
    Store a JSON value in a Variable.

    :param name: Its key.
    :param value: The value.
    :param description: The description in Airflow's UI.
    """
    try:
        _write_json(name, value, description)
    except Exception:
        # If two tasks create a Variable at the same time, the database rejects one of them.
        if read_variable(name) == json.loads(json.dumps(value)):
            return
        _write_json(name, value, description)


def update_variable(name: str, change: Callable[[object], tuple[object, T]], description: str) -> T:
    """
    Change the JSON value of a Variable that several tasks write.

    If they write at the same time, the database may reject all but one of them. Then this function reads and
    changes the value again.

    :param name: Its key.
    :param change: Called with the value, ``None`` if the Variable does not exist. It returns the new value,
        or ``None`` to keep the old one, and the result of this function.
    :param description: The description in Airflow's UI.
    """
    for attempt in range(1, _ATTEMPTS_TO_WRITE + 1):
        value, result = change(read_variable(name))
        if value is None:
            return result
        try:
            write_variable(name, value, description)
        except Exception:
            if attempt == _ATTEMPTS_TO_WRITE:
                raise
        else:
            return result
    raise AssertionError("unreachable")


def delete_variable(name: str) -> None:
    """
    Delete a Variable, if it exists.

    :param name: Its key.
    """
    comms = supervisor()
    try:
        if comms is None:
            _variable_class().delete(name)
        else:
            from airflow.sdk.execution_time.comms import DeleteVariable

            comms.send(DeleteVariable(key=name))
    except Exception:
        # Another task may have deleted it.
        if read_variable(name, as_json=False) is not None:
            raise
    _forget_cached(name)


def forget_variable(name: str) -> None:
    """
    Delete a Variable after checking that it exists, to avoid requests that delete a missing one.

    :param name: Its key.
    """
    if read_variable(name) is not None:
        delete_variable(name)


def read_text(key: str) -> str | None:
    """
    Return a Variable as text, ``None`` if it does not exist.

    :param key: Its key.
    """
    value = read_variable(key, as_json=False)
    return None if value is None else str(value)


def write_text(key: str, text: str, description: str) -> None:
    """
    Store text in a Variable.

    :param key: Its key.
    :param text: The text.
    :param description: The description in Airflow's UI.
    """
    comms = supervisor()
    if comms is None:
        _variable_class().set(key, text, description=description)
    else:
        from airflow.sdk.execution_time.comms import PutVariable

        # Unlike Variable.set of some releases, this raises an error of the API server.
        comms.send(PutVariable(key=key, value=text, description=description))
    _forget_cached(key)


def _write_json(name: str, value: object, description: str) -> None:
    if supervisor() is None:
        _variable_class().set(name, value, description=description, serialize_json=True)
        _forget_cached(name)
    else:
        # Airflow itself uses this format too, so that its UI shows several lines.
        write_text(name, json.dumps(value, indent=2), description)


def variable_name(*parts: str) -> str:
    """
    Return the key of a Variable for some names; a digest shortens a key that is too long.

    :param parts: The kind of record and its names, such as ``coveo_open``, an organization and a source.
    """
    name = "__".join(parts)
    if len(name) <= _MAX_KEY:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[: _MAX_KEY - 34]}__{digest}"


def _variable_class() -> Any:
    from airflow.providers.common.compat.sdk import Variable

    return Variable


def _read_by_supervisor(comms: Any, name: str) -> str | None:
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable

    for _ in range(_ATTEMPTS_TO_READ):
        answer = comms.send(GetVariable(key=name))
        if isinstance(answer, ErrorResponse):
            if _is_not_found(answer):
                return None
            raise AirflowRuntimeError(answer)
        # After a timeout has interrupted a request, a process receives the response to the previous one.
        if getattr(answer, "key", None) == name:
            value = answer.value
            return None if value is None else str(value)
    raise RuntimeError(f"Could not read the Variable {name!r}: Airflow's responses are for other requests")


def _read_by_class(name: str) -> str | None:
    try:
        value = _variable_class().get(name)
    except Exception as error:
        # Airflow 2.11 raises KeyError, Airflow 3 AirflowRuntimeError with this code.
        if isinstance(error, KeyError) or _is_not_found(getattr(error, "error", None)):
            return None
        raise
    return None if value is None else str(value)


def _is_not_found(answer: object) -> bool:
    code = getattr(answer, "error", None)
    return getattr(code, "value", None) == "VARIABLE_NOT_FOUND"


def _forget_cached(name: str) -> None:
    # The DAG processor has a cache if `[secrets] use_cache` is on, for its callbacks as well.
    for module in ("airflow.sdk.execution_time.cache", "airflow.secrets.cache"):
        try:
            cache = importlib.import_module(module).SecretCache
        except (ImportError, AttributeError):
            continue
        # Another process provides the shared cache. If it is gone, nothing is cached.
        with suppress(Exception):
            cache.invalidate_variable(name)
        return
