"""Left and right in the names of keypoints."""

import re
from collections.abc import Sequence

_SIDES = ('left', 'right')
_OPPOSITE = {'left': 'right', 'l': 'r', 'lt': 'rt'}


def _words(name: str) -> tuple[str, ...]:
    """`left_eye`, `left-eye`, `left eye` and `leftEye` are the words left and eye; `LEye` is leye, `eyeL` eye and l."""
    return tuple(re.sub(r'(?<=[a-z])(?=[A-Z])|[\W_]+', ' ', name).lower().split())


def _as_words(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """`L_Eye`, `eye.L`, `x_l`, `lt hip`: the side is a word."""
    return [(*words[:i], _OPPOSITE[w], *words[i + 1 :]) for i, w in enumerate(words) if w in _OPPOSITE]


def _within_words(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """`lefteye`, `left1`, `hindleftpaw`: the side is a part of a word."""
    return [(*words[:i], w.replace('left', 'right'), *words[i + 1 :]) for i, w in enumerate(words) if 'left' in w]


def _by_letter(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """`LEye`, `LX`, `lsho`, `frontl`, `L1`, `FLpaw`: the side is the first, the last or the second letter of a word."""
    found = []
    for i, w in enumerate(words):
        for place in (0, len(w) - 1, 1):
            if len(w) > 1 and w[place] == 'l':
                found.append((*words[:i], f'{w[:place]}r{w[place + 1 :]}', *words[i + 1 :]))
    return found


def find_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Indices of the names that differ in left and right alone, in the order of the left ones, left first.

    The plainest way of writing is tried first. A letter counts only where both names are there, so that a lip or a tail
    is not taken for the left one of something.
    """
    words = [_words(name) for name in names]
    # by the words, and for the rest by the letters alone: left_eye beside RightEye
    places = {w: i for i, w in reversed(list(enumerate(words)))}
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for mirrored in (_as_words, _within_words, _by_letter):
        for i, own in enumerate(words):
            if i in taken:
                continue
            for other in mirrored(own):
                j = places.get(other)
                if j is not None and j != i and j not in taken:
                    partner[i] = j
                    taken |= {i, j}
                    break
    return tuple(sorted(partner.items()))


def find_sides(names: Sequence[str]) -> tuple[str, ...]:
    """`'left'`, `'right'` or `'centre'` for each name."""
    found = {i: side for pair in find_flip_pairs(names) for i, side in zip(pair, _SIDES, strict=True)}
    alone = (next((side for side in _SIDES if side in _words(name)), 'centre') for name in names)
    return tuple(found.get(i, side) for i, side in enumerate(alone))
