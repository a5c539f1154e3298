"""The arguments that editors and type checkers know of are those that Airflow and the classes accept."""

from __future__ import annotations

import inspect

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, TaskGroup

from airflow_provider_coveo.operators import arguments
from airflow_provider_coveo.operators.push_base import _ItemsPushOperator
from airflow_provider_coveo.sensors.coveo_push import _CoveoSensor
from airflow_provider_coveo.task_groups.arguments import NamedGroupArguments
from airflow_provider_coveo.triggers.coveo_push import TriggerArguments, _CoveoTrigger

#: Airflow 2.11 warns of it.
DEPRECATED = {"task_concurrency"}


def accepted(function: object) -> set[str]:
    """Return the names of a constructor's keyword arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} - {"self"}


@pytest.mark.parametrize(
    ("known", "base"),
    [
        (arguments.TaskArguments, BaseOperator),
        (arguments.AirflowArguments, BaseSensorOperator),
        (NamedGroupArguments, TaskGroup),
        (arguments.PushArguments, _ItemsPushOperator),
        (arguments.StatusSensorArguments, _CoveoSensor),
        (TriggerArguments, _CoveoTrigger),
    ],
    ids=lambda each: each.__name__,
)
def test_every_argument_of_a_base_class_is_declared(known: type, base: type) -> None:
    assert accepted(base.__init__) - DEPRECATED - known.__annotations__.keys() == set()


@pytest.mark.parametrize("name", ["DeletionArguments", "RejectedPushArguments", "IndexedSensorArguments"])
def test_every_declared_argument_exists_in_a_base_class(name: str) -> None:
    known = getattr(arguments, name).__annotations__.keys()
    bases = (_ItemsPushOperator, _CoveoSensor, BaseSensorOperator)
    ours = {
        *arguments.ConnectionArguments.__annotations__,
        *(each for base in bases for each in accepted(base.__init__)),
    }
    assert known - ours == set()
