"""Draw the figures of docs/concepts.md, each for light and for dark pages.

Usage: python scripts/docs/figures.py
"""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[2] / 'docs' / 'images'

Palette = dict[str, str]
PALETTES: dict[str, Palette] = {
    'light': {
        'ink': '#1f2430',
        'soft': '#5b6472',
        'line': '#8a93a3',
        'strong': '#c2410c',
        'box': '#ffffff',
        'branches': '#cfe3fb #b4d3f7 #95bff0 #74a8e6',
        'stage': '#f1f4f9',
    },
    'dark': {
        'ink': '#f0f3f8',
        'soft': '#b3bccb',
        'line': '#8792a4',
        'strong': '#fb923c',
        'box': '#2a3140',
        'branches': '#27496d #2c5580 #336495 #3b74ab',
        'stage': '#222938',
    },
}


class Drawing:
    """An SVG file in the making."""

    def __init__(self, width: int, height: int, palette: Palette, label: str):
        self.palette = palette
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{label}" font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif">',
            '<defs>',
            *(
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'markerUnits="userSpaceOnUse" orient="auto">'
                f'<path d="M0 0L10 5L0 10z" fill="{palette[name]}"/></marker>'
                for name in ('line', 'strong')
            ),
            '</defs>',
        ]

    def box(self, x: float, y: float, w: float, h: float, fill: str, stroke: str = 'line', radius: int = 6) -> None:
        """A rounded rectangle; colours by name in the palette, or as they are."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius}" '
            f'fill="{self.palette.get(fill, fill)}" stroke="{self.palette.get(stroke, stroke)}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: int = 13,
        colour: str = 'ink',
        anchor: str = 'middle',
        bold: bool = False,
    ) -> None:
        """One line; `_x` in it is set as a subscript."""
        head, *subscripts = words.split('_')
        shown = head
        for part in subscripts:
            length = len(list(itertools.takewhile(str.isalnum, part)))
            shown += (
                f'<tspan dy="3" font-size="{size - 4}">{part[:length]}</tspan><tspan dy="-3">{part[length:]}</tspan>'
            )
        weight = ' font-weight="600"' if bold else ''
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{self.palette[colour]}" '
            f'text-anchor="{anchor}"{weight} xml:space="preserve">{shown}</text>'
        )

    def arrow(self, points: Iterable[tuple[float, float]], colour: str = 'line', width: float = 1.5) -> None:
        """A line with a head at its end."""
        path = 'M' + 'L'.join(f'{x:g} {y:g}' for x, y in points)
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{self.palette[colour]}" stroke-width="{width}" '
            f'marker-end="url(#{colour})"/>'
        )

    def svg(self) -> str:
        """The file's text."""
        return '\n'.join([*self.parts, '</svg>', ''])


def network(palette: Palette) -> Drawing:
    """The network as data flows through it."""
    label = 'From the crop through the stem, three stages of two to four branches, the neck and the head to heatmaps'
    d = Drawing(960, 392, palette, label)
    colours = palette['branches'].split()
    rows = [(86, 40, '64 x 48'), (156, 80, '32 x 24'), (226, 160, '16 x 12'), (296, 320, '8 x 6')]
    height = 44
    middle = [y + height / 2 for y, _, _ in rows]

    d.text(48, 40, 'crop', 14, bold=True)
    d.box(14, 56, 68, 92, 'box')
    d.text(48, 98, '3 x', 12)
    d.text(48, 115, '256 x 192', 12)
    d.text(140, 40, 'stem', 14, bold=True)
    d.box(112, 86, 58, height, 'box')
    d.text(141, 105, '32 x', 12)
    d.text(141, 121, '64 x 48', 12)
    d.arrow([(82, middle[0]), (110, middle[0])])
    left, wide, gap = 206, 118, 46
    for stage, (branches, modules) in enumerate(((2, 2), (3, 4), (4, 2))):
        x = left + stage * (wide + gap)
        d.text(x + wide / 2, 40, f'stage {stage + 1}', 14, bold=True)
        d.text(x + wide / 2, 58, f'{modules} modules', 12, 'soft')
        d.box(x - 8, 70, wide + 16, rows[branches - 1][0] + height + 16 - 70, 'stage', radius=10)
        for b in range(branches):
            y, channels, size = rows[b]
            d.box(x, y, wide, height, colours[b])
            d.text(x + wide / 2, y + 19, f'{channels} x {size}', 12)
            d.text(x + wide / 2, y + 35, 'blocks, fusion', 11)
        before = x - gap if stage else 170
        for b in range(branches - 1):
            d.arrow([(before + (8 if stage else 0), middle[b]), (x - 2, middle[b])])
        last = middle[branches - 2]
        d.arrow([(before + (8 if stage else 0), last + 8), (x - 2, middle[branches - 1])])

    x, inner = left + 3 * (wide + gap), 76
    d.text(x + inner / 2, 40, 'neck', 14, bold=True)
    for b, (y, channels, _) in enumerate(rows):
        d.box(x, y, inner, height, colours[b])
        to = rows[max(b - 1, 0)][1]
        d.text(x + inner / 2, y + 27, f'{channels} → {to}', 12)
        d.arrow([(x - gap + 8, middle[b]), (x - 2, middle[b])])
        if b:
            d.arrow([(x + inner / 2, y), (x + inner / 2, rows[b - 1][0] + height + 2)])
    d.text(x + inner / 2 + 8, 287, '2x up, add', 11, 'soft', 'start')
    d.arrow([(x + inner, middle[0]), (x + inner + 26, middle[0])])
    x += inner + 28
    d.text(x + 43, 40, 'head', 14, bold=True)
    d.box(x, 86, 86, height, 'box')
    d.text(x + 43, 105, '1x1 conv', 12)
    d.text(x + 43, 121, 'K x 64 x 48', 12)
    for stride, y in zip((8, 16, 32), middle[1:], strict=True):
        d.text(141, y + 4, f'stride {stride}', 12, 'soft')
    d.text(x + 43, 152, 'one heatmap', 11, 'soft')
    d.text(x + 43, 166, 'per keypoint', 11, 'soft')
    d.text(
        480, 384, 'WideHRNet-18 at 256 x 192, channels x height x width. WideHRNet-30 has 3, 8, 3 modules.', 13, 'soft'
    )
    return d


def fusion(palette: Palette) -> Drawing:
    """The exchange between three branches: the textbook's and the official one."""
    label = 'Left: every output sums all inputs. Right: the outputs of lower resolution read z0, twice, instead of x0'
    d = Drawing(960, 430, palette, label)
    colours = palette['branches'].split()
    rows = (110, 200, 290)
    for left, title in ((20, 'Textbook (HRNet)'), (500, 'WideHRNet')):
        d.box(left, 10, 440, 410, 'stage', radius=12)
        d.text(left + 220, 42, title, 16, bold=True)
        for i, y in enumerate(rows):
            for x, name in ((left + 40, 'x'), (left + 350, 'z')):
                d.box(x, y - 23, 50, 46, colours[i])
                d.text(x + 25, y + 5, f'{name}_{i}', 17)
    d.text(65, 78, 'branches in', 12, 'soft')
    d.text(395, 78, 'branches out', 12, 'soft')
    d.text(545, 78, 'branches in', 12, 'soft')
    d.text(875, 78, 'branches out', 12, 'soft')
    for i, j in itertools.product(range(3), range(3)):
        d.arrow([(112, rows[j]), (368, rows[i] + 9 * (j - i))])
        if i or j:
            if j == 0:
                continue
            d.arrow([(592, rows[j]), (848, rows[i] + (9 * (j - i) if i else 9 * j))])
    d.arrow([(592, rows[0]), (848, rows[0])], 'strong', 2.5)
    d.text(720, rows[0] - 9, '2 x', 14, 'strong', bold=True)
    d.arrow([(868, rows[0] + 23), (868, rows[1] - 25)], 'strong', 2.5)
    d.text(860, 158, '2 x', 14, 'strong', 'end', bold=True)
    d.arrow([(900, rows[0]), (924, rows[0]), (924, rows[2]), (902, rows[2])], 'strong', 2.5)
    d.text(918, 250, '2 x', 14, 'strong', 'end', bold=True)
    d.text(240, 352, 'z_0 = x_0 + f_01(x_1) + f_02(x_2)', 14)
    d.text(240, 376, 'z_1 = f_10(x_0) + x_1 + f_12(x_2)', 14)
    d.text(240, 400, 'z_2 = f_20(x_0) + f_21(x_1) + x_2', 14)
    d.text(720, 352, 'z_0 = 2 x_0 + f_01(x_1) + f_02(x_2)', 14)
    d.text(720, 376, 'z_1 = 2 f_10(z_0) + x_1 + f_12(x_2)', 14)
    d.text(720, 400, 'z_2 = 2 f_20(z_0) + f_21(x_1) + x_2', 14)
    return d


FIGURES: dict[str, Callable[[Palette], Drawing]] = {'network': network, 'fusion': fusion}


def render() -> dict[str, str]:
    """All figures.

    Returns:
        Text of each file by its name.
    """
    return {f'{name}-{theme}.svg': draw(p).svg() for name, draw in FIGURES.items() for theme, p in PALETTES.items()}


if __name__ == '__main__':
    IMAGES.mkdir(parents=True, exist_ok=True)
    for file, content in render().items():
        (IMAGES / file).write_text(content, encoding='utf-8')
