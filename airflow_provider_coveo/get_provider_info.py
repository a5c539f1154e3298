"""
The provider's metadata, which Airflow reads when it starts.

Airflow calls this while its own configuration is still loading, so this module must not import Airflow. It
defines the connection form once: Airflow 3 reads the definition, and the hook's two classmethods turn it into
the widgets that Airflow 2.11 needs.
"""

from __future__ import annotations

from typing import Any, Final

CONNECTION_TYPE: Final = "coveo"

_REGIONS: Final = ("us", "ca", "eu", "au", "hipaa")

CONNECTION_FORM: Final[dict[str, Any]] = {
    "connection-type": CONNECTION_TYPE,
    "hook-class-name": "airflow_provider_coveo.hooks.coveo_push.CoveoPushHook",
    "hook-name": "Coveo",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port"],
        "relabeling": {"login": "Organization ID", "password": "API key", "host": "Base URL"},
        "placeholders": {
            "login": "mycoveoorganizationg8tp8wu3",
            "host": "leave empty to use the region's URL",
        },
    },
    "conn-fields": {
        "region": {
            "label": "Region",
            "description": "The region of the organization: us (US East), ca (Canada), eu (Ireland), "
            "au (Australia) or hipaa. Default: us.",
            "schema": {"type": ["string", "null"], "enum": list(_REGIONS), "default": "us"},
        },
        "platform_host": {
            "label": "Platform base URL",
            "description": "Base URL of Coveo's platform API. Default: the base URL above if it is set, "
            "otherwise the region's.",
            "schema": {"type": ["string", "null"]},
        },
        "timeout": {
            "label": "Timeout (s)",
            "description": "Seconds to wait for the connection and for the next byte: one number, or two "
            "separated by a comma. Default: 10,60.",
            "schema": {"type": ["string", "null"]},
        },
        "total_timeout": {
            "label": "Total timeout (s)",
            "description": "Seconds that one request can take in total. Default: five times the timeout, "
            "plus one second for each 16 KiB of the request.",
            "schema": {"type": ["string", "null"]},
        },
        "proxies": {
            "label": "Proxies",
            "description": "A proxy's URL for all requests, or a JSON object of scheme to URL. Default: the "
            "worker's environment.",
            "schema": {"type": ["string", "null"]},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "true, false, or the path of a CA bundle on the worker. Default: true.",
            "schema": {"type": ["string", "null"]},
        },
        "call_interval": {
            "label": "Seconds between calls",
            "description": "Minimum interval between Push API calls of one task, 0 to 30 seconds. "
            "Default: 0.",
            "schema": {"type": ["string", "null"]},
        },
        "snapshot_path": {
            "label": "Snapshots",
            "description": "Folder for the snapshots of pushes with only_changes, local or on an object "
            "storage, that all workers reach. Empty means that each task names its own.",
            "schema": {"type": ["string", "null"]},
        },
    },
}

_ASSET_URI: Final[dict[str, object]] = {
    "schemes": ["coveo"],
    "handler": "airflow_provider_coveo.assets.coveo_push.sanitize_uri",
    "factory": "airflow_provider_coveo.assets.coveo_push.push_source_asset",
    "to_openlineage_converter": "airflow_provider_coveo.assets.coveo_push.convert_asset_to_openlineage",
}

_CONFIG: Final[dict[str, object]] = {
    "coveo": {
        "description": "Settings of the provider for Coveo.",
        "options": {
            "push_sources_page": {
                "description": "Whether Airflow's web interface shows the page *Push sources*.",
                "version_added": "0.2.0",
                "type": "boolean",
                "example": None,
                "default": "True",
            }
        },
    }
}


def get_provider_info() -> dict[str, object]:
    """Return the provider's metadata in the form of Airflow's ``provider.yaml`` schema."""
    return {
        "package-name": "airflow-provider-coveo",
        "name": "Coveo",
        "description": "Bracket content updates of `Coveo <https://www.coveo.com/>`__ Push sources with "
        "status changes, push items, and create, reset, recreate and delete sources.",
        "integrations": [
            {
                "integration-name": "Coveo",
                "external-doc-url": "https://docs.coveo.com/en/68/",
                "tags": ["service"],
            }
        ],
        "connection-types": [CONNECTION_FORM],
        "hooks": [
            {
                "integration-name": "Coveo",
                "python-modules": ["airflow_provider_coveo.hooks.coveo_push"],
            }
        ],
        "task-decorators": [
            {
                "name": "coveo_push",
                "class-name": "airflow_provider_coveo.decorators.coveo_push.coveo_push_task",
            }
        ],
        "extra-links": [
            "airflow_provider_coveo.links.coveo_push.CoveoSourcesLink",
            "airflow_provider_coveo.links.coveo_push.CoveoLogBrowserLink",
            "airflow_provider_coveo.links.coveo_push.PushSourceLink",
        ],
        "notifications": ["airflow_provider_coveo.notifications.coveo_push.CoveoSourceStatusNotifier"],
        # The entry point `airflow.plugins` has the same name, so the plugin is loaded only once.
        "plugins": [
            {
                "name": "coveo_push_sources",
                "plugin-class": "airflow_provider_coveo.plugins.push_sources.PushSourcesPlugin",
            }
        ],
        "config": _CONFIG,
        "asset-uris": [_ASSET_URI],
        # Airflow 2.11 calls assets datasets.
        "dataset-uris": [_ASSET_URI],
        "operators": [
            {
                "integration-name": "Coveo",
                "python-modules": [
                    "airflow_provider_coveo.operators.coveo_push",
                    "airflow_provider_coveo.operators.coveo_source",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "Coveo",
                "python-modules": ["airflow_provider_coveo.sensors.coveo_push"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Coveo",
                "python-modules": ["airflow_provider_coveo.triggers.coveo_push"],
            }
        ],
    }
