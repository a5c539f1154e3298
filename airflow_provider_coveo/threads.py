"""Calling what blocks from Airflow's triggerer, whose event loop must go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """
    Call a function that may read Airflow's connections, Variables or states, and so blocks, in a thread.

    ``asyncio.to_thread`` won't do: Airflow 3.1 sends such a request by the triggerer's own event loop, which
    it finds only from a thread that ``sync_to_async`` started. From any other thread it breaks the connection
    to the supervisor, and the triggerer exits.

    :param function: The function.
    :param args: Its positional arguments.
    :param kwargs: Its keyword arguments.
    """
    # Only triggerers need it, and DAG files import this module.
    from asgiref.sync import sync_to_async

    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)
