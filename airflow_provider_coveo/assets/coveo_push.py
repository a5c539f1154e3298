"""
Push sources as Airflow assets: ``coveo://{organization}/{source}``.

Airflow finds these functions by the provider's metadata. It normalizes each such URI by
:func:`sanitize_uri`, however the asset was made. Airflow 3 tells assets by their names as well, and the name
is the URI as it was written, so :func:`push_source_asset` writes the normal form.
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

SCHEME: Final = "coveo"
#: Airflow 3.4 shows the tab *Push source* on the page of each asset of this group.
_GROUP: Final[dict[str, Any]] = (
    {"group": SCHEME} if "group" in inspect.signature(Asset.__init__).parameters else {}
)


def push_source_asset(*, source_id: str, organization_id: str, extra: dict[str, Any] | None = None) -> Asset:
    """
    Return the asset that stands for a Push source, on Airflow 2.11 the dataset.

    Name it among the ``outlets`` of a task that updates the source, or of ``push_source_update``, and as the
    ``schedule`` of a DAG that is to run after that.

    :param source_id: The ID of the source.
    :param organization_id: The ID of the organization; case does not matter, as in Coveo's host names.
    :param extra: What else is to be kept with the asset.
    :raises CoveoInputError: if an ID can't be one. A template can't: a DAG's assets are known when it is
        parsed.
    """
    uri = f"{SCHEME}://{validate_organization_id(organization_id).lower()}/{validate_source_id(source_id)}"
    return Asset(uri=uri, extra=extra, **_GROUP)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Return the normal form of ``coveo://{organization}/{source}``.

    :param uri: What was given to Airflow as the asset's URI, split.
    :raises CoveoInputError: a ``ValueError``, if it is anything else.
    """
    try:
        organization = validate_organization_id(uri.netloc.lower())
        source = validate_source_id(uri._replace(scheme="", netloc="").geturl().strip("/"))
    except CoveoInputError as error:
        raise CoveoInputError(
            f"{uri.geturl()!r} names no Push source",
            cause=error.tried,
            remedy=f"Write {SCHEME}://ORGANIZATION_ID/SOURCE_ID",
        ) from None
    return uri._replace(scheme=SCHEME, netloc=organization, path=f"/{source}", fragment="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:
    """
    Return the OpenLineage dataset that stands for a Push source.

    :param asset: The asset.
    :param lineage_context: What else Airflow passes; it is not needed.
    """
    uri = urlsplit(asset.uri)
    return source_dataset(uri.netloc, uri.path.lstrip("/"))


def source_dataset(organization_id: str, source_id: str) -> Dataset:
    """
    Return the OpenLineage dataset of a source: the organization is its namespace.

    :param organization_id: The ID of the organization.
    :param source_id: The ID of the source.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(namespace=f"{SCHEME}://{organization_id.lower()}", name=source_id)
