"""Where the time of the kernels goes: kinds of work beside what the processor can do at most."""

from typing import Any

import numpy as np

from ..deployment.network import deploy
from ..kernels.library import PARTS, choose_variant, peak
from ..kernels.record import record
from .contenders import Contender
from .report import markdown

_WORK = {
    'stem': 'stem: three convolutions and a depthwise one',
    'expand': 'blocks: 1x1 expansion and depthwise 3x3',
    'gate': 'blocks: squeeze-excitation',
    'project': 'blocks: 1x1 projection',
    'separable': 'between branches and neck: depthwise 3x3 and 1x1',
    'pointwise': 'between branches, upwards: 1x1',
    'add_nearest': 'upsampling by repetition, and sum',
    'add_bilinear': 'bilinear upsampling, and sum',
    'reorder': 'ReLU and new order of channels',
    'head': 'head',
}
"""What each kind of work is."""


def bench_steps(model: str, precision: str, size: tuple[int, int], runs: int = 30) -> list[dict[str, Any]]:
    """Time the kinds of work of one image on one thread, and the processor's multiply-adds, in turn.

    The fastest of the runs counts, as for the peak: other work on the machine only adds.

    Args:
        model: A variant.
        precision: `'f32'`, `'bf16'` or `'int8'`.
        size: Height and width.
        runs: Images.

    Returns:
        A row for each kind of work and one, `whole`, for all: `precision`, `variant`, `part`, `ms`, `share` of time,
        `gmacs`, `gmacs_per_s`, and `of_peak`, the share of what one thread does on registers alone.

    Raises:
        UserError: If there are no such kernels here.
    """
    variant = choose_variant(precision)
    network = record(deploy(Contender(model, 'kernels', precision, size).module())).open(variant)
    image = np.random.default_rng(0).standard_normal((1, network.channels, *size)).astype(np.float32)
    network.profile(image)
    seconds, work, most = np.full(len(PARTS), np.inf), np.zeros(len(PARTS)), 0.0
    for _ in range(runs):
        most = max(most, peak(variant))
        found = network.profile(image)
        seconds = np.minimum(seconds, [found[part][0] for part in PARTS])
        work = np.array([found[part][1] for part in PARTS])
    lines = [*zip(PARTS, seconds, work, strict=True), ('whole', seconds.sum(), work.sum())]
    return [
        {
            'precision': precision,
            'variant': variant,
            'part': part,
            'ms': 1e3 * float(time),
            'share': float(time / seconds.sum()),
            'gmacs': float(macs) / 1e9,
            'gmacs_per_s': float(macs / time) / 1e9 if time else 0.0,
            'of_peak': float(macs / time) / most if time else 0.0,
        }
        for part, time, macs in lines
    ]


def steps_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of what `bench_steps` gives."""
    head = ['kernels', 'work', 'ms', 'of the time', 'GMAC', 'GMAC/s', 'of the peak']
    lines = []
    for row in rows:
        numbers = [f'{row["gmacs"]:.3f}', f'{row["gmacs_per_s"]:.0f}', f'{row["of_peak"]:.0%}']
        what = _WORK.get(row['part'], '**all**')
        lines.append([row['variant'], what, f'{row["ms"]:.2f}', f'{row["share"]:.0%}', *numbers])
    return markdown(head, lines, 2)
