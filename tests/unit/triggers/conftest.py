from tests.unit.hooks.conftest import logged, proxy, tls_server

__all__ = ["logged", "proxy", "tls_server"]
