"""Switches as users set them: as such, or as a template renders them."""

from __future__ import annotations

from airflow_provider_coveo.coveo.errors import CoveoInputError, short_repr

_FLAGS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def parse_flag(name: str, value: object) -> bool:
    """
    Return a switch. What is neither on nor off is an error, and never off: it may be the one that says that
    nothing is to be sent.

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
            cause="a template that renders to nothing, as of a Param that the DAG does not have",
            remedy="Pass True or False, or a template that renders to one",
        )
    return flag
