"""compare: runs beside each other, without a screen. What it needs is loaded when it is called."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class By(Enum):
    STEP = "step"
    TIME = "time"
    TOKENS = "tokens"


def add_to(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    references: Annotated[list[str], typer.Argument(metavar="RUN...", help="Up to six runs.", show_default=False)],
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="What is compared; by default reward.")
    ] = None,
    by: Annotated[By, typer.Option("--by", help="Over steps, training time or tokens of completions.")] = By.STEP,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="A picture: .png or .svg.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Every step of every run: .csv.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Compare runs: their curves, how they ended, what differs in their configurations.

    Differences are against the pinned run, or the first where none is pinned. Values are exponential means.
    """
    from aapo_desk.cli import comparing

    comparing.compare(references, metric, by, plot, csv, json)
