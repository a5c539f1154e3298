"""
A receiver that is as strict as Coveo's OpenAPI files, over a real socket.

It is written from the files and from Coveo's pages that they link to, and shares no code with the provider
or its simulator. It stores nothing in an index: it judges each request, answers as documented, and keeps
what it objected to.
"""

from __future__ import annotations

from tests.strict_coveo.server import Call, StrictCoveo

__all__ = ["Call", "StrictCoveo"]
