"""The door `windlass`: names the verbs and ends them well. What computes is imported by a verb when it runs."""

import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from windlass.cli import batch, bench, chat, cost, demo, doctor, eval, jobs, plan, quantize, run, serve, version
from windlass.cli.exits import plain_exits
from windlass.cli.first_screen import first_screen
from windlass.cli.flags import with_flags

_VERBS = (
    (run.run, run.EXAMPLES),
    (chat.chat, chat.EXAMPLES),
    (batch.batch, batch.EXAMPLES),
    (serve.serve, serve.EXAMPLES),
    (bench.bench, bench.EXAMPLES),
    (plan.plan, plan.EXAMPLES),
    (quantize.quantize, quantize.EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
    (demo.demo, demo.EXAMPLES),
    (version.version, version.EXAMPLES),
)


class _Verbs(TyperGroup):
    """Every verb ends through `plain_exits`, and so does a command line that names none or misspells it."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Reads the command line up to the verb."""
        with plain_exits():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Runs the verb named on the command line."""
        with plain_exits():
            return super().invoke(ctx)


app = typer.Typer(
    name="windlass",
    cls=_Verbs,
    help="Run language models far larger than memory: the same tokens, inside the budget, at the speed of the disk.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _verbless(
    context: typer.Context, version_: Annotated[bool, typer.Option("--version", help="As `windlass version`.")] = False
) -> None:
    """Only what is no verb arrives here; with nothing to do, it says where to begin."""
    if version_:
        version.version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(first_screen())


evaluations = typer.Typer(help="How good a model is, with an error bar.", invoke_without_command=True)
costs = typer.Typer(
    help="What a job, a service, a search or a training run costs, with every assumption.", invoke_without_command=True
)


@evaluations.callback()
@costs.callback()
def _group(context: typer.Context) -> None:
    """Without a verb of the group, what there is."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def _epilog(examples: tuple[str, ...]) -> str:
    # Two line ends between lines: the help joins lines that only one parts.
    return "\n\n".join(("Examples:", *(f"  {example}" for example in examples)))


def _add(group: typer.Typer, verbs: Iterable[tuple[Callable[..., None], tuple[str, ...]]]) -> None:
    for verb, examples in verbs:
        group.command(epilog=_epilog(examples))(with_flags(verb))


_add(app, _VERBS)
batch_jobs = typer.Typer(invoke_without_command=True)
batch_jobs.callback(epilog=_epilog(jobs.EXAMPLES))(jobs.jobs)
_add(batch_jobs, jobs.VERBS)
app.add_typer(batch_jobs, name="jobs")
_add(evaluations, eval.VERBS)
_add(costs, cost.VERBS)
app.add_typer(evaluations, name="eval")
app.add_typer(costs, name="cost")


def main() -> None:
    """Runs the command line of this process.

    A standard stream that is closed is as if nothing came from it or went to it, and what the encoding of standard
    output cannot carry is written as an escape.
    """
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="windlass")


if __name__ == "__main__":
    main()
