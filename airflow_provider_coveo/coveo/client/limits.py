"""The limits of an organization."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.calls import DAILY_ITEMS_LIMIT, daily_items_call, limit_call
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.responses import JsonObject
from airflow_provider_coveo.coveo.retries import ONE_ATTEMPT


class Limits:
    """
    The limits of an organization, and the used part of each.

    :param caller: Makes the requests.
    :param daily_items: Returns the daily quota, and its used part. Default: :meth:`daily_items`.
    """

    def __init__(self, caller: Caller, daily_items: Callable[[], tuple[int, int]] | None = None) -> None:
        self._caller = caller
        self._daily_items = self.daily_items if daily_items is None else daily_items

    def get_limit(self, key: str = DAILY_ITEMS_LIMIT) -> JsonObject:
        """
        Return a limit of the organization, and its used part. See https://docs.coveo.com/en/63/.

        :param key: The key of the limit. Default: the daily limit of pushed items.
        :return: ``limit``, ``actualCount`` and anything else that Coveo returns.
        :raises AccessDeniedError: if the key lacks the privilege to view the organization.
        :raises CoveoError: if the request fails otherwise.
        """
        return self._caller.call(limit_call(self._caller.organization_id, key))

    def daily_items(self) -> tuple[int, int]:
        """
        Return the daily limit of pushed items, and how many were pushed today. It sends one request.

        :raises CoveoError: if the request fails, for example because the key lacks the privilege to view
            limits.
        """
        call = daily_items_call(self._caller.organization_id)
        return self._caller.call(call, ONE_ATTEMPT)

    def remaining_daily_items(self) -> int | None:
        """
        Return how many items can still be pushed today, or ``None`` if that is unknown.

        It sends one request and doesn't retry: a push does not fail because this is unknown.
        """
        try:
            limit, used = self._daily_items()
        except CoveoError as error:
            self._caller.log.info("Could not read how many items can still be pushed today: %s", error)
            return None
        return max(0, limit - used)
