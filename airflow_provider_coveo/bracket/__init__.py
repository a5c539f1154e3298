"""
The bracket around a content update, below the task group that wires it.

- :mod:`~airflow_provider_coveo.bracket.open_task`, :mod:`~airflow_provider_coveo.bracket.delete_task` and
  :mod:`~airflow_provider_coveo.bracket.end_tasks`: its tasks.
- :mod:`~airflow_provider_coveo.bracket.members`: which tasks belong to it, by the graph.
- :mod:`~airflow_provider_coveo.bracket.opening`: how it opens a source.
- :mod:`~airflow_provider_coveo.bracket.reopening`: what each member does before it works.
- :mod:`~airflow_provider_coveo.bracket.callbacks`: what closes it when the run ends otherwise.
"""
