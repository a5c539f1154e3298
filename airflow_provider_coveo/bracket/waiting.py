"""Let a bracket's last tasks wait for a task that was cleared after Airflow had started them."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Final

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_coveo.bracket.members import listed
from airflow_provider_coveo.state.airflow_runs import FINISHED_STATES, TaskStates

log = logging.getLogger(__name__)

#: The delay before Airflow starts the task again. Airflow also waits for the bracket's tasks then.
_DELAY: Final = timedelta(seconds=10)


def wait_for_unfinished(found: TaskStates) -> None:
    """
    Make Airflow run the current task again once the bracket's tasks have ended.

    Airflow starts this task once they have ended. If one of them is cleared at that moment without this task,
    this task would close the source while that one runs, and ignore its result.

    :param found: The states of the bracket's tasks.
    :raises airflow.exceptions.AirflowRescheduleException: if one of them has not ended.
    """
    unfinished = [
        task_id for task_id, by_index in found.items() if not set(by_index.values()) <= FINISHED_STATES
    ]
    if unfinished:
        log.info("Waiting for %s, which was cleared in the meantime", listed(unfinished))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + _DELAY)
