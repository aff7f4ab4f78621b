"""What the cards of keypoint weights and of person finders are written with."""

import json
from pathlib import Path
from typing import Any

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.extras import require


def rows(values: list[list[Any]]) -> str:
    """Rows of a Markdown table."""
    cells = [[f'{value:,}' if isinstance(value, int) else str(value) for value in row] for row in values]
    return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def listed(sentences: list[str]) -> str:
    """A Markdown list."""
    return '\n'.join(f'- {sentence}' for sentence in sentences)


def with_interval(value: float, interval: tuple[float, float] | list[float] | None) -> str:
    """A figure and its interval."""
    return f'{value:.3f}' + (f' [{interval[0]:.3f}, {interval[1]:.3f}]' if interval else '')


def read_facts(path: Path | None, name: str, fields: dict[str, str]) -> dict[str, Any]:
    """Facts of a run.

    Args:
        path: The JSON; by default `cards/NAME.json` beside this file.
        name: `variant.tag` of the weights.
        fields: What each field is.

    Raises:
        UserError: If a field is missing, unknown or not filled in.
    """
    path = path or Path(__file__).with_name('cards') / f'{name}.json'
    if not path.exists():
        raise UserError(f'{path} is missing; its fields are {", ".join(fields)}.')
    facts = json.loads(path.read_text(encoding='utf-8'))
    wrong = [f'{key} is missing ({what})' for key, what in fields.items() if not facts.get(key)]
    wrong += [f'{key} is unknown' for key in sorted(set(facts) - set(fields))]
    if wrong:
        raise UserError(f'{path}: {"; ".join(wrong)}')
    return facts


def new_axes(width: float, height: float) -> Any:
    """Axes from 0 to 1 of a plot of so many inches."""
    figures: Any = require('matplotlib.figure', 'train')
    axes = figures.Figure(figsize=(width, height), layout='constrained').subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    return axes


def save(axes: Any, path: Path) -> None:
    """Write the plot with its legend."""
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(path, dpi=110)
