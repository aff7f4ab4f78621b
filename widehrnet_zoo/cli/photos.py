"""Which photos a command is asked for, and what their results are called."""

import glob
import os
from collections import Counter
from pathlib import Path

_CAMERAS = '3fr arw cr2 cr3 crw dng gpr iiq nef nrw orf pef raf raw rw2 rwl sr2 srw x3f'
_TO_CONVERT = frozenset(f'.{ending}' for ending in f'{_CAMERAS} exr hdr jp2 jxl psd svg'.split())
"""Photos of cameras and others that are not read here."""

STDIN = Path('-')

_DRAWN = ('.jpg', '.mp4', '.mkv', '.mov')
"""Photos and videos that drawings can have the names of."""


def find_photos(
    paths: list[str], out: Path | None
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]], list[tuple[Path, str]]]:
    """Photos of files, folders and wildcards, each once.

    Args:
        paths: What was asked for.
        out: Folder of the results, if any; results of earlier runs are not photos.

    Returns:
        Pairs of a photo and its place in what was asked for (its name, or its path inside the folder), the paths that
        lead nowhere and the folders that may not be read, and the photos and videos in folders that are passed over,
        each with the reason.
    """
    from ..pose.images import HEIF_SUFFIXES, PHOTO_SUFFIXES, has_heif
    from ..video import is_video

    skipped: dict[Path, str] = {}
    found: dict[Path, tuple[Path, Path]] = {}
    missing: list[tuple[str, str]] = []
    target = None if out is None else out.resolve()

    def add(path: Path, place: Path) -> None:
        found.setdefault(path.resolve(), (path, place))

    def unreadable(error: OSError) -> None:
        missing.append((str(error.filename), f'{error.filename} cannot be read: {error.strerror}'))

    def add_folder(folder: Path) -> None:
        walk = os.walk(folder, onerror=unreadable)
        for path in sorted(Path(root, name) for root, _, names in walk for name in names):
            suffix = path.suffix.lower()
            reason = ''
            if suffix in _TO_CONVERT:
                reason = 'convert it to JPEG'
            elif suffix in HEIF_SUFFIXES and not has_heif():
                reason = 'needs pip install "widehrnet_zoo[heic]"'
            elif is_video(path):
                reason = 'a video: name it'
            elif suffix not in PHOTO_SUFFIXES and suffix not in HEIF_SUFFIXES:
                continue
            # of a file that may not be looked at reading will say so
            if (not os.path.isfile(path) and os.access(path.parent, os.X_OK)) or _is_result(path):
                continue
            if target in path.resolve().parents and target != folder.resolve():
                continue
            if reason:
                skipped[path] = reason
            else:
                add(path, path.relative_to(folder))

    for text in paths:
        path = Path(text)
        if path == STDIN:
            found.setdefault(path, (path, Path('stdin')))
        elif os.path.isdir(path):
            add_folder(path)
        elif os.path.exists(path):
            add(path, Path(path.name))
        else:
            matches = sorted(glob.glob(text, recursive=True))
            for match in map(Path, matches):
                if os.path.isdir(match):
                    add_folder(match)
                elif not _is_result(match):
                    add(match, Path(match.name))
            if not matches:
                missing.append((text, _why_not(text)))
    return list(found.values()), missing, list(skipped.items())


def _why_not(text: str) -> str:
    try:
        os.stat(text)
    except PermissionError as error:
        return f'{text} cannot be read: {error.strerror}'
    except (OSError, ValueError):
        pass
    return f'there is no file {text}'


def _is_result(path: Path) -> bool:
    return path.stem.endswith('_pose') and any(os.path.exists(path.with_suffix(s)) for s in ('.json', '.jsonl'))


def check_pictures(out: Path, targets: list[Path], found: list[tuple[Path, Path]]) -> None:
    """Find out before any photo is read whether a drawing would be written over one of them.

    Args:
        out: Folder of the results.
        targets: Names in it as from `name_outputs`.
        found: Pairs as from `find_photos`.

    Raises:
        UserError: If it would, as that of `tree.jpg` over `tree_pose.jpg`.
    """
    from ..errors import UserError

    names = {f'{out.resolve() / target}_pose'.casefold() for target in targets}
    for path, _ in found:
        meets = path.suffix.lower() in _DRAWN and str(path.resolve().with_suffix('')).casefold() in names
        if meets and not _is_result(path):
            raise UserError(f'A result would be written over {path}: give another folder as --out.')


def name_outputs(photos: list[tuple[Path, Path]]) -> list[Path]:
    """Where results go, without suffix; no two the same, whatever the file system thinks of capitals.

    Args:
        photos: Pairs as from `find_photos`.
    """

    def name(photo: Path, place: Path, level: int) -> Path:
        stem = place.with_name(place.stem)
        if level == 0:
            return stem
        stem = place.with_name(f'{place.stem}_{place.suffix[1:]}')
        above = photo.resolve().parent.parts[1:]
        return Path(*above[len(above) - (level - 1) :], *stem.parts) if level > 1 else stem

    levels = [0] * len(photos)
    while True:
        names = [name(*photo, level) for photo, level in zip(photos, levels, strict=True)]
        keys = [str(n).casefold() for n in names]
        same = {key for key, count in Counter(keys).items() if count > 1}
        deepest = [level > len(photo.resolve().parts) for (photo, _), level in zip(photos, levels, strict=True)]
        if not same or all(d for d, k in zip(deepest, keys, strict=True) if k in same):
            break
        levels = [level + (k in same and not d) for level, k, d in zip(levels, keys, deepest, strict=True)]
    # names that differ in nothing but capitals
    seen: dict[str, int] = {}
    unique = []
    for n, key in zip(names, keys, strict=True):
        seen[key] = seen.get(key, 0) + 1
        unique.append(n if seen[key] == 1 else n.with_name(f'{n.name}_{seen[key]}'))
    return unique
