"""How a bracket's closing tasks wait for a task that was cleared after Airflow had started them."""

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

#: How long a closing task waits before Airflow starts it again, which also waits for the bracket's tasks.
_DELAY: Final = timedelta(seconds=10)


def wait_for_unfinished(found: TaskStates) -> None:
    """
    Have Airflow run the present task again once the bracket's tasks have ended.

    Airflow starts a closing task once they have ended. If one of them is cleared in that moment, and the
    closing task is not, it would close the source under that task, and judge the run without it.

    :param found: The states of the bracket's tasks.
    :raises AirflowRescheduleException: if one of them has not ended.
    """
    unfinished = [
        task_id for task_id, by_index in found.items() if not set(by_index.values()) <= FINISHED_STATES
    ]
    if unfinished:
        log.info("Waiting for %s, which was cleared meanwhile", listed(unfinished))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + _DELAY)
