"""Files from the Hub whose content was compared with the hash that the Hub gives for them."""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .hub_revision import split_revision

_logger = logging.getLogger(__name__)

WEIGHTS_NAME = 'model.safetensors'
"""The only file of weights that is taken without being named."""

# What `timm.models.load_state_dict_from_path` takes first, beside `WEIGHTS_NAME`
_PICKLED = ('*.bin', '*.pth', '*.pth.tar')

# Places for weights in a pretrained config, in timm's order
_PLACES = ('state_dict', 'file', 'hf_hub_id', 'url')


def fetch(model_id: str, filename: str, cache_dir: str | Path | None = None, **options: Any) -> Path:
    """Download a file, or take it from the cache, and check it.

    huggingface-hub compares the length of a download only. Here the content must have the hash by which the
    Hub names it: SHA-256 for large files, git's blob hash for small ones. A file that does not is removed from the
    cache and downloaded once more.

    Args:
        model_id: `org/name` or `org/name@revision`.
        filename: Path in the repository.
        cache_dir: Cache, instead of huggingface-hub's own.
        **options: As for `hf_hub_download`: `token`, `force_download`, `local_files_only`.

    Returns:
        The file in the cache.

    Raises:
        UserError: If the second copy is damaged as well. Other errors are huggingface-hub's, see `hub_errors`.
    """
    from huggingface_hub import hf_hub_download

    repo_id, revision = split_revision(model_id)
    for attempt in range(2):
        file = Path(hf_hub_download(repo_id, filename, revision=revision, cache_dir=cache_dir, **options))
        expected = _expected_hash(file, repo_id, filename)
        if expected is None or _hash(file, expected) == expected:
            return file
        _remove(file)
        if not attempt:
            _logger.warning(f'{filename} of {model_id} is damaged in the cache; it is downloaded once more.')
    raise UserError(
        f'{filename} of {model_id} arrived damaged twice (it does not have the hash that the Hub gives for it) and '
        'nothing of it was kept: something on the way changes it, check the proxy, or try another network.'
    )


def _expected_hash(file: Path, repo_id: str, filename: str) -> str | None:
    if file.is_symlink():
        # the cache names a blob by its etag; the blob may be a link in turn, so only one step is followed
        name = Path(os.readlink(file)).name
    else:
        # a cache without links, as on Windows, does not keep the etag
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            return None
        try:
            commit = file.parts[-1 - len(filename.split('/'))]
            name = get_hf_file_metadata(hf_hub_url(repo_id, filename, revision=commit)).etag or ''
        except Exception as error:  # the download has succeeded, so a cached file is as good as it was
            _logger.info(f'{filename} of {repo_id} is not compared with its hash: {error}')
            return None
    return name if re.fullmatch(r'[0-9a-f]{40}|[0-9a-f]{64}', name) else None


def _hash(file: Path, expected: str) -> str:
    data = file.read_bytes()
    if len(expected) == 64:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b'blob %d\0' % len(data) + data, usedforsecurity=False).hexdigest()


def _remove(file: Path) -> None:
    blob = (file.parent / os.readlink(file)) if file.is_symlink() else None
    file.unlink(missing_ok=True)
    if blob is not None:
        blob.unlink(missing_ok=True)


def single_source(overlay: Mapping[str, Any] | None) -> dict[str, Any]:
    """An overlay whose place for weights is the only one.

    timm ranks the places of a config, so that a tag's own file would win over a Hub id laid over it.

    Args:
        overlay: `pretrained_cfg_overlay` of `timm.create_model`.

    Returns:
        The overlay, with the other places cleared where it gives one.
    """
    overlay = dict(overlay or {})
    given = next((key for key in _PLACES if overlay.get(key)), None)
    if given is not None:
        overlay.update(dict.fromkeys([k for k in (*_PLACES, 'source') if k != given and not overlay.get(k)]))
    return overlay


def prepare_source(cfg: Any, named: str | None = None, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """Check a pretrained config's place for weights before timm reads it: safetensors unless a file is named.

    Args:
        cfg: `timm.models.PretrainedCfg`.
        named: File of a Hub repository that the caller asks for. A name in the repository's own config asks for
            nothing: its owner may have written it.
        cache_dir: As for `fetch`.

    Returns:
        Entries to lay over the config.

    Raises:
        UserError: If a local folder has pickled weights only, or a download is damaged.
    """
    if cfg.source == 'local-dir':
        folder = Path(cfg.file)
        if not (folder / WEIGHTS_NAME).is_file():
            others = sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern))
            if others:
                raise UserError(
                    f'{folder} has no {WEIGHTS_NAME}, and {others[0]} is not taken unasked because unpickling can run '
                    f'code. If you trust it, name it: create_model(VARIANT, pretrained=True, '
                    f"pretrained_cfg_overlay={{'file': '{folder / others[0]}'}})."
                )
            raise UserError(f'{folder} has no {WEIGHTS_NAME}: give a folder as `widehrnet convert` writes it.')
        return {}
    if cfg.source != 'hf-hub' and cfg.file and not cfg.state_dict and not Path(cfg.file).is_file():
        raise UserError(f'There is no file {cfg.file}: give the path of the weights.')
    from_hub = cfg.source == 'hf-hub' or (cfg.hf_hub_id and not cfg.state_dict and not cfg.file)
    if not from_hub:
        return {}
    own = cfg.hf_hub_filename or ''
    filename = named or (own if own.endswith('.safetensors') else WEIGHTS_NAME)
    if filename.endswith('.safetensors'):
        fetch(cfg.hf_hub_id, filename, cache_dir)
    return {'hf_hub_filename': filename}
