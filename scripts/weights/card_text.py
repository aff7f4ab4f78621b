"""What the cards of keypoint weights and of person finders are written with."""

from typing import Any


def rows(values: list[list[Any]]) -> str:
    """Rows of a Markdown table."""
    cells = [[f'{value:,}' if isinstance(value, int) else str(value) for value in row] for row in values]
    return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def listed(sentences: list[str]) -> str:
    """A Markdown list."""
    return '\n'.join(f'- {sentence}' for sentence in sentences)
