"""The command `smarthost`: its groups, in the order a new user needs them."""

import click

from gateway import VERSION
from gateway.cli.accounts import alias, user
from gateway.cli.check import check
from gateway.cli.context import Commands, GroupedCommands
from gateway.cli.control import reload
from gateway.cli.dkim import dkim
from gateway.cli.dns import dns
from gateway.cli.doctor import doctor
from gateway.cli.explain import policy_explain
from gateway.cli.import_mail import import_
from gateway.cli.import_postfix import policy_import_postfix
from gateway.cli.policy import policy
from gateway.cli.quarantine import quarantine
from gateway.cli.queue import queue
from gateway.cli.replay import policy_coverage, policy_replay
from gateway.cli.setup import init, run
from gateway.cli.spam import spam
from gateway.cli.status import status
from gateway.cli.store import store
from gateway.cli.trace import trace


class SmarthostCommands(GroupedCommands):
    sections = (
        Commands("Set up and run", ("init", "check", "doctor", "run", "reload", "status")),
        Commands("Policies", ("policy",)),
        Commands("People", ("user", "alias")),
        Commands("Domains", ("dkim", "dns")),
        Commands("Mail on its way", ("queue", "quarantine", "trace")),
        Commands("Mail that is here", ("store", "import")),
        Commands("The spam filter", ("spam",)),
    )


@click.group(cls=SmarthostCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="smarthost")
def main() -> None:
    """Smarthost, a security gateway for mail.

    Exit codes: 0 done, 1 the answer is no, 2 usage, 3 the running gateway could not be reached.
    """


for command in (
    init, check, doctor, run, reload, status, policy, user, alias, dkim, dns, queue, quarantine, trace, store, import_,
    spam,
):  # fmt: skip
    main.add_command(command)
policy.add_command(policy_explain)
policy.add_command(policy_replay)
policy.add_command(policy_coverage)
policy.add_command(policy_import_postfix)
