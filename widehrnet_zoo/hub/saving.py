"""Saving a model as a folder that timm loads, and publishing it on the Hugging Face Hub."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import nn

from ..errors import UserError
from ..files import replace_files
from ..models.opening import unwrap
from ..models.widehrnet import WideHRNet
from ..pose.crops import padding_of
from ..pose.score_map import score_map_of
from ..pose.skeletons import Skeleton, skeleton_of
from ..weights.download import WEIGHTS_NAME
from ..weights.errors import hub_errors
from ..weights.licenses import NOT_STATED, OWN
from .card import model_card

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_FILES = (WEIGHTS_NAME, 'config.json', 'README.md')


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    skeleton: Skeleton | None = None,
    size: tuple[int, int] | None = None,
    results: 'Sequence[EvalResult]' = (),
    license: str | None = None,
    overwrite: bool = False,
    repo_id: str | None = None,
) -> Path:
    """Save a model so that `create_model('local-dir:FOLDER', pretrained=True)` is the same network.

    Writes `model.safetensors` (the tensors bit for bit, in their own type), `config.json` (timm's, with
    `label_names`, the skeleton and, if the model has its own, the `padding`) and `README.md` (a model card), all of
    them or none.

    Args:
        model: A `WideHRNet` made by `create_model` or timm; wrappers of `torch.compile` and DDP are looked through.
        folder: Where to; made if it is not there.
        skeleton: Names and structure of the keypoints; by default the model's.
        size: Input height and width in pixels; by default the model's.
        results: Metrics for the model card, with `task_type='keypoint-detection'`.
        license: Of the weights, a Hub licence id such as `'mit'`. By default none is stated, unless the folder or the
            repository that the model was loaded from states another than Apache 2.0, that of the weights that ship.
        overwrite: Replace these three files where the folder has them.
        repo_id: `org/name` for the model card's example.

    Returns:
        The folder.

    Raises:
        UserError: If the model cannot be rebuilt from its config, the skeleton does not fit, or a file is there.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f'{folder} is a file: give a folder.')
    taken = [name for name in _FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise UserError(f'{folder} has {", ".join(taken)} already: give another folder, or ask to overwrite.')
    parent = folder.resolve().parent
    with hub_errors(f'local-dir:{folder}'):
        parent.mkdir(parents=True, exist_ok=True)
        staging = parent / f'.{folder.resolve().name}.{uuid.uuid4().hex[:8]}.tmp'
        staging.mkdir()
        try:
            _write(model, staging, skeleton, size, results, license, repo_id or f'local-dir:{folder}')
            if folder.exists():
                replace_files(staging, folder, 'config.json')
            else:
                os.rename(staging, folder.resolve())
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder


def _write(
    model: nn.Module,
    folder: Path,
    skeleton: Skeleton | None,
    size: tuple[int, int] | None,
    results: 'Sequence[EvalResult]',
    license: str | None,
    name: str,
) -> None:
    from safetensors.torch import save_file
    from timm.models._hub import save_config_for_hf

    model = unwrap(model)
    if not isinstance(model, WideHRNet) or not getattr(model, 'pretrained_cfg', None):
        raise UserError(
            f'A {type(model).__name__} cannot be saved: expected a WideHRNet made by create_model, '
            'not fused and not features_only.'
        )
    pose = model.num_classes > 0 and not model.global_pool.pool_type
    extra: dict[str, Any] = {'pretrained_cfg': {}}
    if pose:
        skeleton = skeleton or skeleton_of(model)
        if skeleton.num_keypoints != model.num_classes:
            raise UserError(
                f'The model has {model.num_classes} heatmaps, the skeleton {skeleton.name!r} has '
                f'{skeleton.num_keypoints} keypoints: give the skeleton that it was trained with.'
            )
        extra.update(label_names=list(skeleton.keypoints), skeleton=skeleton.to_dict())
        extra['pretrained_cfg']['label_names'] = list(skeleton.keypoints)
        if getattr(model, 'padding', None) is not None:
            extra['padding'] = padding_of(model)
        if (score_map := score_map_of(model)) is not None:
            extra['score_map'] = score_map.to_config()
    elif skeleton is not None:
        raise UserError('The model has no heatmaps (num_classes=0 or a pooled head), so it has no skeleton.')
    cfg: Any = model.pretrained_cfg
    stated = cfg.get('license')
    # the registry's is of the weights that ship: of others, only who made them knows
    license = license or (NOT_STATED if stated in (None, OWN) else stated)
    extra['pretrained_cfg']['license'] = license
    data = None if size is None else {'input_size': (model.in_chans, *size)}
    try:
        save_config_for_hf(model, str(folder / 'config.json'), model_config=extra, data_config=data)
    except ValueError as error:
        raise UserError(f'The model cannot be described in config.json: {error}') from error
    _leave_classes_to_the_root(folder / 'config.json')
    # safetensors takes no channels_last tensors
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_NAME, metadata={'format': 'pt'})
    # it makes files for their owner only, unlike everything else that is written here
    (folder / WEIGHTS_NAME).chmod((folder / 'config.json').stat().st_mode)
    _check_rebuild(folder, tensors)
    card = model_card(model, folder / 'config.json', skeleton if pose else None, name, license, results)
    card.save(folder / 'README.md')


def _leave_classes_to_the_root(file: Path) -> None:
    # transformers' AutoModel gives its own num_classes beside `model_args`; timm reads that of the root
    config = json.loads(file.read_text(encoding='utf-8'))
    config['model_args'].pop('num_classes', None)
    file.write_text(json.dumps(config, indent=2), encoding='utf-8')


def _check_rebuild(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    rebuilt = timm.create_model(f'local-dir:{folder}', device='meta').state_dict()
    if {k: v.shape for k, v in rebuilt.items()} != {k: v.shape for k, v in tensors.items()}:
        raise UserError(
            'The model was changed after it was made, so that its config does not describe it: save it before it is '
            'fused, pruned or quantised.'
        )


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    skeleton: Skeleton | None = None,
    size: tuple[int, int] | None = None,
    results: 'Sequence[EvalResult]' = (),
    license: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = 'Add model',
    create_pr: bool = False,
) -> str:
    """Publish a model, so that `create_model('hf-hub:org/name', pretrained=True)` is the same network.

    The files are those of `save_pretrained`. A model card that the repository has already is left as it is, with
    what its owner wrote into it.

    Args:
        model: As for `save_pretrained`.
        repo_id: `org/name`, or `name` for your own account; made if it is not there.
        skeleton: As for `save_pretrained`.
        size: As for `save_pretrained`.
        results: As for `save_pretrained`.
        license: As for `save_pretrained`.
        revision: Branch, made if it is not there; by default `main`.
        private: Whether a new repository is private; `None` for the account's default.
        token: Access token; by default that of `hf auth login` or HF_TOKEN.
        commit_message: First line of the commit.
        create_pr: Open a pull request instead of committing.

    Returns:
        The commit's id, to pin with `hf-hub:org/name@COMMIT`.

    Raises:
        UserError: If the model cannot be saved, or the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(f'HF_HUB_OFFLINE is set, so nothing can be published: unset it to push to {repo_id}.')
    api = HfApi(token=token, library_name='widehrnet_zoo')
    with tempfile.TemporaryDirectory() as temporary, hub_errors(repo_id):
        # saved first: a model that cannot be saved leaves no empty repository behind
        folder = save_pretrained(model, Path(temporary) / 'model', skeleton, size, results, license, repo_id=repo_id)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        if api.file_exists(repo_id, 'README.md', revision=revision):
            (folder / 'README.md').unlink()
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return commit.oid
