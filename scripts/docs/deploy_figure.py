"""Draw docs/images/deploy.svg: where the channels of a branch lie during two blocks."""

import argparse
from pathlib import Path

from widehrnet_zoo.deployment.folding import Layout, paired_layout
from widehrnet_zoo.files import write_whole

CELL, GAP, LEFT = 44, 62, 190
PASS, WORK = '#d9e2ec', '#f0a868'


def row(y: int, label: str, channels: list[str], marked: set[int]) -> list[str]:
    """One row of channels as SVG."""
    parts = [f'<text x="{LEFT - 14}" y="{y + 28}" text-anchor="end">{label}</text>']
    for i, name in enumerate(channels):
        x = LEFT + i * CELL
        fill = WORK if i in marked else PASS
        parts.append(f'<rect x="{x}" y="{y}" width="{CELL - 4}" height="40" rx="4" fill="{fill}"/>')
        parts.append(f'<text x="{x + CELL / 2 - 2}" y="{y + 26}" text-anchor="middle">{name}</text>')
    return parts


def figure(chs: int = 8) -> str:
    """The picture as SVG, computed by the code that deploys."""
    half = chs // 2
    second_half = set(range(half, chs))
    parts: list[str] = []
    y = 34
    parts.append(f'<text x="{LEFT}" y="20" font-weight="bold">trained: the memory is shuffled after each block</text>')
    names = [str(c) for c in range(chs)]
    for k in (1, 2):
        parts += row(y, f'block {k}', names, second_half)
        y += GAP
        shuffled = Layout.natural(chs).shuffled().order.tolist()
        names = [names[c] for c in shuffled]
    parts += row(y, 'after both', names, set())
    y += GAP + 24
    parts.append(
        f'<text x="{LEFT}" y="{y - 12}" font-weight="bold">deployed: the channels stay, the block moves</text>'
    )
    layout = paired_layout(chs)
    names = [str(c) for c in layout.order.tolist()]
    for k in (1, 2):
        parts += row(y, f'block {k}', names, set(layout.second_half().tolist()))
        y += GAP
        layout = layout.shuffled()
    parts += row(y, 'after both', names, set())
    width, height = LEFT + chs * CELL + 10, y + 52
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="15" fill="#102a43"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path(__file__).parents[2] / 'docs' / 'images' / 'deploy.svg')
    write_whole(parser.parse_args().out, figure())
