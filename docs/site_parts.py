"""Parts of the pages that are generated from the code, so that they can't contradict it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from diagrams import DIAGRAMS

from airflow_provider_coveo.coveo import errors
from airflow_provider_coveo.coveo.endpoints import DEFAULT_REGION, REGIONS
from airflow_provider_coveo.coveo.retries import RetryPolicy
from airflow_provider_coveo.coveo.statuses import SourceStatus
from airflow_provider_coveo.get_provider_info import CONNECTION_FORM

#: How long the hook retries.
PATIENCE: Final = f"{RetryPolicy().total_seconds / 60:g} minutes"

HERE = Path(__file__).resolve().parent
PARTS = HERE / "_parts"

#: The standard fields of a connection, which the form only relabels.
_STANDARD_FIELDS: Final = {
    "login": "The [organization ID](https://docs.coveo.com/en/148/).",
    "password": "The API key. It is the only secret here.",
    "host": "Leave it empty, unless a proxy or the simulator stands in for Coveo. Then set a base URL: "
    "`https`, or `http` on this machine's loopback address.",
}

#: Advice that the class of an error does not give.
_MORE: Final[dict[str, str]] = {
    "INVALID_TOKEN": "*Test* of the connection lists the regions. It sends the key to no other host.",
    "ACCESS_DENIED": "[API key privileges](security.md#api-key-privileges) lists what each part of the "
    "provider needs.",
    "ORGANIZATION_NOT_FOUND": "*Test* of the connection shows which of organization, key and region "
    "is wrong.",
    "SOURCE_DOES_NOT_EXIST": "The Sources page has the ID under **More → Copy source ID**. It is not the "
    "source's name.",
    "TOO_MANY_REQUESTS": f"The hook has already waited, for up to {PATIENCE} and at least as long as Coveo's "
    "`Retry-After` says. If this happens often, [push fewer and larger batches](pushing.md), and set a "
    "[pool](guides/many-sources.md) on the tasks that push.",
    "TOO_MANY_DOCUMENTS_DAILY": "The push can be [resumed](pushing.md#resuming): if you clear the same run's "
    "task tomorrow, it does not send again what was accepted today.",
    "INVALID_JSON": "The provider validates items before it sends them, so this is rare. A proxy in between "
    "may have changed the request.",
    "UploadError": "The upload goes to Amazon S3, not to Coveo's own host. A firewall that allows only "
    "`*.cloud.coveo.com` blocks it.",
    "NoAnswerError": "Every request of this provider can be repeated, so a retry does no harm.",
    "CoveoInputError": "The message names the value and the rule.",
}

#: The titles of the classes that have no error code from Coveo.
_WITHOUT_CODE: Final = {
    "InvalidRequestError": "400, without a code",
    "NotFoundError": "404, for a source or an activity",
    "RequestTooLargeError": "413",
    "ServiceError": "408, 500, 502, 503, 504",
    "RedirectError": "A redirect (3xx)",
    "UnexpectedAnswerError": "Any other response",
    "FirewallBlockedError": "Blocked by the firewall",
    "UploadError": "A failed upload",
    "NoAnswerError": "No response",
    "CertificateError": "A certificate that can't be verified",
}

#: Sample responses for those classes.
_ANSWERS: Final[dict[str, tuple[int, dict[str, str]]]] = {
    "InvalidRequestError": (400, {}),
    "NotFoundError": (404, {}),
    "RequestTooLargeError": (413, {}),
    "ServiceError": (503, {}),
    "RedirectError": (302, {}),
    "UnexpectedAnswerError": (418, {}),
    "FirewallBlockedError": (403, {"X-Coveo-WAF-Action": "block"}),
}

_TRIED: Final = "Could not push items to source 'acme-products'"
_REQUEST_ID: Final = "5b0c1f7e-4a1d-4a54-8f0c-6f1a2f5d9d1e"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def connection_fields() -> str:
    """Return the table of the connection form's fields."""
    behaviour = CONNECTION_FORM["ui-field-behaviour"]
    labels: Mapping[str, str] = behaviour["relabeling"]
    if set(labels) != set(_STANDARD_FIELDS):
        raise ValueError(f"The form labels {sorted(labels)}, and described are {sorted(_STANDARD_FIELDS)}")
    rows = [[label, f"`{name}`", _STANDARD_FIELDS[name]] for name, label in labels.items()]
    for name, described in CONNECTION_FORM["conn-fields"].items():
        rows.append([described["label"], f"extra `{name}`", described["description"]])
    return table(["In the form", "Field of the connection", "Meaning"], rows)


def regions() -> str:
    """Return the table of regions and their hosts."""
    rows = []
    for region in REGIONS.values():
        name = f"`{region.name}`" + (" (default)" if region.name == DEFAULT_REGION else "")
        rows.append([name, region.title, f"`{region.push_url}`", f"`{region.platform_url}`"])
    return table(["`region`", "Coveo calls it", "Push API", "Platform API"], rows)


def statuses() -> str:
    """Return the table of the statuses."""
    rows = [
        [f"`{status.value}`", f"**{status.console_name}**", status.resource_cost or "none"]
        for status in SourceStatus
    ]
    return table(["Status", "The console shows", "Typical resource cost"], rows)


def error_classes() -> list[type[errors.CoveoError]]:
    """Return the error classes in the order of their definition, without the base class."""
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.CoveoError) and value is not errors.CoveoError
    ]


def _of_answers() -> dict[str, list[tuple[int, str | None]]]:
    """Return the responses of Coveo that each class represents, as the code itself maps them."""
    found: dict[str, list[tuple[int, str | None]]] = {}
    for code, error_class in errors._BY_ERROR_CODE.items():
        status = re.match(r"(\d{3})", error_class.__doc__ or "")
        assert status, f"The docstring of {error_class.__name__} does not begin with its HTTP status"
        found.setdefault(error_class.__name__, []).append((int(status[1]), code))
    return found


def _section(title: str, names: Sequence[str], error: errors.CoveoError) -> str:
    error_class = type(error)
    words = (error_class.__doc__ or "").strip().splitlines()[0]
    more = [_MORE[name] for name in (*names, error_class.__name__) if name in _MORE]
    retried = (
        f"The hook retries the request for up to {PATIENCE}; Airflow's retries follow."
        if error_class.retry_can_help
        else "The task fails immediately. Airflow does not use its retries, because they could not help."
    )
    what_to_do = [f"{_sentence(error.remedy)}"] if error.remedy else []
    lines = [
        *(f"({name})=" for name in names),
        f"### {title}",
        "",
        "" if re.match(r"\d{3} ``", words) else _sentence(re.sub(r"^\d{3}: ", "", words)),
        "",
        "```text",
        str(error),
        "```",
        "",
    ]
    if error.cause:
        lines += ["Likely cause", f": {_sentence(error.cause)}", ""]
    if what_to_do or more:
        lines += ["Remedy", f": {' '.join([*what_to_do, *more])}", ""]
    lines += ["Retries", f": {retried}", ""]
    lines += ["Class", f": {{py:class}}`~airflow_provider_coveo.coveo.errors.{error_class.__name__}`", ""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def errors_of_coveo() -> str:
    """Return a section for each error code of Coveo's."""
    sections = []
    for name, answers in _of_answers().items():
        for status, code in answers:
            error = errors.error_from_answer(
                _TRIED, status, f'{{"errorCode": "{code}"}}'.encode(), {"X-Request-ID": _REQUEST_ID}
            )
            assert type(error).__name__ == name
            sections.append((status, _section(f"{status} {code}", [str(code)], error)))
    return "\n".join(section for _, section in sorted(sections, key=lambda pair: pair[0]))


def errors_without_code() -> str:
    """Return a section for each error without a code."""
    by_name = {error_class.__name__: error_class for error_class in error_classes()}
    sections = []
    for name, title in _WITHOUT_CODE.items():
        error = by_name[name](_TRIED)
        if name in _ANSWERS:
            status, headers = _ANSWERS[name]
            error = errors.error_from_answer(_TRIED, status, b"", {"X-Request-ID": _REQUEST_ID, **headers})
            assert type(error).__name__ == name
        sections.append(_section(title, [name], error))
    return "\n".join(sections)


def errors_of_the_provider() -> str:
    """Return the table of errors that the provider itself raises."""
    coded = {*_of_answers(), *_WITHOUT_CODE}
    rows = []
    for error_class in error_classes():
        if error_class.__name__ in coded:
            continue
        words = (error_class.__doc__ or "").strip().splitlines()[0].replace("``", "`")
        remedy = _sentence(error_class.default_remedy) if error_class.default_remedy else ""
        what_to_do = f"{remedy} {_MORE.get(error_class.__name__, '')}".strip() or "See the message."
        name = f"{{py:class}}`~airflow_provider_coveo.coveo.errors.{error_class.__name__}`"
        rows.append([name, words, what_to_do])
    return table(["Error", "When", "Remedy"], rows)


_PARTS: Final[dict[str, Callable[[], str]]] = {
    "connection-fields.md": connection_fields,
    "regions.md": regions,
    "statuses.md": statuses,
    "errors-of-coveo.md": errors_of_coveo,
    "errors-without-code.md": errors_without_code,
    "errors-of-the-provider.md": errors_of_the_provider,
}


def make_parts(_app: Any = None) -> None:
    """Write the parts that changed."""
    PARTS.mkdir(exist_ok=True)
    for name, make in {**_PARTS, **DIAGRAMS}.items():
        text, path = make(), PARTS / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _leave_types_alone(_app: Any, _env: Any, node: Any, content: Any) -> Any:
    """Show a type in a signature as plain text if no page describes it: nobody wrote a link."""
    written_by_somebody = node.get("refexplicit") or "." in node.get("reftarget", "")
    if node.get("reftype") in {"class", "obj"} and (
        not written_by_somebody or re.search(r"\.(_\w+|[A-Z])$", node["reftarget"])
    ):
        return content
    return None


def setup(app: Any) -> dict[str, bool]:
    """Have Sphinx generate the parts before it reads the pages."""
    app.connect("builder-inited", make_parts)
    app.connect("missing-reference", _leave_types_alone)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
