"""
Types of Airflow objects that no module exports in both Airflow 2.11 and 3. For annotations only.

Import this module under ``TYPE_CHECKING``, so that it loads nothing of Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator
    from airflow.sdk.definitions._internal.mixins import DependencyMixin
    from airflow.sdk.definitions._internal.node import DAGNode

    #: A task in a DAG, mapped or not.
    Operator: TypeAlias = BaseOperator | MappedOperator
    #: What ``>>`` connects: a task, a group, the result of a decorated task, or an edge label.
    Wirable: TypeAlias = DependencyMixin
    #: What Airflow's wiring methods accept.
    Wirables: TypeAlias = DependencyMixin | Sequence[DependencyMixin]
    #: A task or a group: the children of a task group.
    Node: TypeAlias = DAGNode
