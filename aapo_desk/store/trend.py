"""A metric over a whole run in a bounded number of points, updated without reading any point twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_POINTS = 128


@dataclass(frozen=True)
class Trend:
    """A metric at every ``stride``-th step. The stride is a power of two that keeps it to about ``MOST_POINTS`` points.

    As the run grows, every other point is dropped, so the points already read stay valid. ``last`` is the newest step
    and its value, whatever the stride.
    """

    generation: int = 0
    stride: int = 1
    points: tuple[tuple[int, float | None], ...] = ()
    last: tuple[int, float | None] | None = None

    @property
    def values(self) -> list[float | None]:
        """The values of all points, and the last value if it is not one of them."""
        values = [value for _, value in self.points]
        if self.last and (not self.points or self.points[-1][0] != self.last[0]):
            values.append(self.last[1])
        return values

    @property
    def next_step(self) -> int:
        """The step of the first point that has not been read yet."""
        return (self.points[-1][0] if self.points else 0) + self.stride

    def thinned(self, steps: int) -> Trend:
        """Return the trend with its points thinned for a run of this many steps."""
        stride = self.stride
        while steps // stride > MOST_POINTS:
            stride *= 2
        points = tuple(point for point in self.points if point[0] % stride == 0)
        return replace(self, stride=stride, points=points)
