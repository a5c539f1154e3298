from tests.unit.hooks.conftest import endless_server, logged, proxy, tls_server

__all__ = ["endless_server", "logged", "proxy", "tls_server"]
