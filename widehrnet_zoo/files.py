"""Files and folders that are written whole or not at all, and files of settings."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .extras import require

_MOST_VALUES = 100_000
_DEEPEST = 100


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If it cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())  # in UTF-8 or, as PowerShell writes it, UTF-16
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except RecursionError as error:
        raise UserError(f'{path} is nested too deep to be read.') from error
    except ValueError as error:
        raise UserError(f'{path} is not a JSON file: {error}.') from error


def sha256(*paths: str | Path) -> str:
    """Hash of a file, or of several one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def model_files(path: str | Path) -> tuple[Path, ...]:
    """A file of a model, and the one with OpenVINO's weights beside its graph, which training does not change."""
    path = Path(path)
    weights = path.with_suffix('.bin')
    return (path, weights) if path.suffix == '.xml' and weights.is_file() else (path,)


def check_folder(folder: str | Path, option: str = '--out') -> None:
    """Find out before long work whether results can be written.

    Args:
        folder: Where to; it need not be there.
        option: By which it was given.

    Raises:
        UserError: If it is a file, or cannot be made or written.
    """
    folder = Path(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f'{folder} is a file: {option} is a folder.')
    try:
        with tempfile.TemporaryFile(dir=next(f for f in (folder, *folder.absolute().parents) if f.exists())):
            pass
    except OSError as error:
        raise UserError(
            f'Results cannot be written to {folder} ({error.strerror}): give another folder as {option}.'
        ) from error


@contextmanager
def naming(path: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Say of a file that is written here, for a user who named it, that it cannot be written.

    Args:
        path: The file.
        errors: What a library that writes it raises in place of an OSError, with a `strerror` too.

    Raises:
        UserError: Instead of an OSError, or one of them.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except kinds as error:
        reason: Any = getattr(error, 'strerror', None) or error
        raise UserError(f'{path} cannot be written: {reason}.') from error


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside it, then rename it.

    Args:
        path: The file; an existing one is replaced, its folder is made.
        content: Text, written as UTF-8, or bytes.

    Raises:
        OSError: If the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:60]}.', suffix='.tmp')
        with os.fdopen(descriptor, 'wb') as file:
            file.write(content.encode('utf-8') if isinstance(content, str) else content)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            # which names the temporary file, or on a full disk none
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def replace_files(new: Path, folder: Path, key: str) -> None:
    """Put all files of one folder into another, so that a kill at no moment leaves some old and some new ones.

    The two folders change places in one step where the system can do that (Linux); elsewhere the old one is moved
    away first, and a kill in between leaves it whole under a hidden name. A folder that cannot be moved (a mount
    point, the folder one is in) has no file `key` while the others are replaced.

    Args:
        new: Files only, beside the folder; what it holds afterwards may be deleted.
        folder: Its other files stay.
        key: One of the files, without which the others are not used.

    Raises:
        OSError: If something cannot be moved; the folder is as it was then.
    """
    folder = folder.resolve()
    names = [file.name for file in new.iterdir()]
    here = Path.cwd()
    if folder not in (here, *here.parents):
        for other in folder.iterdir():
            if other.name not in names:
                _link(other, new / other.name)
        shutil.copymode(folder, new)
        if _exchange(new, folder):
            return
        old = new.with_name(f'{new.name}.old')
        try:
            os.rename(folder, old)
        except OSError:
            pass
        else:
            try:
                os.rename(new, folder)
            except OSError:
                os.rename(old, folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
            return
    (folder / key).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == key):
        os.replace(new / name, folder / name)


def _link(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link_file)
    else:
        _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # another system, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _umask() -> int:
    # there is no way to read it but to set it
    value = os.umask(0o022)
    os.umask(value)
    return value


def read_settings(path: Path) -> Any:
    """Read YAML (JSON is YAML) or, by its ending, TOML.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}.') from error
    if path.suffix == '.toml':
        try:
            import tomllib
        except ModuleNotFoundError as error:
            raise UserError(f'{path}: TOML needs Python 3.11 or later; write YAML.') from error
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f'{path} is not valid TOML: {error}.') from error
    return load_yaml(text, str(path)) or {}


def load_yaml(text: str, name: str) -> Any:
    """Values of a YAML text, or why it has none.

    Args:
        text: YAML.
        name: What to call it in the message.

    Raises:
        UserError: If it is not YAML, or unfolds to more than any settings need.
        ImportError: If PyYAML is not installed.
    """
    yaml: Any = require('yaml', 'train')
    # PyYAML takes seconds for a thousand open brackets before it gives up
    depth = 0
    for bracket in re.findall(r'[][{}]', text):
        depth += 1 if bracket in '[{' else -1
        if depth > _DEEPEST:
            raise UserError(f'{name} is nested too deep: {_DEEPEST} levels of brackets are the most.')
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # PyYAML lets all kinds of errors out on what looks like a date or a number
        raise UserError(f'{name} is not valid YAML: {" ".join(str(error).split())[:300]}.') from error
    # aliases make a small file endless, or so large that no copy of it fits anywhere
    pending, count = [value], 0
    while pending:
        count += 1
        if count > _MOST_VALUES:
            raise UserError(f'{name} unfolds to more than {_MOST_VALUES} values: write it without aliases (*name).')
        item = pending.pop()
        pending.extend([*item, *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else ())
    return value
