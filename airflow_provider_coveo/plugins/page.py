"""The page's HTML, its security policy, and its parts for a server with its own layout."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("page.html")
_BODY = re.compile(r"<body>\n(.*)</body>", re.DOTALL)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

#: Headers of every response.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@cache
def page() -> str:
    """Return the whole page."""
    return _FILE.read_text(encoding="utf-8")


def fragment(*, csrf_token: str = "") -> str:
    """
    Return the page's style, content and script, for Airflow 2.11's own layout.

    :param csrf_token: The session's token, for Airflow's REST API.
    """
    body = _found(_BODY)
    if not re.fullmatch(r"[A-Za-z0-9_.\-]*", csrf_token):
        raise ValueError("Invalid CSRF token: it contains characters that no token has")
    body = body.replace('data-line="3"', f'data-line="2" data-csrf="{csrf_token}"', 1)
    return f"<style>{_found(_STYLE)}</style>\n{body}"


@cache
def content_security_policy() -> str:
    """Return the policy that lets a browser use only the page's own style and script."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(_found(_STYLE))}'",
            f"script-src '{_digest(_found(_SCRIPT))}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        ]
    )


def _found(part: re.Pattern[str]) -> str:
    match = part.search(page())
    if match is None:
        raise ValueError(f"{_FILE.name} lacks {part.pattern}")
    return match[1]


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
