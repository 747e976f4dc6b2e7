"""study: start one, list them, show one, go on with one. What it needs is loaded when it is called."""

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
    """``study PRESET ...`` is ``study start PRESET ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if not args or args[0] in known else [START, *args])


app = typer.Typer(
    cls=_StartsByDefault,
    help="Studies: methods or settings held against each other over several seeds. `start` may be left out.",
    epilog="STUDY is a study's id, the beginning of it, its name, or: last.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
Reference = Annotated[
    str, typer.Argument(metavar="STUDY", help="Id, beginning of an id, name, or: last.", show_default=False)
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="A picture of it: .png or .svg.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background, say how to reach it, and end.")]


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="study")


@app.command(START)
def start(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|FILE", help="A preset's name, or a YAML file.", show_default=False)
    ],
    algorithms: Annotated[
        str | None,
        typer.Option("--algorithms", metavar="A,B,...", help="The methods to compare; the first is the baseline."),
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option("--vary", metavar="PATH=V,W,...", help="Instead: one setting's values, such as lora.r=4,16."),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", metavar="N", min=1, max=100, help="Runs of each, with run.seed and those after it."),
    ] = 3,
    budget: Annotated[
        Budget,
        typer.Option(
            "--budget",
            help="What is the same for all: steps, seconds of training, or sampled completions, the reference's too.",
        ),
    ] = Budget.STEPS,
    amount: Annotated[
        float | None,
        typer.Option(
            "--amount",
            metavar="N",
            help="How much of it a run gets; by default what the preset's steps take with the first method.",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its name; by default its id.")] = None,
    json: Json = False,
    plot: Plot = None,
    detach: Detach = False,
    offline: Offline = False,
) -> None:
    """Compare methods, or a setting's values, over several seeds.

    Runs of one seed see the same prompts and the same held-out problems and begin with the same adapter. They are put
    in the queue and trained one after another, the first seed of each first; killed, it goes on with: study run.
    """
    from aapo_desk.cli import studying

    studying.start(preset, algorithms, vary, seeds, budget.value, amount, sets or [], name, json, plot, detach)


@app.command("run")
def run(reference: Reference, json: Json = False, plot: Plot = None, detach: Detach = False) -> None:
    """Go on with a study that was cut off."""
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
