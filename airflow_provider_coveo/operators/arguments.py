"""
The keyword arguments that operators pass on to their base classes.

They exist for type checkers and editors only, so no module imports them when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, MutableMapping, Sequence
    from datetime import datetime, timedelta

    from airflow.providers.common.compat.sdk import DAG, Context, TaskGroup
    from airflow.sdk.definitions.retry_policy import RetryPolicy
    from airflow.sdk.types import WeightRuleParam

    Callback = Callable[[Context], None]


class TaskArguments(TypedDict, total=False):
    """The arguments of every task; see Airflow's ``BaseOperator``."""

    task_id: str
    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    max_retry_delay: timedelta | float | None
    #: Airflow 3.3 and later.
    retry_policy: RetryPolicy | None
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    dag: DAG | None
    params: MutableMapping[str, object] | None
    default_args: dict[str, object] | None
    priority_weight: int
    weight_rule: WeightRuleParam
    queue: str
    pool: str | None
    pool_slots: int
    sla: timedelta | None
    execution_timeout: timedelta | None
    on_execute_callback: Callback | Collection[Callback] | None
    on_failure_callback: Callback | list[Callback] | None
    on_success_callback: Callback | Collection[Callback] | None
    on_retry_callback: Callback | list[Callback] | None
    on_skipped_callback: Callback | Collection[Callback] | None
    pre_execute: Callable[[Context], None] | None
    post_execute: Callable[[Context, object], None] | None
    trigger_rule: str
    resources: dict[str, object] | None
    run_as_user: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: dict[str, object] | None
    do_xcom_push: bool
    multiple_outputs: bool
    #: Assets, or objects of OpenLineage.
    inlets: object
    outlets: object
    task_group: TaskGroup | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    allow_nested_operators: bool
    #: Airflow 3.2 and later.
    render_template_as_native_obj: bool | None


class ConnectionArguments(TaskArguments, total=False):
    """The arguments of every operator for Coveo."""

    coveo_conn_id: str
    organization_id: str | None


class SourceArguments(ConnectionArguments, total=False):
    """The arguments of every operator for one source."""

    source_id: str


class _RetriedPushArguments(SourceArguments, total=False):
    batch_bytes: int | str | None
    upload_concurrency: int | str | None
    resume: bool | str
    rejected_path: object
    dry_run: bool | str


class RejectedPushArguments(_RetriedPushArguments, total=False):
    """The arguments of an operator that pushes rejected items again, without those of its own."""

    check_quota: bool | str
    check_fields: str | None


class DeletionArguments(_RetriedPushArguments, total=False):
    """The arguments of an operator that deletes items, without those of its own."""

    on_invalid: str
    max_invalid: int | str | None


class PushArguments(DeletionArguments, RejectedPushArguments, total=False):
    """The arguments of every operator that pushes items."""

    only_changes: bool | str
    max_deleted: int | str | None
    snapshot_path: str | None
    full_after: timedelta | None
    on_damaged_snapshot: str | None


class _Waits(TypedDict, total=False):
    soft_fail: bool
    mode: str
    exponential_backoff: bool
    max_wait: timedelta | float | None
    silent_fail: bool
    never_fail: bool


class _Polls(_Waits, total=False):
    poke_interval: timedelta | float
    timeout: timedelta | float


class AirflowArguments(TaskArguments, _Polls, total=False):
    """What Airflow's own operators and sensors accept."""


class WaitingArguments(ConnectionArguments, _Polls, total=False):
    """The arguments of every sensor for Coveo."""


class IndexedSensorArguments(ConnectionArguments, _Waits, total=False):
    """The arguments of a sensor that sets the interval and the timeout itself."""

    deferrable: bool | None


class QuotaSensorArguments(IndexedSensorArguments, total=False):
    """The arguments of a sensor that sets the interval itself."""

    timeout: timedelta | float


class StatusSensorArguments(QuotaSensorArguments, total=False):
    """The arguments of a sensor that sets neither the interval nor the timeout itself."""

    poke_interval: timedelta | float
