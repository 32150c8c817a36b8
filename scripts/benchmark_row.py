"""One line of a benchmark's table: a peer against vol3d, as JSON and as markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paired_timing import Timing

HEADER = """\
| figure: peer / vol3d | ratio | at least | wall s | CPU s | peak RSS MiB | note |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """One line of the table; without a peer its note says what to install."""

    figure: str
    ours: Timing | None = None
    peer: Timing | None = None
    target: float = 0.0
    note: str = ""
    ratio: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        timings = {name: t.as_dict() for name, t in (("vol3d", self.ours), ("peer", self.peer)) if t}
        return {"figure": self.figure, "ratio": self.value, "target": self.target, "note": self.note, **timings}

    @property
    def value(self) -> float | None:
        """Peer over vol3d: above 1 means that vol3d needs less."""
        if self.ratio is not None or self.ours is None or self.peer is None:
            return self.ratio
        return self.peer.wall_s / self.ours.wall_s

    def markdown(self) -> str:
        """Return the line."""
        if self.value is None:
            return f"| {self.figure} | | {self.target:g} | | | | {self.note} |"
        timings = (self.peer, self.ours)
        cells = [
            " / ".join(f"{getattr(t, name) * scale:{form}}" if t else "-" for t in timings)
            for name, scale, form in (("wall_s", 1, ".3g"), ("cpu_s", 1, ".3g"), ("peak_rss_bytes", 2**-20, ".0f"))
        ]
        return f"| {self.figure} | {self.value:.2f} | {self.target:g} | {' | '.join(cells)} | {self.note} |"
