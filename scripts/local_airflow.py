"""A real, separate Airflow: scheduler, API and DAG processor, on loopback, in a temporary folder.

    with LocalAirflow(dags_folder="dags_examples", env={"AIRFLOW_CONN_COVEO_DEFAULT": "..."}) as airflow:
        run_id = airflow.trigger("coveo_full_rebuild")
        assert airflow.wait_for_run("coveo_full_rebuild", run_id) == "success"

It runs the Airflow of a given virtualenv, 2.11 or 3.x. Tests control it through its REST API only, so that
the same test runs on both. It neither uses nor changes the caller's own Airflow.

A second process, the :mod:`process_keeper`, ends the components and deletes the folder, even after an
exception or Ctrl-C, or if the caller itself is killed.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_client import AirflowClient, AirflowError
from local_postgres import LocalPostgres
from process_keeper import Keeper, end_processes, pids_of_sessions

Config = Mapping[str, Mapping[str, object]]

#: Seconds after which an unchanged DAG file is parsed again. A changed one is parsed at once, and none is
#: read half written (see :meth:`LocalAirflow.write_dag`); the default of 30 costs a tenth of a core.
_PARSED_AGAIN_AFTER = 1800

#: Migrated SQLite databases, by the interpreter that created them. A migration takes ten seconds of CPU
#: time, so the next Airflow of this process copies the result.
_EMPTY_DATABASES: dict[str, sqlite3.Connection] = {}

#: The states of a DAG's runs and tasks. To query the database costs a twentieth of a REST request. (The times
#: of the last change would be no use: the scheduler also changes running rows that stay in their state.)
_STATES = """
    SELECT run_id, '', state, 0, 0 FROM dag_run WHERE dag_id = {0}
    UNION ALL SELECT run_id, task_id, state, try_number, count(*) FROM task_instance WHERE dag_id = {0}
    GROUP BY run_id, task_id, state, try_number
"""

# Settings that make a local Airflow fast. The defaults, for production, wait 1 to 300 seconds in these cases.
_QUICK: Config = {
    "core": {
        "executor": "LocalExecutor",
        "load_examples": False,
        # By default, Airflow looks up the machine's full name in DNS, which blocks without a network.
        "hostname_callable": "socket.gethostname",
        # At startup, 2.11 forks this number of worker processes; the default is 32.
        "parallelism": 6,
        # A changed DAG file applies at once.
        "min_serialized_dag_update_interval": 0,
        # No DAG file times out on a busy machine; the defaults are 30 and 50.
        "dagbag_import_timeout": 180,
    },
    "database": {
        # Otherwise, every command would compare the schema, which was just created, with the migrations.
        "check_migrations": False,
        # No default connections: the tests don't use these services.
        "load_default_connections": False,
    },
    "scheduler": {
        "scheduler_heartbeat_sec": 1,
        # The sleep of an idle scheduler between two loops, and so the delay between two tasks. Each loop
        # costs 20 ms of CPU time.
        "scheduler_idle_sleep_time": 0.4,
        # On 2.11, this is also the interval at which running tasks detect that they were marked or cleared.
        "job_heartbeat_sec": 1,
        # The interval of the checks for dagrun_timeout and for timeouts of deferred tasks.
        "trigger_timeout_check_interval": 2,
    },
    # After this time, another triggerer adopts the triggers of a dead one; the default is 30.
    "triggerer": {"job_heartbeat_sec": 1, "triggerer_health_check_threshold": 5},
    # No version sends usage data.
    "usage_data_collection": {"enabled": False},
}
_QUICK_2: Config = {
    "core": {"min_serialized_dag_fetch_interval": 0, "dag_file_processor_timeout": 240},
    # On a busy machine, the default of 120 seconds ends the webserver.
    "webserver": {"web_server_master_timeout": 600},
    "scheduler": {
        # The interval of the search for new DAG files. Changed ones are parsed at once, by modification time.
        "dag_dir_list_interval": 1,
        "parsing_processes": 1,
        "min_file_process_interval": _PARSED_AGAIN_AFTER,
    },
}
_QUICK_3: Config = {
    # Same as for 2.11.
    "dag_processor": {
        "refresh_interval": 1,
        "bundle_refresh_check_interval": 1,
        "parsing_processes": 1,
        "min_file_process_interval": _PARSED_AGAIN_AFTER,
        "dag_file_processor_timeout": 240,
        # 3.0 mistakes a process that ran callbacks for one that parsed the file. If a file's callbacks are
        # more frequent than its parsing, it considers all its DAGs deleted after 50 seconds. A deleted file
        # applies at once.
        "stale_dag_threshold": 3600,
    },
    "workers": {
        # The interval at which a running task detects that it was marked or cleared.
        "min_heartbeat_interval": 1,
        # The maximum wait of a task for the busy API server; the default is 5.
        "execution_api_timeout": 30,
    },
}


class LocalAirflow(AirflowClient):
    """One Airflow, from :meth:`start` to :meth:`stop`. Use it as a context manager.

    :param dags_folder: the folder of the DAG files; by default, an empty folder in :attr:`home`
    :param python: the interpreter of the virtualenv with the Airflow to run
    :param env: environment variables for all components, e.g. ``AIRFLOW_CONN_...``
    :param config: Airflow settings that override this module's: ``{section: {option: value}}``
    :param database: ``"sqlite"`` or ``"postgres"``; by default, one with which that Airflow can run tasks in
        parallel: SQLite on 3.x, PostgreSQL on 2.11 (whose SQLite supports the SequentialExecutor only)
    :param triggerer: whether to start a triggerer, too; deferrable tasks need it
    :param users: the users who can sign in, with their roles (``viewer``, ``user``, ``op``, ``admin``); each
        user's password is the name, and ``admin`` must be one of them. By default, everyone is an
        administrator without signing in
    :param base_path: the base path of its URLs, e.g. ``/airflow``
    :param start_timeout: the maximum seconds until all components are running
    """

    def __init__(
        self,
        dags_folder: str | Path | None = None,
        *,
        python: str | Path = sys.executable,
        env: Mapping[str, str] | None = None,
        config: Config | None = None,
        database: str | None = None,
        triggerer: bool = False,
        users: Mapping[str, str] | None = None,
        base_path: str = "",
        start_timeout: float = 240,
    ) -> None:
        self.python = str(python)
        self.version = _airflow_version(self.python)
        is_airflow_3 = not self.version.startswith("2.")
        self.database = database or ("sqlite" if is_airflow_3 else "postgres")
        self.start_timeout = start_timeout
        self.home = Path(tempfile.mkdtemp(prefix="airflow-"))
        self.dags_folder = Path(dags_folder).resolve() if dags_folder else self.home / "dags"
        self.dags_folder.mkdir(exist_ok=True)
        self.logs = self.home / "component-logs"
        self.logs.mkdir()
        self.port = _free_port()
        super().__init__(
            f"http://127.0.0.1:{self.port}{base_path}",
            self.home / "logs",
            is_airflow_3=is_airflow_3,
            credentials=("admin", "admin") if users else None,
        )
        self._users = dict(users or {})
        #: The running components, by name.
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = dict(env or {})
        self._config = config or {}
        self._postgres: LocalPostgres | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._triggerer = triggerer
        self._watching = threading.Lock()
        self._watched: Any = None
        self._keeper = Keeper(self.home)

    # ---- life cycle ------------------------------------------------------------------------------

    @property
    def components(self) -> list[str]:
        """The names of the components, in the order in which they start."""
        own = (
            ["api-server", "scheduler", "dag-processor"] if self.is_airflow_3 else ["webserver", "scheduler"]
        )
        return own + (["triggerer"] if self._triggerer else [])

    def start(self) -> LocalAirflow:
        """Start everything; return once every component has sent a heartbeat."""
        try:
            if self.database == "postgres":
                self._postgres = LocalPostgres()
                self._keeper.delete_with_us(self._postgres.folder)
                self._server = self._postgres.launch()
                self._keeper.end_with_us(self._server, server=True)
                self._postgres.create_database()
            self._write_settings()
            began = _now()
            if self.is_airflow_3:
                # Its startup takes as long as the migration, and it reads no table before the first
                # request.
                self._launch("api-server")
            self._migrate()
            self._create_users()
            for component in self.components:
                if component not in self.processes:
                    self._launch(component)
            self._wait_until_alive(self.components, began)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process and delete the folder. It can be called more than once."""
        with self._watching:
            if self._watched is not None:
                self._watched.close()
                self._watched = None
        self._keeper.close()
        self.close()
        for process in [*self.processes.values(), *([self._server] if self._server else [])]:
            process.wait()
        self.processes.clear()

    def __enter__(self) -> LocalAirflow:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def kill(self, component: str, sig: int = signal.SIGKILL, *, descendants: bool = False) -> None:
        """Send a signal to a component; if the signal ends it, return once it has exited.

        :param descendants: whether to signal its descendants, too: the tasks of the scheduler's executor
        """
        process = self.processes[component]
        if descendants and sig == signal.SIGKILL:
            # Repeat it, since a killed process may just have started another one.
            end_processes(lambda: pids_of_sessions({process.pid}), sig, 30)
        else:
            for pid in pids_of_sessions({process.pid}) if descendants else [process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, sig)
        if sig not in (signal.SIGSTOP, signal.SIGCONT):
            process.wait(timeout=60)
            del self.processes[component]

    def start_component(self, component: str) -> None:
        """Start or restart a component, and wait for its heartbeat."""
        began = _now()
        self._launch(component)
        self._wait_until_alive([component], began)

    def write_dag(self, name: str, text: str) -> None:
        """Write a DAG file in one step: the DAG processor would not parse a half-written one again soon."""
        unfinished = self.dags_folder / f".{name}.unfinished"
        unfinished.write_text(text)
        unfinished.replace(self.dags_folder / name)

    def command(self, *arguments: str) -> str:
        """Run an `airflow` command, such as `("connections", "list")`, and return its output."""
        name = f"command-{arguments[0]}"
        process = self._spawn(name, *arguments)
        process.wait(timeout=self.start_timeout)
        return (self.logs / f"{name}.log").read_text()

    # ---- logs ------------------------------------------------------------------------------------

    def look_after_components(self) -> None:
        """Raise :class:`AirflowError` if a component exited without being killed by a test."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AirflowError(f"{name} exited {process.returncode}")

    def log_tails(self, lines: int = 30) -> str:
        """Return the last lines of every component's log."""
        parts = []
        paths = sorted(self.logs.glob("*.log"))
        if self._postgres:
            paths.append(self._postgres.log)
        for path in paths:
            tail = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
            parts.append("\n".join([f"--- {path.stem}", *tail]))
        return "\n".join(parts)

    # ---- internals -------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        # Settings of the caller's own Airflow would override those of this one.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            # The user's own files don't apply (a ~/.netrc would add credentials to requests), and no files
            # are left there (Gunicorn creates a socket).
            "HOME": str(self.home),
            # As in an activated virtualenv: Airflow itself runs `airflow` from PATH.
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", os.defpath)]),
            # Tasks connect to the API server on loopback, whatever proxy the environment sets.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            **self._env,
        }

    def _write_settings(self) -> None:
        """Write `airflow.cfg`.

        Environment variables would not do: without the file, each of the components, which start at the same
        time, would write one with its own secrets.
        """
        secret = secrets.token_hex(32)
        url = self._postgres.url if self._postgres else f"sqlite:///{self.home}/airflow.db?timeout=30"
        own: Config = {
            "core": {
                "dags_folder": self.dags_folder,
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            },
            "database": {"sql_alchemy_conn": url},
        }
        of_this_line: Config
        # Anyone who can connect to the loopback port is an Airflow administrator, without signing in.
        if self.is_airflow_3:
            of_this_line = {
                "core": {
                    "simple_auth_manager_all_admins": True,
                    "execution_api_server_url": f"{self.url}/execution/",
                },
                "api": {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "base_url": self.url,
                    "secret_key": secret,
                    # 3.0 starts four workers by default; later versions start one.
                    "workers": 1,
                },
                "api_auth": {"jwt_secret": secret},
            }
        else:
            of_this_line = {
                "api": {"auth_backends": "airflow.api.auth.backend.default"},
                "webserver": {
                    "web_server_host": "127.0.0.1",
                    "web_server_port": self.port,
                    "base_url": self.url,
                    "secret_key": secret,
                    "workers": 1,
                    # Component logs are for failures; log lines about polling would flood them.
                    "access_logfile": os.devnull,
                },
            }
            public = "" if self._users else 'AUTH_ROLE_PUBLIC = "Admin"'
            (self.home / "webserver_config.py").write_text(f"{public}\n")
        quick = _QUICK_3 if self.is_airflow_3 else _QUICK_2
        parser = configparser.RawConfigParser()
        for config in (_QUICK, quick, own, of_this_line, self._signing_in(), self._config):
            for section, options in config.items():
                if not parser.has_section(section):
                    parser.add_section(section)
                for option, value in options.items():
                    # Airflow interpolates %(...)s in its settings.
                    parser.set(section, option, str(value).replace("%", "%%"))
        with (self.home / "airflow.cfg").open("w") as file:
            parser.write(file)

    def _signing_in(self) -> Config:
        """Return the settings that allow only those users to sign in."""
        if not self._users:
            return {}
        if not self.is_airflow_3:
            backends = (
                "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth",
                "airflow.api.auth.backend.session",
            )
            # By default, five users can sign in within 40 seconds.
            return {"api": {"auth_backends": ",".join(backends)}, "fab": {"auth_rate_limited": False}}
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({name: name for name in self._users}))
        return {
            "core": {
                "simple_auth_manager_all_admins": False,
                "simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in self._users.items()),
                "simple_auth_manager_passwords_file": passwords,
            }
        }

    def _create_users(self) -> None:
        """Create the users on 2.11; Airflow 3 reads them from its settings."""
        if self.is_airflow_3 or not self._users:
            return
        # The web server creates the roles, but is not running yet.
        self.command("sync-perm")
        for name, role in self._users.items():
            names = [f"--{what}={name}" for what in ("username", "password", "firstname", "lastname")]
            self.command("users", "create", *names, f"--role={role.title()}", f"--email={name}@example.com")

    def _migrate(self) -> None:
        if self.database == "sqlite":
            # Airflow switches to write-ahead logging on each connection. If that is already done, components
            # that connect at the same time do not block each other.
            with closing(sqlite3.connect(self.home / "airflow.db")) as database:
                database.execute("PRAGMA journal_mode=WAL")
                if empty := _EMPTY_DATABASES.get(self.python):
                    empty.backup(database)
                    return
        process = self._spawn("db-migrate", "db", "migrate")
        if process.wait(timeout=self.start_timeout):
            raise AirflowError(f"airflow db migrate failed\n{self.log_tails()}")
        if self.database == "sqlite":
            empty = _EMPTY_DATABASES[self.python] = sqlite3.connect(":memory:", check_same_thread=False)
            with closing(sqlite3.connect(self.home / "airflow.db")) as database:
                database.backup(empty)

    def _launch(self, component: str) -> None:
        # Logs are read from files, because the log servers need fixed ports.
        options = ["--skip-serve-logs"] if component in ("scheduler", "triggerer") else []
        self.processes[component] = self._spawn(component, component, *options)

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.python, "-m", "airflow", *arguments],
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # The keeper finds it and all its descendants by its session. It also keeps Ctrl-C from
                # reaching it.
                start_new_session=True,
            )
        self._keeper.end_with_us(process)
        return process

    def _states(self, dag_id: str | None) -> object:
        if dag_id is None:
            return None
        # Several threads may wait.
        with self._watching:
            if self._watched is None:
                self._watched = self._open_database()
            cursor = self._watched.cursor()
            cursor.execute(_STATES.format("%s" if self._postgres else "?"), (dag_id, dag_id))
            return set(cursor.fetchall())

    def _open_database(self) -> Any:
        if not self._postgres:
            return sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, check_same_thread=False)
        import psycopg2

        connection = psycopg2.connect(self._postgres.url.replace("+psycopg2", ""))
        connection.autocommit = True
        return connection

    def _wait_until_alive(self, components: Collection[str], since: datetime) -> None:
        def all_alive() -> bool:
            health = self._health()
            # For a while, a heartbeat of the component's predecessor counts as healthy.
            return all(
                heartbeat is not None and heartbeat >= since
                for heartbeat in (health[c] for c in components if c not in ("api-server", "webserver"))
            )

        self.wait_until(all_alive, self.start_timeout, f"{', '.join(components)} alive")

    def _health(self) -> dict[str, datetime | None]:
        """Return each component's last heartbeat."""
        self.sign_in()
        health = self.rest("GET", "/monitor/health" if self.is_airflow_3 else "/health")
        heartbeats: dict[str, datetime | None] = {}
        for name, report in health.items():
            last = report.get(f"latest_{name}_heartbeat")
            heartbeats[name.replace("_", "-")] = datetime.fromisoformat(last) if last else None
        return heartbeats


def _airflow_version(python: str) -> str:
    ask = "import importlib.metadata as m; print(m.version('apache-airflow'))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _now() -> datetime:
    return datetime.now(timezone.utc)
