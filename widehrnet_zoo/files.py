"""Files and folders that are written whole or not at all."""

import ctypes
import os
import shutil
import tempfile
from pathlib import Path


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
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:60]}.', suffix='.tmp')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(content.encode('utf-8') if isinstance(content, str) else content)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # a full disk is told without the name of the file
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
