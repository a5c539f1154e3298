"""Switches in user input: booleans, or the text that a template renders."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr

_FLAGS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def parse_flag(name: str, value: object) -> bool:
    """
    Parse a switch. A value that is neither on nor off raises an error and never counts as off: the switch may
    be the one that prevents requests.

    :param name: The parameter.
    :param value: ``True`` or ``False``; or ``true``, ``yes``, ``1``, ``false``, ``no`` or ``0``, in any case.
    :raises CoveoInputError: if it is anything else.
    """
    if isinstance(value, bool):
        return value
    flag = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    if flag is None:
        raise CoveoInputError(
            f"Invalid {name}: {short_repr(value)}",
            cause="a template that renders to nothing, for example because the DAG does not have the Param",
            remedy="Pass True or False, or a template that renders to one",
        )
    return flag
