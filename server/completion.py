"""`jit-ssh-ca completion`: the script that completes its words in a shell."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL: commands, options, files.

    Example: eval "$(jit-ssh-ca completion bash)"
    """
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(ctx.find_root().command, {}, "jit-ssh-ca", "_JIT_SSH_CA_COMPLETE").source())
