"""The machine that trains: its GPUs and CPU, as the trainer measured them after each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual.geometry import Size

from aapo_desk.tui.labels import percent
from aapo_desk.tui.text import one_line
from aapo_desk.tui.widgets.blocks import bar, spark
from aapo_desk.tui.widgets.cells import Piece
from aapo_desk.tui.widgets.part import Part

KEPT = 120
GAUGE = 6


class MachineView(Part):
    """A panel with a line for each GPU and one for the CPU: use and its history, memory, temperature, power.

    If the panel has only one line, it shows the first GPU and the CPU without their history.
    """

    KIND = "machine"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"machine--title", "machine--label", "machine--use"}

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=KEPT)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add snapshots of the machine (``hardware.Machine`` as JSON), oldest first."""
        new = list(rows)
        if new:
            cards = len(_gpus(self._rows[-1])) if self._rows else 0
            self._rows.extend(new)
            self.refresh(layout=len(_gpus(new[-1])) != cards)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines: a title, one for each GPU and one for the CPU."""
        return 2 + (len(_gpus(self._rows[-1])) if self._rows else 0)

    def pieces(self, y: int) -> list[Piece]:
        return self._one_line() if self.size.height < 2 else self._line(y)

    def _one_line(self) -> list[Piece]:
        title = [("machine  ", self._style("title"))]
        if not self._rows:
            return [*title, ("no data yet", self._style("label"))]
        now = self._rows[-1]
        texts = [f"{_name(gpu)} {percent_of(gpu.get('utilisation'))} {gpu_facts(gpu)}" for gpu in _gpus(now)[:1]]
        texts.append(f"CPU {percent_of(now.get('cpu_percent'))} {cpu_facts(now)}")
        return [*title, ("  ".join(texts), self._style("label"))]

    def _line(self, y: int) -> list[Piece]:
        if y == 0:
            return [("machine", self._style("title"))] + (
                [] if self._rows else [("  no data yet", self._style("label"))]
            )
        if not self._rows:
            return []
        now = self._rows[-1]
        cards = _gpus(now)
        room = min(len(cards), self.size.height - 2)  # the last line is the CPU's
        if y <= room:
            uses = [_number(_card(row, y - 1).get("utilisation")) for row in self._rows]
            name = "GPU" if len(cards) == 1 else f"GPU {y - 1}"
            return self._gauges(name, uses, gpu_facts(cards[y - 1]))
        if y == room + 1:
            return self._gauges("CPU", [_number(row.get("cpu_percent")) for row in self._rows], cpu_facts(now))
        return []

    def _gauges(self, name: str, uses: list[float], facts: str) -> list[Piece]:
        label, use = self._style("label"), self._style("use")
        pieces = [(f"{name:<5} ▕", label), (bar(uses[-1] / 100, GAUGE), use), ("▏", label)]
        text = f"{percent(uses[-1] / 100):>5} {facts}"
        left = self.size.width - sum(len(piece) for piece, _ in pieces) - len(text) - 2
        pieces.append((text, label))
        if left >= GAUGE:
            pieces.append((f"  {spark([value / 100 for value in uses[-left:]], left)}", use))
        return pieces


def gpu_facts(gpu: Mapping[str, Any]) -> str:
    """Return memory, temperature and power as in ``7.1/12.0 GB 63 °C 180 W``; unknown values are left out."""
    parts = [of_gigabytes(gpu.get("memory_used"), gpu.get("memory_total"))]
    if isinstance(gpu.get("temperature"), int | float):
        parts.append(f"{gpu['temperature']:.0f} °C")
    if isinstance(gpu.get("power"), int | float):
        parts.append(f"{gpu['power']:.0f} W")
    return " ".join(parts)


def cpu_facts(machine: Mapping[str, Any]) -> str:
    total, free = machine.get("memory_total"), machine.get("memory_available")
    used = total - free if isinstance(total, int | float) and isinstance(free, int | float) else None
    return of_gigabytes(used, total)


def of_gigabytes(used: Any, total: Any) -> str:
    """Format used and total memory, given in MiB, as in ``7.1/12.0 GB``."""
    if not isinstance(used, int | float) or not isinstance(total, int | float):
        return "memory –"
    return f"{used / 1024:.1f}/{total / 1024:.1f} GB"


def percent_of(value: Any) -> str:
    return percent(value / 100 if isinstance(value, int | float) else None)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _gpus(machine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [gpu for gpu in machine.get("gpus") or [] if isinstance(gpu, Mapping)]


def _card(machine: Mapping[str, Any], place: int) -> Mapping[str, Any]:
    cards = _gpus(machine)
    return cards[place] if place < len(cards) else {}


def _name(gpu: Mapping[str, Any]) -> str:
    name = str(gpu.get("name") or "GPU").removeprefix("NVIDIA ").removeprefix("GeForce ")
    return one_line(name, 16)
