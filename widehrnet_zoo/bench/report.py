"""Table, chart and JSON of a benchmark."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..extras import require
from ..files import write_whole


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table, of which the first `texts` columns are texts and the others numbers."""
    lines = [head, ['---'] * texts + ['---:'] * (len(head) - texts), *rows]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table.

    Args:
        rows: As `widehrnet_zoo.bench.run.bench` gives them.
    """
    cold = any('first_result' in row for row in rows)
    head = ['model', 'path', 'precision', 'batch', 'ms', '10-90 %', 'ms per image', 'times faster', 'GMAC/s']
    head += ['first result, s', 'peak MB'] if cold else []
    lines = []
    for row in rows:
        cells = [
            row['model'],
            row['path'],
            row['precision'],
            str(row['batch']),
            f'{row["median"]:.1f}',
            f'{row["low"]:.1f}-{row["high"]:.1f}',
            f'{row["median"] / row["batch"]:.1f}',
            f'{row["speedup"]:.2f}' if row.get('speedup') else '',
            f'{row["gmacs_per_s"]:.0f}' if row.get('gmacs_per_s') else '',
        ]
        if cold:
            cells += [f'{row["first_result"]:.1f}', f'{row["peak_memory"]:.0f}'] if 'first_result' in row else ['', '']
        lines.append(cells)
    return markdown(head, lines, 3)


def chart(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Bars of milliseconds per image, with the span of 10 to 90 %.

    Args:
        rows: As for `table`.
        title: Above the bars.
        path: PNG to write.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require('matplotlib', 'export')
    from matplotlib.figure import Figure

    batches = sorted({row['batch'] for row in rows})
    most = max(sum(row['batch'] == b for row in rows) for b in batches)
    figure = Figure(figsize=(6.5 * len(batches), 1.2 + 0.32 * most), layout='constrained')
    axes = figure.subplots(1, len(batches), squeeze=False)[0]
    for axis, batch in zip(axes, batches, strict=True):
        chosen = sorted((r for r in rows if r['batch'] == batch), key=lambda r: r['median'])
        values = [r['median'] / batch for r in chosen]
        spans = [
            [max(0.0, r['median'] - r['low']) / batch for r in chosen],
            [max(0.0, r['high'] - r['median']) / batch for r in chosen],
        ]
        colours = ['#1f6f8b' if r['model'].startswith('widehrnet') else '#b0b0b0' for r in chosen]
        labels = [f'{r["model"]} {r["path"]} {r["precision"]}' for r in chosen]
        axis.barh(labels, values, xerr=spans, color=colours, error_kw={'elinewidth': 0.8, 'ecolor': '#404040'})
        axis.bar_label(axis.containers[-1], [f' {v:.1f}' for v in values], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel('ms per image')
        axis.set_title(f'batch {batch}')
        axis.tick_params(axis='y', labelsize=8)
        axis.spines[['top', 'right']].set_visible(False)
        axis.margins(x=0.12)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=130)
    write_whole(path, buffer.getvalue())
