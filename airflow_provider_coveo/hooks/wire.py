"""The hook's ``User-Agent``, and the masking of secrets in logs."""

from __future__ import annotations

import functools
import importlib

from airflow_provider_coveo.transports.requests_transport import own_user_agent


@functools.cache
def user_agent() -> str:
    """Return the ``User-Agent`` without the caller."""
    from airflow import __version__ as airflow_version

    return own_user_agent(f"airflow/{airflow_version}")


def mask_in_logs(secret: str) -> None:
    """Make Airflow mask ``secret`` in logs, with the function of its version."""
    for module in (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            mask_secret = importlib.import_module(module).mask_secret
        except (ImportError, AttributeError):
            continue
        mask_secret(secret)
        return
