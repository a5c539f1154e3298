"""Each route of the page Push sources, and the status that each role gets, signed in or not."""

from __future__ import annotations

from typing import Final

ROLES: Final = ("viewer", "user", "op", "admin")
_SIGNED_IN: Final = dict.fromkeys(ROLES, 200)
ROUTES: Final[dict[str, dict[str | None, int]]] = {
    "/": {None: 401, **_SIGNED_IN},
    "/sources": {None: 401, **_SIGNED_IN},
}
