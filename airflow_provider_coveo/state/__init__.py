"""
State that outlives one attempt of one task, and what Airflow knows of runs.

- :mod:`~airflow_provider_coveo.state.ledger`: who holds a source open, since when and by which opening; what
  each bracket of each run opened and closed; which run pushed to a source, and its first cut-off.
- :mod:`~airflow_provider_coveo.state.task_store`: values of one task in one run.
- :mod:`~airflow_provider_coveo.state.created_sources`: how a task created a source.
- :mod:`~airflow_provider_coveo.state.variables`: the only reader and writer of Airflow Variables.
- :mod:`~airflow_provider_coveo.state.airflow_runs`: states of tasks and runs, and every check of Airflow's
  version.
"""
