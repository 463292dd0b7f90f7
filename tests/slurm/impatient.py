"""Snakemake that asks for the states of its jobs every second: left alone, it waits ever longer."""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _sleep_a_second(self: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = _sleep_a_second

if __name__ == "__main__":
    main()
