"""The ``study`` commands: start, resume, list and show studies. Their imports are made when they are called."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aapo_desk.cli.runs import Json
from aapo_desk.cli.start import Offline
from aapo_desk.cli.train import Sets

START = "start"


class Budget(Enum):
    STEPS = "steps"
    SECONDS = "seconds"
    COMPLETIONS = "completions"


class _StartsByDefault(TyperGroup):
    """A command group that treats ``study PRESET ...`` as ``study start PRESET ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if not args or args[0] in known else [START, *args])


app = typer.Typer(
    cls=_StartsByDefault,
    help="Compare methods or settings over several seeds. `start` may be left out.",
    epilog="STUDY is a study's id, a unique start of it, its name, or: last.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
Reference = Annotated[
    str, typer.Argument(metavar="STUDY", help="Id, unique start of an id, name, or: last.", show_default=False)
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a chart: .png or .svg.")]
Detach = Annotated[bool, typer.Option("--detach", help="Run in the background, print how to watch it, and exit.")]


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="study")


@app.command(START)
def start(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="Preset name or YAML file.", show_default=False)],
    algorithms: Annotated[
        str | None,
        typer.Option("--algorithms", metavar="A,B,...", help="Methods to compare; the first is the baseline."),
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option(
            "--vary", metavar="PATH=V,W,...", help="Compare the values of one setting instead, such as lora.r=4,16."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", min=1, max=100, help="Number of runs per method: run.seed and the seeds after it."
        ),
    ] = 3,
    budget: Annotated[
        Budget,
        typer.Option(
            "--budget",
            help="The budget that is equal for all runs: steps, seconds of training, or completions "
            "(including the reference's).",
        ),
    ] = Budget.STEPS,
    amount: Annotated[
        float | None,
        typer.Option(
            "--amount",
            metavar="N",
            help="Size of the budget of a run (default: what the preset's steps take with the first method).",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the study (default: its id).")
    ] = None,
    json: Json = False,
    plot: Plot = None,
    detach: Detach = False,
    offline: Offline = False,
) -> None:
    """Compare methods, or a setting's values, over several seeds.

    Runs with the same seed get the same prompts, held-out problems and initial adapter. They are queued and trained one
    after another, beginning with the first seed of every method. If interrupted, resume with: aapo-desk study run.
    """
    from aapo_desk.cli import studying

    studying.start(preset, algorithms, vary, seeds, budget.value, amount, sets or [], name, json, plot, detach)


@app.command("run")
def run(reference: Reference, json: Json = False, plot: Plot = None, detach: Detach = False) -> None:
    """Resume an interrupted study."""
    from aapo_desk.cli import studying

    studying.go_on(reference, json, plot, detach)


@app.command("list")
def list_them(json: Json = False) -> None:
    """List the studies, the newest first."""
    from aapo_desk.cli import studying

    studying.list_them(json)


@app.command("show")
def show(reference: Reference, json: Json = False, plot: Plot = None) -> None:
    """Show what a study has found so far."""
    from aapo_desk.cli import studying

    studying.show(reference, json, plot)
