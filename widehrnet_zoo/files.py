"""Files that are written whole or not at all."""

import os
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


def _umask() -> int:
    # there is no way to read it but to set it
    value = os.umask(0o022)
    os.umask(value)
    return value
