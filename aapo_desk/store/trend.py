"""A metric over a whole run in a bounded number of points, brought up to date without reading any twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_POINTS = 128


@dataclass(frozen=True)
class Trend:
    """A metric at every ``stride``-th step, a power of two, so that there are at most ``MOST_POINTS``.

    A run that grows is thinned by leaving out every other point: what was read stays good. ``last``: the newest step
    and its value, whatever the stride.
    """

    generation: int = 0
    stride: int = 1
    points: tuple[tuple[int, float | None], ...] = ()
    last: tuple[int, float | None] | None = None

    @property
    def values(self) -> list[float | None]:
        """The points' values and the last one."""
        values = [value for _, value in self.points]
        if self.last and (not self.points or self.points[-1][0] != self.last[0]):
            values.append(self.last[1])
        return values

    @property
    def next_step(self) -> int:
        """The step of the first point that is not known yet."""
        return (self.points[-1][0] if self.points else 0) + self.stride

    def thinned(self, steps: int) -> Trend:
        """The same, for a run of so many steps."""
        stride = self.stride
        while steps // stride > MOST_POINTS:
            stride *= 2
        points = tuple(point for point in self.points if point[0] % stride == 0)
        return replace(self, stride=stride, points=points)
