"""The connection form for Airflow 2.11; Airflow 3 reads it from the provider's metadata."""

from __future__ import annotations

from airflow_provider_coveo.get_provider_info import CONNECTION_FORM


def form_widgets() -> dict[str, object]:
    """Return the form's fields besides the standard ones."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import StringField
    from wtforms.validators import any_of, optional

    widgets = {}
    for name, described in CONNECTION_FORM["conn-fields"].items():
        schema = described["schema"]
        widgets[name] = StringField(
            lazy_gettext(described["label"]),
            widget=BS3TextFieldWidget(),
            description=described["description"],
            default=schema.get("default"),
            validators=[optional(), *([any_of(schema["enum"])] if "enum" in schema else [])],
        )
    return widgets


def form_behaviour() -> dict[str, object]:
    """Return the form's hidden fields, labels and placeholders."""
    behaviour = CONNECTION_FORM["ui-field-behaviour"]
    return {
        "hidden_fields": list(behaviour["hidden-fields"]),
        "relabeling": dict(behaviour["relabeling"]),
        "placeholders": dict(behaviour["placeholders"]),
    }
