"""The methods by which Hugging Face users load, save and publish a model."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..weights.hub_revision import split_revision, with_revision

if TYPE_CHECKING:
    from typing_extensions import Self


class HubMethods:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`, called as those of huggingface-hub's mixin.

    The mixin itself keeps the arguments of `__init__` in a `config.json` of its own, which timm does not read, so the
    names are the same and the files are timm's.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> 'Self':
        """Load a model with its weights and its skeleton, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder, `org/name` on the Hub, or any name that `create_model` takes.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Cache, instead of huggingface-hub's own.
            token: Access token; by default that of `hf auth login` or HF_TOKEN.
            force_download: Download again what is in the cache.
            local_files_only: Take the cache only.
            **kwargs: As for `create_model`: `num_classes`, `in_chans`, ...

        Returns:
            The model.

        Raises:
            UserError: If there is no such model, its weights cannot be had or do not fit, or it is of another class.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            name = f'local-dir:{name}'
        elif ':' not in name and '/' in name:
            name = f'hf-hub:{name}'
        if revision is not None:
            name = with_revision(name, revision)
        if name.startswith(('hf-hub:', 'hf_hub:')) and (token or force_download or local_files_only):
            options = {'token': token, 'force_download': force_download, 'local_files_only': local_files_only}
            name = f'local-dir:{_download(name, cache_dir, options)}'
        if cache_dir is not None:
            kwargs['cache_dir'] = cache_dir
        model = _package().create_model(name, pretrained=True, **kwargs)
        if not isinstance(model, cls):
            raise UserError(f'{name} is a {type(model).__name__}, not a {cls.__name__}.')
        return model.eval()  # type: ignore[attr-defined]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> Path:
        """Save the model as a folder that `from_pretrained`, timm and transformers' `AutoModel` load.

        Args:
            save_directory: The folder; made if it is not there.
            push_to_hub: Publish the model as well.
            repo_id: Where to, `org/name`; by default the folder's name in your own account.
            **kwargs: As for `widehrnet_zoo.save_pretrained`: `skeleton`, `size`, `license`, `overwrite`, ...

        Returns:
            The folder.

        Raises:
            UserError: As `widehrnet_zoo.save_pretrained` and `push_to_hub`.
        """
        package = _package()
        folder: Path = package.save_pretrained(self, save_directory, repo_id=repo_id, **kwargs)
        if push_to_hub:
            kwargs.pop('overwrite', None)
            package.push_to_hub(self, repo_id or folder.resolve().name, **kwargs)
        return folder

    def push_to_hub(self, repo_id: str, *, branch: str | None = None, **kwargs: Any) -> str:
        """Publish the model on the Hub.

        Args:
            repo_id: `org/name`, or `name` for your own account; made if it is not there.
            branch: The name that huggingface-hub's mixin has for `revision`.
            **kwargs: As for `widehrnet_zoo.push_to_hub`: `skeleton`, `license`, `private`, `commit_message`, ...

        Returns:
            The commit's id.

        Raises:
            UserError: As `widehrnet_zoo.push_to_hub`.
        """
        if branch is not None:
            kwargs.setdefault('revision', branch)
        commit: str = _package().push_to_hub(self, repo_id, **kwargs)
        return commit


def _download(name: str, cache_dir: str | Path | None, options: dict[str, Any]) -> Path:
    """The folder in the cache with the config and the weights of one commit."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    from ..weights.download import WEIGHTS_NAME, fetch
    from ..weights.errors import hub_errors

    with hub_errors(name):
        repo = name.partition(':')[2]
        try:
            config = fetch(repo, 'config.json', cache_dir, **options)
            # of the same commit, whatever is pushed meanwhile
            fetch(f'{split_revision(repo)[0]}@{config.parent.name}', WEIGHTS_NAME, cache_dir, **options)
        except LocalEntryNotFoundError as error:
            if not options['local_files_only']:
                raise
            raise UserError(f'{repo} is not in the cache, and local_files_only=True takes nothing else.') from error
    return config.parent


def _package() -> Any:
    # what these methods call imports the networks; the package finds it when it is called
    return import_module(__name__.partition('.')[0])
