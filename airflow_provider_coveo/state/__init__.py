"""
State that outlives one attempt of one task, and Airflow's data about runs.

- :mod:`~airflow_provider_coveo.state.ledger`: the owner of a source, since when and by which `open`; what
  each bracket of each run opened and closed; the runs that pushed to a source, and their first cut-offs.
- :mod:`~airflow_provider_coveo.state.task_store`: values of one task in one run.
- :mod:`~airflow_provider_coveo.state.created_sources`: the creation of a source by a task.
- :mod:`~airflow_provider_coveo.state.variables`: the only reader and writer of Airflow Variables.
- :mod:`~airflow_provider_coveo.state.airflow_runs`: states of tasks and runs, and every check of Airflow's
  version.
"""
