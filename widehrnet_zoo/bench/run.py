"""A benchmark from names to rows."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..models.macs import count_macs
from .contenders import TRAINING, Contender, Runner
from .timing import cold_start, interleave


def machine(threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    name = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith('model name')]
        name = lines[0].partition(':')[2].strip() if lines else name
    return {'processor': name, 'threads': threads, 'system': platform.system(), 'torch': torch.__version__}


def bench(
    contenders: Sequence[Contender],
    *,
    batches: Sequence[int] = (1,),
    threads: int = 1,
    runs: int = 30,
    cold: bool = False,
    progress: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """Time contenders side by side: same images, same threads, in turn.

    Args:
        contenders: Who runs, prepared.
        batches: Images per call.
        threads: Threads of every runtime.
        runs: Rounds.
        cold: Also measure first result and peak memory in a new process each.
        progress: Show a progress bar.

    Yields:
        The rows of each batch, one for each contender, as soon as it is timed: the fields of `Timing`, `speedup` over
        the first contender, `macs`, `gmacs_per_s`, and with `cold` what `cold_start` gives.

    Raises:
        UserError: If a contender cannot run, or two are the same.
    """
    labels = [c.label for c in contenders]
    if not labels or len(set(labels)) != len(labels):
        raise UserError('Name at least one model, and none twice.')
    runners: dict[str, Runner] = {c.label: c.open(threads) for c in contenders}
    macs: dict[str, int | None] = {}
    for c in contenders:
        if c.model not in macs:
            macs[c.model] = None if c.model.endswith('.onnx') else count_macs(c.module(), c.size)
    colds = {c.label: cold_start(c, threads) for c in contenders} if cold else {}
    for batch in batches:
        images = np.random.default_rng(0).standard_normal((batch, 3, *contenders[0].size)).astype(np.float32)
        calls = {label: partial(run, images) for label, run in runners.items()}
        timings = interleave(calls, runs, progress=progress)
        rows = []
        for c in contenders:
            timing = timings[c.label]
            count = macs[c.model]
            if count is not None and c.path in TRAINING:
                count *= 3
            row = {
                'model': Path(c.model).name,
                'path': c.path,
                'precision': c.precision,
                'batch': batch,
                **asdict(timing),
                'speedup': timings[labels[0]].median / timing.median,
                'macs': count,
                'gmacs_per_s': None if count is None else count * batch / timing.median / 1e6,
                **colds.get(c.label, {}),
            }
            rows.append(row)
        yield rows
