"""
A receiver that is as strict as Coveo's OpenAPI files, over a real socket.

It is based on these files and the Coveo pages that they link to, and shares no code with the provider or its
simulator. It has no index. It validates each request, responds as documented, and records its objections.
"""

from __future__ import annotations

from tests.strict_coveo.server import Call, StrictCoveo

__all__ = ["Call", "StrictCoveo"]
