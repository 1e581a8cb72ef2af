"""`reload`: what is asked of the running gateway."""

import os
import signal
import time
from pathlib import Path

import click

from gateway.cli.context import NO, UNREACHABLE, config_option, fail, guarded
from gateway.config import load_config
from gateway.reload import read_outcome
from gateway.supervisor import running_pid

WAIT_S = 60.0


@click.command()
@config_option
def reload(config_path: Path) -> None:
    """Apply the policy as it is on disk; if it is wrong, the running one stays."""

    def body() -> int:
        config = load_config(config_path)
        pid = running_pid(config.data)
        if pid is None:
            fail(f"{config.data}: no gateway is running", UNREACHABLE)
        before = read_outcome(config.data)
        try:
            os.kill(pid, signal.SIGHUP)
        except PermissionError:
            fail(f"process {pid} is not ours to signal; run this as its user or as root", UNREACHABLE)
        deadline = time.monotonic() + WAIT_S
        while (outcome := read_outcome(config.data)) is None or outcome == before:
            if time.monotonic() > deadline:
                fail(f"process {pid} does not answer", UNREACHABLE)
            time.sleep(0.05)
        if outcome.ok:
            click.echo(f"policy {outcome.version} applied")
            if outcome.message:
                click.echo(f"warning: {outcome.message}", err=True)
            return 0
        click.echo(f"refused, the running policy {outcome.version} stays:\n{outcome.message}", err=True)
        return NO

    guarded(body)
