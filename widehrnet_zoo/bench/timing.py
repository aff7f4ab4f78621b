"""Interleaved timing, and cold starts in processes of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError
from .contenders import Contender

_PAUSE = 0.05
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call.

    Attributes:
        median: Half of the calls were faster.
        low: A tenth of the calls was faster.
        high: A tenth of the calls was slower.
        best: The fastest call.
        runs: Number of calls.
    """

    median: float
    low: float
    high: float
    best: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> 'Timing':
        """Of measured calls."""
        ms = np.array(seconds) * 1e3
        return cls(
            median=float(np.median(ms)),
            low=float(np.quantile(ms, 0.1)),
            high=float(np.quantile(ms, 0.9)),
            best=float(ms.min()),
            runs=len(ms),
        )


def interleave(
    calls: Mapping[Any, Callable[[], Any]], runs: int = 30, warmup: int = 3, progress: bool = True
) -> dict[Any, Timing]:
    """Time calls in turn, so that whatever else the machine does hits all alike.

    Args:
        calls: What to time, by name.
        runs: Rounds.
        warmup: Calls of each beforehand that do not count.
        progress: Show a progress bar.
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in tqdm(range(runs), desc='bench', unit='round', disable=not progress):
        for name, call in calls.items():
            # threads of the runtime before it still spin for a while, and the caches are full of its numbers
            time.sleep(_PAUSE)
            call()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing.of(values) for name, values in seconds.items()}


def cold_start(contender: Contender, threads: int) -> dict[str, float]:
    """Start a process that opens a contender and runs it once on one image.

    Returns:
        `first_result`, the seconds from its start to the first result, imports and loading included, and `peak_memory`,
        the MB of memory at most.

    Raises:
        UserError: If the process fails.
    """
    command = [sys.executable, '-m', __name__, json.dumps(asdict(contender)), str(threads)]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise UserError(f'{contender.label} gave no first result within {_TIMEOUT:.0f} s.') from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(f'{contender.label} failed in a new process: {lines[-1] if lines else done.returncode}')
    said = json.loads(done.stdout.splitlines()[-1])
    # both clocks count from the same start of the machine
    return {'first_result': said['at'] - start, 'peak_memory': said['peak_memory']}


def _peak_memory() -> float:
    """MB of memory that this process has had at most."""
    import resource

    status = Path('/proc/self/status')
    if status.exists():
        # getrusage would count the parent's memory at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 1024)


def _child(contender: str, threads: str) -> None:
    values = json.loads(contender)
    values['size'] = tuple(values['size'])
    one = Contender(**values)
    images: npt.NDArray[np.float32] = np.zeros((1, 3, *one.size), np.float32)
    one.open(int(threads))(images)
    at = time.perf_counter()
    sys.stdout.write(json.dumps({'at': at, 'peak_memory': _peak_memory()}) + '\n')


if __name__ == '__main__':
    _child(*sys.argv[1:])
