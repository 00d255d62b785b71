"""`jit-ssh`: the door of engineers and auditors. Here are its commands, and the one table of exit codes.

A command's module is imported when that command runs, so that `status` in a prompt does not wait for what `login` needs.
"""

import importlib
import sys
from collections.abc import Iterable
from typing import Final

import click

from ca.errors import JitSshError, of_system
from cli import output
from cli.problems import Denied

# 0 is done, and for `status` that something is held; 1 failed, or holds nothing; 2 is usage, which click finds. 4, for a request
# that waits for an approval, is what `login` itself gives.
_EXIT_CODES: Final = {"denied": 3, "ca-unreachable": 5, "answer-lost": 5}
_FAILED: Final = 1
_INTERRUPTED: Final = 130  # what a shell expects of a program that SIGINT ended

_COMMANDS: Final = {
    "setup": "cli.setup",
    "login": "cli.login",
    "logout": "cli.login",
    "roles": "cli.roles",
    "status": "cli.status",
    "requests": "cli.requests",
    "show": "cli.requests",
    "approve": "cli.approval",
    "deny": "cli.approval",
    "withdraw": "cli.requests",
    "extend": "cli.requests",
    "drop": "cli.requests",
    "revoke": "cli.revocation",
    "lock": "cli.revocation",
    "unlock": "cli.revocation",
    "review": "cli.review",
    "log": "cli.log",
    "host": "cli.host",
    "ssh-config": "cli.hook",
    "ssh-hook": "cli.hook",
    "completion": "cli.completion",
}


class _Commands(click.Group):
    """The commands, in the order in which somebody meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="First steps:\n\n\b\n  jit-ssh setup https://ca.example.org    believe the CA, once\n"
    "  jit-ssh roles                           see what you can have\n"
    "  jit-ssh login web-admin --for 30m       get a certificate\n"
    "  ssh root@web-1                          use it\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 4 waiting for approval, 5 the CA cannot be reached.",
)
@click.version_option(package_name="jit-ssh", prog_name="jit-ssh")
def cli() -> None:
    """Just-in-time SSH privilege: a named role, for a reason, for a short time."""


def main() -> None:
    """Runs the command line; ends with the exit code that the table names."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; errors go to stderr as `jit-ssh: error: …` and `hint: …`. Gives the exit code."""
    try:
        code = cli.main(arguments, prog_name="jit-ssh", standalone_mode=False)
    except click.Abort:
        output.talk("jit-ssh: interrupted")
        return _INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        _complain(error.format_message(), f"See: {context.command_path} --help" if context else "")
        return error.exit_code
    except JitSshError as error:
        _complain(error.message, error.hint, _considered(error))
        return _EXIT_CODES.get(error.code, _FAILED)
    except OSError as error:
        _complain(*of_system(error))
        return _FAILED
    return code if isinstance(code, int) else 0


def _considered(error: JitSshError) -> list[str]:
    """What else is to be said of a denial: how near each way was, and where the log has it."""
    if not isinstance(error, Denied):
        return []
    entry = [] if error.entry is None else [f"The refusal is entry {error.entry} of the log: jit-ssh log show {error.entry}"]
    return [*error.considered, *entry]


def _complain(message: str, hint: str, between: Iterable[str] = ()) -> None:
    output.talk(f"jit-ssh: error: {message}")
    for line in between:
        output.talk(line)
    for number, line in enumerate(hint.splitlines()):
        output.talk(f"hint: {line}" if number == 0 else line)
