"""
The types of Airflow's objects that no public module of both Airflow 2.11 and 3 names. For annotations only.

A module imports this one under ``TYPE_CHECKING``, so nothing of Airflow is loaded for it.
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
    #: A task or a group: what a task group holds.
    Node: TypeAlias = DAGNode
