"""The progress bar of what also runs where only NumPy and Pillow are installed."""

import sys
import time
from typing import Any


def progress_bar(total: int | None, unit: str, desc: str = '', disable: bool = False) -> Any:
    """The bar of tqdm, or a plain count where tqdm is not installed.

    Args:
        total: How many there will be, if that is known.
        unit: What is counted.
        desc: What stands before the count.
        disable: Show nothing.

    Returns:
        A context manager with `update(n=1)`.
    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return _Count(total, unit, desc, disable)
    return tqdm(total=total, unit=unit, desc=desc or None, disable=disable)


class _Count:
    def __init__(self, total: int | None, unit: str, desc: str, disable: bool):
        self._text = f'{desc}: {{}}{"" if total is None else f"/{total}"} {unit}s'.removeprefix(': ')
        self._disable = disable
        self._done, self._shown = 0, 0.0

    def update(self, n: int = 1) -> None:
        self._done += n
        if not self._disable and time.monotonic() - self._shown > 0.5:
            self._show()

    def _show(self, end: str = '') -> None:
        self._shown = time.monotonic()
        sys.stderr.write(f'\r{self._text.format(self._done)}{end}')
        sys.stderr.flush()

    def __enter__(self) -> '_Count':
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._disable:
            self._show('\n')
