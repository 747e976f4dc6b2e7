"""The ``compare`` command: runs side by side, in text. Its imports are made when it is called."""

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
        str | None, typer.Option("--metric", metavar="NAME", help="Metric to compare (default: reward).")
    ] = None,
    by: Annotated[By, typer.Option("--by", help="Compare by steps, training time or completion tokens.")] = By.STEP,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a chart: .png or .svg.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every step of every run: .csv.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Compare runs: their curves, their final values, and the settings that differ.

    Differences are against the pinned run, or the first if none is pinned. Values are exponential moving averages.
    """
    from aapo_desk.cli import comparing

    comparing.compare(references, metric, by, plot, csv, json)
