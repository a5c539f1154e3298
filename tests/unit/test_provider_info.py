from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from airflow_provider_coveo.coveo.connection import _EXTRAS
from airflow_provider_coveo.coveo.endpoints import REGIONS
from airflow_provider_coveo.get_provider_info import CONNECTION_FORM, get_provider_info


def test_the_metadata_is_valid_by_airflow_s_own_schema() -> None:
    import json

    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    assert get_provider_info()["package-name"] == "airflow-provider-coveo"


def test_reading_the_metadata_does_not_import_airflow() -> None:
    script = (
        "import sys; from airflow_provider_coveo.get_provider_info import get_provider_info as g; g(); "
        "sys.exit(any(name.split('.')[0] == 'airflow' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_every_module_in_the_metadata_exists() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                assert find_spec(module) is not None


def test_every_object_in_the_metadata_that_airflow_imports_exists() -> None:
    info = get_provider_info()
    (uris,) = info["asset-uris"]
    assert info["dataset-uris"] == [uris]
    named = [*info["extra-links"], *info["notifications"], *(uris[key] for key in uris if key != "schemes")]
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__module__ == module


def test_the_form_offers_all_regions() -> None:
    assert CONNECTION_FORM["conn-fields"]["region"]["schema"]["enum"] == list(REGIONS)


def test_the_form_has_the_fields_that_the_hook_reads() -> None:
    behaviour = CONNECTION_FORM["ui-field-behaviour"]
    assert behaviour["hidden-fields"] == ["schema", "port"]
    assert behaviour["relabeling"] == {
        "login": "Organization ID",
        "password": "API key",
        "host": "Base URL",
    }
    assert set(CONNECTION_FORM["conn-fields"]) == _EXTRAS
    for described in CONNECTION_FORM["conn-fields"].values():
        # Airflow's forms save a blank field as null.
        assert described["schema"]["type"] == ["string", "null"]


def test_both_connection_forms_have_the_same_behavior() -> None:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    behaviour = CoveoPushHook.get_ui_field_behaviour()
    described = CONNECTION_FORM["ui-field-behaviour"]
    assert behaviour == {
        "hidden_fields": described["hidden-fields"],
        "relabeling": described["relabeling"],
        "placeholders": described["placeholders"],
    }
    assert CoveoPushHook.conn_type == CONNECTION_FORM["connection-type"]
    assert CoveoPushHook.hook_name == CONNECTION_FORM["hook-name"]
    # Airflow 2.11 searches for these in the class itself, not in its base classes.
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(CoveoPushHook))


@pytest.mark.skipif(find_spec("flask_appbuilder") is None, reason="only Airflow 2.11 builds forms of widgets")
def test_the_widgets_of_the_older_form_match_the_fields_of_the_newer_one() -> None:
    from airflow_provider_coveo.hooks.coveo_push import CoveoPushHook

    widgets = CoveoPushHook.get_connection_form_widgets()
    assert list(widgets) == list(CONNECTION_FORM["conn-fields"])
    for name, described in CONNECTION_FORM["conn-fields"].items():
        assert str(widgets[name].args[0]) == described["label"]
        assert widgets[name].kwargs["description"] == described["description"]
        assert widgets[name].kwargs["default"] == described["schema"].get("default")
