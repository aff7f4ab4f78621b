"""ONNX Runtime Web: which of its files the page loads, from where, and their hashes."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import UserError

VERSION = '1.30.0'

_ADDRESS = f'https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/'

_HASHES = {
    'ort.webgpu.bundle.min.mjs': 'sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f',
    'ort-wasm-simd-threaded.asyncify.wasm': 'sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR',
}
"""Of a script and a binary of `VERSION` in its npm package (`openssl dgst -sha384 -binary FILE | base64`)."""


def runtime_config(folder: str | Path | None, site: Path) -> dict[str, Any]:
    """What the page is told about its runtime; files of one's own are copied beside it.

    Args:
        folder: An unpacked npm package `onnxruntime-web`, or `None` for the pinned files of a public CDN.
        site: The page's folder.

    Returns:
        `version`, `address`, and the names of its script and its binary with their hashes, `None` for one's own.

    Raises:
        UserError: If the folder has not the files that are needed.
    """
    if folder is None:
        return {'version': VERSION, 'address': _ADDRESS, 'files': [list(file) for file in _HASHES.items()]}
    folder = Path(folder)
    # the package, the folder that `npm pack` and tar leave it in, or its files alone
    places = (folder / 'dist', folder / 'package' / 'dist', folder)
    needed = list(_HASHES)
    found = next((place for place in places if all((place / name).is_file() for name in needed)), None)
    if found is None:
        raise UserError(
            f'{folder} is not the unpacked npm package onnxruntime-web {VERSION}: expected dist/{needed[0]} and its '
            f'like. `npm pack onnxruntime-web@{VERSION}` and `tar xzf` make one.'
        )
    (site / 'runtime').mkdir()
    for name in needed:
        shutil.copyfile(found / name, site / 'runtime' / name)
    try:
        version = json.loads((found.parent / 'package.json').read_text(encoding='utf-8'))['version']
    except (OSError, ValueError, KeyError, TypeError):
        version = 'of your own'
    return {'version': version, 'address': 'runtime/', 'files': [[name, None] for name in needed]}


if __name__ == '__main__':
    print(VERSION)
