from tests.unit.hooks.conftest import logged

__all__ = ["logged"]
