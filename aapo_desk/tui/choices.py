"""The user's chart preferences: order, visibility, log scale and smoothing, saved between sessions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aapo_desk.presets import settings_folder
from aapo_desk.store import read_json, write_atomically
from aapo_desk.tui.charts import BY_NAME, CHARTS


@dataclass(frozen=True)
class ChartChoices:
    """Names of charts: all of them in their order, and those that are hidden, on a log scale, or smoothed."""

    order: tuple[str, ...] = tuple(BY_NAME)
    hidden: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    smooth: tuple[str, ...] = tuple(spec.name for spec in CHARTS if spec.smooth)

    @property
    def visible(self) -> list[str]:
        return [name for name in self.order if name not in self.hidden]

    def hide(self, name: str) -> ChartChoices:
        return replace(self, hidden=(*self.hidden, name))

    def show_all(self) -> ChartChoices:
        return replace(self, hidden=())

    def toggle_log(self, name: str) -> ChartChoices:
        return replace(self, log=_toggled(self.log, name))

    def toggle_smooth(self, name: str) -> ChartChoices:
        return replace(self, smooth=_toggled(self.smooth, name))

    def move(self, name: str, by: int) -> ChartChoices:
        """Return the choices with a chart moved before or after its visible neighbour; unchanged if it has none."""
        visible = self.visible
        place = visible.index(name) + by
        if not 0 <= place < len(visible):
            return self
        order = [each for each in self.order if each != name]
        order.insert(order.index(visible[place]) + (by > 0), name)
        return replace(self, order=tuple(order))


def _toggled(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(each for each in names if each != name) if name in names else (*names, name)


def choices_file() -> Path:
    return settings_folder() / "charts.json"


def load_choices() -> ChartChoices:
    """Read the saved choices. Defaults replace what is missing, broken or from another version."""
    data = read_json(choices_file()) or {}
    default = ChartChoices()
    found = {
        key: _known(data[key]) if isinstance(data.get(key), list) else value for key, value in asdict(default).items()
    }
    choices = ChartChoices(**found)
    choices = replace(choices, order=(*choices.order, *(name for name in default.order if name not in choices.order)))
    return choices if choices.visible else choices.show_all()


def _known(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name in BY_NAME))


def save_choices(choices: ChartChoices) -> None:
    """Write the choices to ``choices_file()``. Raises OSError if the file cannot be written."""
    path = choices_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps(asdict(choices)) + "\n", durable=False)
