"""What an evaluation says: figures, the switches they were made with, a table."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..metrics.bootstrap import bootstrap


@dataclass(frozen=True, repr=False)
class Report:
    """An evaluation's outcome.

    Attributes:
        figures: By name, fractions; NaN where nothing counts.
        intervals: 95 % bootstrap intervals by name, if asked for.
        switches: Every switch of the protocol that changes the figures.
        subject: What was measured: model, weights, labels, versions.
    """

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        figures: Callable[[Any], dict[str, float]],
        num_images: int,
        switches: dict[str, Any],
        subject: dict[str, Any],
        draws: int = 0,
        progress: bool = False,
    ) -> 'Report':
        """The report on figures, with their intervals.

        Args:
            figures: Maps image indices, or `None` for all, to figures by name.
            num_images: Number of images.
            switches: As above.
            subject: As above.
            draws: Resamplings of the images; 0 gives no intervals.
            progress: Show a bar.
        """
        intervals = {}
        if draws:
            intervals = bootstrap(figures, num_images, draws, progress)
            switches = {**switches, 'bootstrap': f'{draws} draws of images'}
        return cls(figures(None), intervals, switches, subject)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; figures that are not finite are `None`."""
        whole = asdict(self)
        whole['figures'] = {k: _finite(v) for k, v in self.figures.items()}
        whole['intervals'] = {k: tuple(map(_finite, v)) for k, v in self.intervals.items()}
        return whole

    def __repr__(self) -> str:
        figures = ', '.join(f'{name} {value:.4f}' for name, value in list(self.figures.items())[:4])
        return f'Report({figures}{", ..." if len(self.figures) > 4 else ""})'

    def save(self, folder: str | Path, results: list[dict[str, Any]]) -> None:
        """Write `results.json`, `report.json` and `report.md`, each whole or not at all.

        Args:
            folder: Where to; it is made.
            results: What was measured, in COCO's results format.
        """
        folder = Path(folder)
        write_whole(folder / 'results.json', json.dumps(results))
        write_whole(folder / 'report.json', json.dumps(self.to_dict(), indent=1, default=str))
        write_whole(folder / 'report.md', self.table())

    def table(self) -> str:
        """The report as Markdown: the figures in percent, as papers print them, then subject and switches."""
        rows = [('figure', 'value' if not self.intervals else 'value [95 %]')]
        for name, value in self.figures.items():
            text = f'{100 * value:.2f}' if math.isfinite(value) and value >= 0 else '-'
            if name in self.intervals and text != '-':
                low, high = self.intervals[name]
                text += f' [{100 * low:.2f}, {100 * high:.2f}]'
            rows.append((name, text))
        wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [f'| {a:<{wide[0]}} | {b:>{wide[1]}} |' for a, b in rows]
        lines.insert(1, f'|{"-" * (wide[0] + 2)}|{"-" * (wide[1] + 1)}:|')
        lines += [
            '',
            *(f'- {key}: {value}' for key, value in self.subject.items()),
            '- switches: ' + ', '.join(f'{key}={_plain(value)}' for key, value in self.switches.items()),
        ]
        return '\n'.join(lines) + '\n'


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> str:
    if value is None or value is False:
        return 'off'
    return 'on' if value is True else str(value)
