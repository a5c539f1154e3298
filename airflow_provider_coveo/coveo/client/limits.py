"""The limits of an organization."""

from __future__ import annotations

from airflow_provider_coveo.coveo.caller import Caller
from airflow_provider_coveo.coveo.calls import DAILY_ITEMS_LIMIT, daily_items_call, limit_call
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.responses import JsonObject
from airflow_provider_coveo.coveo.retries import RetryPolicy


class Limits:
    """
    The limits of an organization, and how much of them is used.

    :param caller: Makes the requests.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get_limit(self, key: str = DAILY_ITEMS_LIMIT) -> JsonObject:
        """
        Return a limit of the organization, and how much of it is used. See https://docs.coveo.com/en/63/.

        :param key: Which one. Default: how many items may be pushed a day.
        :return: ``limit``, ``actualCount`` and what else Coveo says of it.
        :raises AccessDeniedError: if the key may not view the organization, as a push-only key.
        :raises CoveoError: if Coveo refuses otherwise, or does not answer.
        """
        return self._caller.call(limit_call(self._caller.organization_id, key))

    def daily_items(self) -> tuple[int, int]:
        """
        Return how many items may be pushed in a day, and how many have been today; asked for once.

        :raises CoveoError: if Coveo does not say, as it does not to a key that may not view limits.
        """
        call = daily_items_call(self._caller.organization_id)
        return self._caller.call(call, RetryPolicy(total_seconds=0))

    def remaining_daily_items(self) -> int | None:
        """
        Return how many items may still be pushed today, ``None`` where that can't be told.

        It is asked for once and briefly: not to know it is no reason to fail.
        """
        try:
            limit, used = self.daily_items()
        except CoveoError as error:
            self._caller.log.info("Could not tell how many items may still be pushed today: %s", error)
            return None
        return max(0, limit - used)
