"""What long work has: a progress bar, which needs no tqdm, and threads that begin the next pieces."""

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

Item = TypeVar('Item')
Made = TypeVar('Made')


def begun_ahead(
    call: Callable[[Item], Made], items: Iterable[Item], workers: int, most: int
) -> Generator[Callable[[], Made]]:
    """What a call makes of items, in their order, begun in threads before it is asked for.

    Args:
        call: Makes something of an item.
        items: They may have no end.
        workers: Threads; 0 makes each when it is asked for.
        most: Items that are begun and not yet asked for, at most.

    Yields:
        For each item what gives the result, or raises the error of the call.
    """
    if not workers:
        for item in items:
            yield partial(call, item)
        return
    begun: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, 'read') as pool:
        try:
            for item in items:
                begun.append(pool.submit(call, item))
                if len(begun) > most:
                    yield begun.popleft().result
            while begun:
                yield begun.popleft().result
        finally:
            for future in begun:
                future.cancel()


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
