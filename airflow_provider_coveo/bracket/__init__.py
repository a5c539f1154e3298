"""
The bracket around a content update, below the task group that wires it.

- :mod:`~airflow_provider_coveo.bracket.open_task`, :mod:`~airflow_provider_coveo.bracket.delete_task` and
  :mod:`~airflow_provider_coveo.bracket.end_tasks`: its tasks.
- :mod:`~airflow_provider_coveo.bracket.members`: the tasks that belong to it, derived from the graph.
- :mod:`~airflow_provider_coveo.bracket.opening`: opening the source.
- :mod:`~airflow_provider_coveo.bracket.reopening`: the check of each member before it runs.
- :mod:`~airflow_provider_coveo.bracket.callbacks`: closing the source if the bracket's own tasks did not.
"""
