"""The settings of the stepped Airflow; import this before Airflow."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

#: In memory if possible, because there are thousands of writes to the database.
_QUICK_FOLDER = Path("/dev/shm")

_SETTINGS = {
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "CORE__FERNET_KEY": "",
    "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "DATABASE__CHECK_MIGRATIONS": "False",
    "LOGGING__LOGGING_LEVEL": "CRITICAL",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
    "SCHEDULER__USE_JOB_SCHEDULE": "False",
    "API_AUTH__JWT_SECRET": secrets.token_hex(32),
    "API__SECRET_KEY": secrets.token_hex(32),
}


def make_home() -> Path:
    """Create a home for this process' Airflow, with its own metadata database."""
    if "airflow.settings" in sys.modules:
        raise RuntimeError("Airflow is imported already; step it in a process of its own")
    parent = _QUICK_FOLDER if os.access(_QUICK_FOLDER, os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="coveo-stepped-", dir=parent))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # Settings of the caller's own Airflow would take precedence.
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ.update({f"AIRFLOW__{name}": value for name, value in _SETTINGS.items()})
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db?timeout=30"
    for name in list(os.environ):
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}:
            del os.environ[name]
    return home
