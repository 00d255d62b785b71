"""Shell completion: the script for a shell, and role names, from local files alone."""

import click
from click.shell_completion import CompletionItem, get_completion_class

from ca.errors import JitSshError
from cli import profile
from cli.directory import Directory


def complete_role(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The roles that the CA listed last."""
    del ctx, param
    try:
        found = profile.find(Directory.of_home())
    except JitSshError:
        return []
    return [CompletionItem(role) for role in found.roles if role.startswith(incomplete)] if found else []


def complete_held(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The roles that this machine has files of."""
    del ctx, param
    suffix = ".json"
    names = [path.name.removesuffix(suffix) for path in Directory.of_home().path.glob(f"*{suffix}")]
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete) and name != "profile"]


@click.command(
    epilog='Examples:\n\n\b\n  eval "$(jit-ssh completion bash)"                                       # in ~/.bashrc\n'
    "  jit-ssh completion fish > ~/.config/fish/completions/jit-ssh.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    Role names are completed from what the CA listed last; the CA is not asked.
    """
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(ctx.find_root().command, {}, "jit-ssh", "_JIT_SSH_COMPLETE").source())
