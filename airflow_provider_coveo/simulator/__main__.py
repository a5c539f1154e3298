"""Run the simulator from a shell: ``python -m airflow_provider_coveo.simulator``."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from airflow_provider_coveo.coveo.endpoints import validate_source_id
from airflow_provider_coveo.coveo.errors import CoveoInputError
from airflow_provider_coveo.simulator.server import Simulator
from airflow_provider_coveo.simulator.world import HOST

#: The environment variable for the API key, because others may be able to read the command line.
API_KEY_VARIABLE = "COVEO_SIMULATOR_API_KEY"

#: Limits for what a long-running simulator records.
RECORDED_REQUESTS = 5_000
RECORDED_BODY_BYTES = 64 * 1024

_DESCRIPTION = """\
A simulated Coveo for experiments: it behaves as documented for Coveo's Push API, Source API, activities and
item logs, keeps everything in memory, and shows the results on a page. By default, it listens on this machine
only.
"""
_EPILOG = """\
example:
  python -m airflow_provider_coveo.simulator --port 8642 --source acme-products --secured-source acme-wiki
"""


def _call_limit(value: str) -> tuple[int, float]:
    calls, _, seconds = value.partition("/")
    try:
        limit = int(calls), float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{value!r} does not have the form N/SECONDS, such as 150/300"
        ) from None
    if limit[0] < 1 or not limit[1] > 0:
        raise argparse.ArgumentTypeError(f"{value!r}: both numbers must be above 0")
    return limit


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of items")
    return int(value)


def _id(value: str) -> str:
    try:
        return validate_source_id(value)
    except CoveoInputError as error:
        raise argparse.ArgumentTypeError(error.tried) from None


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _key(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise argparse.ArgumentTypeError("a key must be printable ASCII without spaces")
    return value


def _port(value: str) -> int:
    if not value.isdecimal() or int(value) > 65_535:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port from 0 to 65535")
    return int(value)


_SOURCE_OPTIONS = {
    "--source": "a Push source (default: acme-products)",
    "--secured-source": "a Push source whose items need permissions",
    "--sitecore-source": "a source that Coveo for Sitecore manages",
    "--crawling-module-source": "a source that the Coveo Crawling Module manages",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_coveo.simulator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=_port, default=8642, help="port; 0 for any free port (default: 8642)")
    parser.add_argument(
        "--host",
        default=HOST,
        metavar="ADDRESS",
        help="the address to listen on, 0.0.0.0 for all; other machines need https, and can then control the "
        "simulator too (default: %(default)s)",
    )
    parser.add_argument("--tls-certificate", metavar="FILE", help="use https with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="the certificate's key (PEM)")
    parser.add_argument(
        "--organization", type=_id, default="acme", metavar="ID", help="organization ID (default: acme)"
    )
    sources = parser.add_argument_group("sources (each option can be repeated)")
    for option, what in _SOURCE_OPTIONS.items():
        sources.add_argument(option, type=_id, action="append", default=[], metavar="ID", help=what)
    keys = parser.add_argument_group("API keys")
    keys.add_argument(
        "--api-key",
        type=_key,
        default=os.environ.get(API_KEY_VARIABLE, "simulator-full-access"),
        metavar="KEY",
        help=f"a key with all privileges (default: the environment's {API_KEY_VARIABLE}, if it is set)",
    )
    keys.add_argument(
        "--push-only-key",
        type=_key,
        default="simulator-push-only",
        metavar="KEY",
        help="a key that can only push",
    )
    limits = parser.add_argument_group("limits (none by default)")
    limits.add_argument(
        "--call-limit", type=_call_limit, metavar="N/SECONDS", help="Push API calls, e.g. 150/300"
    )
    limits.add_argument(
        "--retry-after",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send a Retry-After header with each 429 (default: send it)",
    )
    limits.add_argument("--daily-documents", type=_count, metavar="N", help="items per day (UTC)")
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run until interrupted.

    :param arguments: the command line; by default, that of the process.
    :return: the exit code.
    """
    options = _parser().parse_args(arguments)
    managed = [*options.secured_source, *options.sitecore_source, *options.crawling_module_source]
    plain = options.source or ([] if managed else ["acme-products"])
    repeated = {source for source in plain + managed if (plain + managed).count(source) > 1}
    if options.api_key == options.push_only_key:
        print("error: the two keys must be different", file=sys.stderr)
        return 2
    if repeated:
        print(f"error: duplicate sources: {', '.join(sorted(repeated))}", file=sys.stderr)
        return 2
    if bool(options.tls_certificate) != bool(options.tls_key):
        print("error: --tls-certificate and --tls-key must be used together", file=sys.stderr)
        return 2
    if not options.tls_key and not _is_loopback(options.host):
        print("error: clients on other machines need https: pass --tls-certificate", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.ERROR)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    simulator = Simulator(
        organization=options.organization,
        sources=plain,
        secured_sources=options.secured_source,
        sitecore_sources=options.sitecore_source,
        crawling_module_sources=options.crawling_module_source,
        api_key=options.api_key,
        push_only_key=options.push_only_key,
        port=options.port,
        host=options.host,
        tls=(options.tls_certificate, options.tls_key) if options.tls_key else None,
        call_limit=options.call_limit,
        retry_after=options.retry_after,
        daily_documents=options.daily_documents,
        request_limit=RECORDED_REQUESTS,
        body_limit=RECORDED_BODY_BYTES,
    )
    try:
        simulator.start()
    except OSError as error:
        print(f"error: cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {error.__cause__}", file=sys.stderr)
        return 2
    if not options.quiet:
        _announce(simulator, [*plain, *managed])
    stopped.wait()
    simulator.stop()
    return 0


def _announce(simulator: Simulator, sources: Sequence[str]) -> None:
    print(
        f"Coveo simulator at {simulator.url}\n"
        f"  page           {simulator.url}/\n"
        f"  organization   {simulator.organization}\n"
        f"  sources        {', '.join(sources)}\n"
        f"  API key        {simulator.api_key}\n"
        f"  push-only key  {simulator.push_only_key}\n"
        f"export AIRFLOW_CONN_COVEO_DEFAULT={shlex.quote(simulator.connection_json())}\n"
        "Stop with Ctrl-C.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
