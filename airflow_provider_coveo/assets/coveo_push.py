"""
Push sources as Airflow assets: ``coveo://{organization}/{source}``.

Airflow finds these functions through the provider's metadata. It normalizes every such URI with
:func:`sanitize_uri`. Airflow 3 also identifies assets by name, and the name is the original URI, so
:func:`push_source_asset` already creates the normal form.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_coveo.coveo.endpoints import validate_organization_id, validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from pydantic import JsonValue

SCHEME: Final = "coveo"
#: Airflow 3.4 shows the tab *Push source* on the page of each asset of this group.
_GROUP: Final[dict[str, Any]] = (
    {"group": SCHEME} if "group" in inspect.signature(Asset.__init__).parameters else {}
)


def push_source_asset(
    *, source_id: str, organization_id: str, extra: dict[str, JsonValue] | None = None
) -> Asset:
    """
    Return the asset of a Push source; on Airflow 2.11, the dataset.

    Add it to the ``outlets`` of a task that updates the source, or of ``push_source_update``, and set it as
    the ``schedule`` of a DAG that should run afterward.

    :param source_id: The ID of the source.
    :param organization_id: The ID of the organization, in any case, as in Coveo's host names.
    :param extra: Further data to save with the asset.
    :raises CoveoInputError: if an ID is invalid. Templates are not supported: Airflow needs a DAG's assets
        when it parses the DAG.
    """
    uri = f"{SCHEME}://{validate_organization_id(organization_id).lower()}/{validate_source_id(source_id)}"
    return Asset(uri=uri, extra=extra, **_GROUP)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Return the normal form of ``coveo://{organization}/{source}``.

    :param uri: The asset's URI, split.
    :raises CoveoInputError: (a ``ValueError``) if it is anything else.
    """
    try:
        organization = validate_organization_id(uri.netloc.lower())
        source = validate_source_id(uri._replace(scheme="", netloc="").geturl().strip("/"))
    except CoveoInputError as error:
        raise CoveoInputError(
            f"Invalid URI of a Push source: {uri.geturl()!r}",
            cause=error.tried,
            remedy=f"Use {SCHEME}://ORGANIZATION_ID/SOURCE_ID",
        ) from None
    return uri._replace(scheme=SCHEME, netloc=organization, path=f"/{source}", fragment="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:
    """
    Return the OpenLineage dataset of a Push source.

    :param asset: The asset.
    :param lineage_context: Passed by Airflow; not used.
    """
    uri = urlsplit(asset.uri)
    return source_dataset(uri.netloc, uri.path.lstrip("/"))


def source_dataset(organization_id: str, source_id: str) -> Dataset:
    """
    Return the OpenLineage dataset of a source. Its namespace is the organization.

    :param organization_id: The ID of the organization.
    :param source_id: The ID of the source.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(namespace=f"{SCHEME}://{organization_id.lower()}", name=source_id)
