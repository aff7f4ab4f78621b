"""The flip test: heatmaps of mirrored crops, and whether a skeleton can be mirrored."""

import logging
from collections.abc import Sequence
from functools import cache

from ..errors import UserError
from .arrays import Arrays, library_of
from .skeletons import Skeleton

_logger = logging.getLogger(__name__)


def flip_heatmaps(heatmaps: Arrays, flip_order: Sequence[int], shift: bool = True) -> Arrays:
    """Bring the heatmaps of mirrored crops back.

    Args:
        heatmaps: (B, K, h, w) of the mirrored crops.
        flip_order: For each keypoint the one that takes its place in the mirror, `Skeleton.flip_order`.
        shift: Move the result right by one pixel, as in the published figures: the network's strided convolutions
            do not see a crop and its mirror image on the same grid.

    Returns:
        (B, K, h, w), to be averaged with the heatmaps of the crops themselves.
    """
    xp = library_of(heatmaps)
    back = xp.flip(heatmaps, (3,))[:, list(flip_order)]
    return xp.concatenate((back[..., :1], back[..., :-1]), 3) if shift else back


def check_flip_test(skeleton: Skeleton) -> None:
    """Refuse a flip test that cannot know left and right, and warn of keypoints that have no counterpart.

    Args:
        skeleton: The skeleton.

    Raises:
        UserError: If the keypoints have no names.
    """
    if not skeleton.flip_pairs and any(name.startswith('keypoint_') for name in skeleton.keypoints):
        raise UserError(
            'The flip test needs to know which keypoints are left and right, and this model does not say: give the '
            'skeleton, or switch the flip test off.'
        )
    warn_unpaired(skeleton, 'The flip test')


@cache
def warn_unpaired(skeleton: Skeleton, what: str) -> None:
    """Warn, once, of keypoints without a counterpart in a mirrored image, where that may be a mistake.

    Args:
        skeleton: The skeleton.
        what: What mirrors; the warning starts with it.
    """
    paired = {i for pair in skeleton.flip_pairs for i in pair}
    alone = [name for i, name in enumerate(skeleton.keypoints) if i not in paired and skeleton.sides[i] != 'centre']
    if alone:
        found = f'no flip pair for {", ".join(alone[:8])}'
    elif len(skeleton.keypoints) > 1 and not paired:
        found = f'no left and right among the keypoints ({", ".join(skeleton.keypoints[:8])})'
    else:
        return
    _logger.warning(
        '%s found %s: in a mirrored image each of them stays what it is. If that is wrong, give the skeleton its '
        'flip_pairs, or switch the mirroring off.',
        what,
        found,
    )
