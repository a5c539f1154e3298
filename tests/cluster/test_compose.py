"""docker-compose.yml and its files, as far as they can be checked without a container engine."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from airflow_provider_coveo import __version__

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
#: Services that run once, before others.
ONCE = {"certificate", "airflow-init"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return described


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/cluster as a module."""
    loader = importlib.machinery.SourceFileLoader("cluster_script", str(ROOT / "scripts/cluster"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def secrets(script: ModuleType) -> dict[str, str]:
    made: dict[str, str] = script.secrets_by_make_env()
    return made


# --- the file itself ---


def test_the_compose_file_conforms_to_the_compose_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_compose_file_has_all_services_of_an_airflow_with_celery_workers(
    services: dict[str, Any],
) -> None:
    lasting = {"postgres", "redis", "coveo-simulator", "airflow-apiserver", "airflow-scheduler"} | {
        *("airflow-dag-processor", "airflow-triggerer", "airflow-worker")
    }
    assert services.keys() == lasting | ONCE
    assert services["airflow-worker"]["deploy"]["replicas"] == 2
    for name in lasting:
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["healthcheck"]["test"]
    for name in ONCE:
        assert services[name]["restart"] == "no"
        assert "healthcheck" not in services[name]


def test_each_service_waits_for_what_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how == {"condition": expected}, (name, other)
    # If no service depends on it, `docker compose up --wait` treats the end of a service as a failure.
    awaited = {other for service in services.values() for other in service.get("depends_on", {})}
    assert awaited >= ONCE
    for name in ("airflow-apiserver", "airflow-scheduler", "airflow-worker"):
        assert services[name]["depends_on"].keys() >= {"postgres", "redis", "airflow-init"}


def test_images_are_pinned_by_version(services: dict[str, Any]) -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    constraints = (ROOT / "constraints/airflow-3.3-celery.txt").read_text()
    (airflow_version,) = re.findall(r"^apache-airflow==(\S+)$", constraints, re.MULTILINE)
    assert f"FROM apache/airflow:{airflow_version}-python3.12\n" in dockerfile
    for service in services.values():
        image, _, tag = service["image"].partition(":")
        assert re.match(r"\d+\.\d+", tag)
        if image == "airflow-coveo":
            assert tag == airflow_version
    (builder,) = [name for name, service in services.items() if "build" in service]
    assert services[builder]["build"] == {"context": ".", "dockerfile": "docker/Dockerfile"}
    assert services[builder]["depends_on"] == {}


def test_ports_are_published_only_on_this_machine(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


# --- secrets ---


def test_the_compose_file_requires_each_secret_and_contains_none(secrets: dict[str, str]) -> None:
    text = COMPOSE_FILE.read_text()
    uncommented = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    asked_for = re.findall(r"(?<!\$)\$\{(\w+)(:\?[^}]+)?\}", uncommented)
    assert {name for name, _ in asked_for} == secrets.keys()
    assert all(told == ":?run docker/make-env" for _, told in asked_for)
    # Whatever has the name of a secret gets its value from a variable.
    named = re.findall(r"^\s*(\w*(?:PASSWORD|SECRET|KEY|CONN\w*)\w*): (.*)$", uncommented, re.MULTILINE)
    assert len(named) >= 8
    assert all("${" in value for _, value in named)


@pytest.mark.parametrize("value", [None, ""])
def test_the_error_names_a_missing_secret(
    script: ModuleType, secrets: dict[str, str], services: dict[str, Any], value: str | None
) -> None:
    for name in secrets:
        without = {**secrets, name: value}
        if value is None:
            del without[name]
        with pytest.raises(script.ClusterError, match=f"{name}.*run docker/make-env"):
            script.interpolate(services, without)


def test_variables_are_interpolated_as_by_docker_compose(script: ModuleType) -> None:
    text = "$$A $A ${A} ${B:-b} ${A:-b} ${C:-} ${EMPTY:-e} $C"
    assert script.interpolate(text, {"A": "a", "EMPTY": ""}) == "$A a a b a  e "
    assert script.interpolate({"a": ["$A", 1, None]}, {"A": "$B"}) == {"a": ["$B", 1, None]}


def test_make_env_creates_the_secrets_once_and_only_for_the_owner(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    (tmp_path / "docker").mkdir()
    maker = shutil.copy(ROOT / "docker/make-env", tmp_path / "docker")
    subprocess.run([maker], check=True)
    made = tmp_path / ".env"
    first = made.read_text()
    assert made.stat().st_mode & 0o777 == 0o600
    values = dict(re.fullmatch(r"(\w+)='([^']+)'", line).groups() for line in first.splitlines())  # type: ignore[union-attr]
    assert values.keys() == secrets.keys()
    assert not set(values.values()) & set(secrets.values())
    connection = json.loads(values["AIRFLOW_CONN_COVEO_DEFAULT"])
    assert connection["password"] == values["COVEO_SIMULATOR_API_KEY"]
    assert connection["host"] == "https://coveo-simulator:8642"

    again = subprocess.run([maker], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "already exists; not replacing it" in again.stderr
    assert made.read_text() == first
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


# --- the image ---


def test_the_build_context_of_the_image_contains_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    context = tmp_path / "context"
    rules = [rule for rule in (ROOT / ".dockerignore").read_text().splitlines() if rule[:1] not in ("#", "")]
    assert rules[0] == "*"
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    (built_from,) = re.findall(r"^INSTALLED_FROM := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {Path(name).parts[0] for name in built_from.split()} | {"README.md", "LICENSE"} == set(let_in)
    for name in let_in:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, context],
        check=True,
        capture_output=True,
    )
    wheel = zipfile.ZipFile(tmp_path / f"airflow_provider_coveo-{__version__}-py3-none-any.whl")
    packed = {name for name in wheel.namelist() if name.startswith("airflow_provider_coveo/")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "airflow_provider_coveo").rglob("*")
        if path.is_file() and not fnmatch(path.as_posix(), "*/__pycache__/*")
    }
    assert packed == sources


# --- without containers ---


def test_the_commands_without_containers_refer_to_no_container(
    script: ModuleType, tmp_path: Path, secrets: dict[str, str], services: dict[str, Any]
) -> None:
    ports = {name: 50_001 + number for number, name in enumerate(script.PORTS)}
    settings = {"ports": ports, "secrets": secrets, "workers": 3, "env": {"OWN": "1"}, "dags": None}
    (tmp_path / "cluster.json").write_text(json.dumps(settings))
    shutil.copy(COMPOSE_FILE, tmp_path)
    cluster = script.Cluster(tmp_path)

    assert cluster.services.keys() == services.keys()
    assert [name for name in cluster.components() if name.startswith("airflow-worker")] == [
        f"airflow-worker-{number}" for number in (1, 2, 3)
    ]
    run = {
        name: {key: service.get(key) for key in ("command", "environment", "healthcheck", "working_dir")}
        for name, service in cluster.services.items()
    }
    text = json.dumps(run)
    for gone in ("/opt/airflow", "0.0.0.0", "localhost:", "@postgres", "@redis", "${", "$$"):
        assert gone not in text
    assert not re.search(r"\b(5432|6379|8080|8642|8974)\b", text)
    for port in ports.values():
        assert f"{port}" in text
    begins = {
        name: cluster.arguments(name)[:2]
        for name in cluster.components()
        # Its image contains the command.
        if name != "postgres"
    }
    assert begins == {
        "redis": ["bash", "-c"],
        "certificate": ["bash", "-c"],
        "coveo-simulator": ["python", "-m"],
        "airflow-init": ["bash", "-c"],
        "airflow-apiserver": ["airflow", "api-server"],
        "airflow-scheduler": ["airflow", "scheduler"],
        "airflow-dag-processor": ["airflow", "dag-processor"],
        "airflow-triggerer": ["airflow", "triggerer"],
        "airflow-worker-1": ["bash", "-c"],
        "airflow-worker-2": ["bash", "-c"],
        "airflow-worker-3": ["bash", "-c"],
    }
    worker = cluster.services["airflow-worker"]["environment"]
    assert worker["OWN"] == "1"
    assert worker["AIRFLOW__CORE__DAGS_FOLDER"] == str(ROOT / "dags_examples")
    assert json.loads(worker["AIRFLOW_CONN_COVEO_DEFAULT"])["extra"] == {
        "verify": str(tmp_path / "volumes/certificate/client.pem")
    }
    assert "OWN" not in cluster.services["coveo-simulator"]["environment"]
