"""The addresses of the page's view on Airflow 2.11. tests/browser asks for each of them as each role."""

from __future__ import annotations

import inspect

import pytest

from airflow_provider_coveo.links.push_sources_page import airflow_line
from tests.push_sources_routes import ROUTES

pytestmark = pytest.mark.skipif(airflow_line() >= (3, 0), reason="the view of Airflow 2.11")


def test_the_routes_are_exactly_the_expected_ones_and_require_permissions() -> None:
    from airflow_provider_coveo.plugins.appbuilder_view import PushSourcesView

    exposed = [
        (path, methods, function)
        for _, function in inspect.getmembers(PushSourcesView, callable)
        for path, methods in getattr(function, "_urls", ())
    ]
    assert {path for path, _, _ in exposed} == set(ROUTES)
    # Nothing changes anything, so that no other site can have a browser change it.
    assert {method for _, methods, _ in exposed for method in methods} == {"GET"}
    # What asks for a permission wraps the function that answers.
    assert all(hasattr(function, "__wrapped__") for _, _, function in exposed)
