"""What went wrong on the way to or from a folder or the Hub, as one sentence that says what to do."""

import errno
import json
import pickle
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import UserError
from .hub_revision import split_revision

_HTTP_LIBRARIES = {'httpx', 'httpx2', 'httpcore', 'httpcore2', 'requests', 'urllib3'}


@contextmanager
def hub_errors(model_name: str) -> Iterator[None]:
    """Turn the errors of huggingface-hub, safetensors and timm's loaders into a `UserError`.

    Args:
        model_name: What was asked for: `hf-hub:org/name[@revision]`, `org/name`, `local-dir:FOLDER`, a variant.

    Raises:
        UserError: Instead of any error that has a cause outside the program. Others pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _explain(error, model_name)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: BaseException | None = error
    while pending is not None and id(pending) not in seen:
        seen.add(id(pending))
        yield pending
        pending = pending.__cause__ or pending.__context__


def _answer(error: BaseException) -> Any:
    return getattr(error, 'response', None)


def _explain(error: Exception, model_name: str) -> str | None:
    if model_name.startswith('local-dir:'):
        return _explain_file(error, model_name.removeprefix('local-dir:'))
    from huggingface_hub import constants
    from huggingface_hub import errors as hf

    repo = re.sub(r'^hf[-_]hub:', '', model_name)
    name, revision = split_revision(repo)
    page = f'{constants.ENDPOINT}/{name}'
    chain = list(_chain(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((e for e in chain if isinstance(e, kinds)), None)

    if isinstance(error, hf.HFValidationError):
        return f'{name!r} is not the name of a repository on the Hub: expected org/name or org/name@revision.'
    if first(hf.GatedRepoError):
        return f'{name} is gated: ask for access on {page}, then log in with `hf auth login` or set HF_TOKEN.'
    if first(hf.RepositoryNotFoundError):
        return (
            f'{name} is not on {constants.ENDPOINT}, or it is private and your token does not open it: check the '
            'name, and log in with `hf auth login` or set HF_TOKEN.'
        )
    if first(hf.RevisionNotFoundError):
        return f'{name} has no revision {revision!r}: the branches, tags and commits there are are on {page}/commits.'
    if first(hf.OfflineModeIsEnabled) or (constants.HF_HUB_OFFLINE and first(hf.LocalEntryNotFoundError)):
        return (
            f'{repo} is not in the cache and HF_HUB_OFFLINE is set: unset it for one download, or point cache_dir or '
            'HF_HUB_CACHE at a cache that has it.'
        )
    missing = first(hf.EntryNotFoundError)
    if missing is not None and not isinstance(missing, hf.LocalEntryNotFoundError):
        return _explain_missing(missing, name, page)
    # in older clients LocalEntryNotFoundError is an HTTP error too, without an answer, and version 0.36 raises one of
    # requests when it has tried several times
    http = next((e for e in chain if getattr(_answer(e), 'status_code', None) is not None), None)
    if http is not None:
        return _explain_status(http, name, page)
    if first(hf.FileMetadataError):
        return (
            f'{constants.ENDPOINT} does not answer like a Hugging Face Hub: check HF_ENDPOINT, the proxy and the '
            'firewall.'
        )
    full = first(OSError)
    if isinstance(full, OSError) and full.errno == errno.ENOSPC:
        return f'The disk of the cache ({constants.HF_HUB_CACHE}) is full: free space, or give another cache_dir.'
    if any('CAS Client Error' in str(e) or type(e).__module__.partition('.')[0] == 'hf_xet' for e in chain):
        return (
            f'The store that the weights of {name} lie in (Xet) cannot be reached or broke off: run the command again, '
            'or set HF_HUB_DISABLE_XET=1 to get them from the Hub itself.'
        )
    if any('Consistency check failed' in str(e) for e in chain):
        return f'The transfer of {name} broke off and was not taken: run the command again.'
    if any(type(e).__module__.partition('.')[0] in _HTTP_LIBRARIES for e in chain) or first(
        hf.LocalEntryNotFoundError, ConnectionError, TimeoutError
    ):
        cached = f', and {repo} is not in the cache' if first(hf.LocalEntryNotFoundError) else ''
        return (
            f'{constants.ENDPOINT} cannot be reached or broke off{cached}: check the connection, the proxy and '
            'HF_ENDPOINT, and run the command again.'
        )
    return _explain_file(error, repo)


def _explain_missing(error: BaseException, name: str, page: str) -> str:
    url = str(getattr(_answer(error), 'url', '') or error)
    match = re.search(r'/resolve/[^/]+/([^\s?]+)', url)
    file = match[1].rstrip('.') if match else 'such file'
    if file == 'model.safetensors':
        return (
            f'{name} has no model.safetensors, and other weights are not taken unasked because unpickling can run '
            "code. If you trust them, name the file: pretrained_cfg_overlay={'hf_hub_filename': 'pytorch_model.bin'}."
        )
    if file == 'config.json':
        return f'{name} has no config.json, so it is not a timm model: see what it is on {page}.'
    return f'{name} has no file {file}: the files it has are on {page}/tree/main.'


def _explain_status(error: BaseException, name: str, page: str) -> str:
    status = getattr(_answer(error), 'status_code', None)
    said = str(getattr(error, 'server_message', None) or '').strip().rstrip('.')
    if status == 401:
        return (
            f'The Hub does not accept your token for {name} (401): log in again with `hf auth login` or renew HF_TOKEN.'
        )
    if status == 403:
        return f'Your token may not do this with {name} (403{", " + said if said else ""}): it needs the right for it.'
    if status == 404:
        return f'The Hub does not find {name} (404): check the name on {page}.'
    if status == 429:
        return 'The Hub asks for a pause (429, too many requests): wait some minutes, or log in with `hf auth login`.'
    if isinstance(status, int) and status >= 500:
        return f'The Hub has an internal error ({status}) and {name} is not in the cache: try again in some minutes.'
    return f'The Hub refused the request for {name} ({status}{", " + said if said else ""}): see {page}.'


def _explain_file(error: Exception, place: str) -> str | None:
    from safetensors import SafetensorError

    if isinstance(error, SafetensorError):
        return f'The weights of {place} are not a whole safetensors file ({error}): get or save them again.'
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f'The config.json of {place} is not valid JSON ({error}): get or save it again.'
    if isinstance(error, FileNotFoundError):
        return f'{error}: give a folder with config.json and model.safetensors, as `widehrnet convert` writes it.'
    if isinstance(error, OSError):
        return f'{place} cannot be read or written: {error}.'
    if isinstance(error, KeyError) and error.args and error.args[0] in ('architecture', 'pretrained_cfg'):
        return f'The config.json of {place} has no {error.args[0]!r}, so it is not of a timm model.'
    text = ' '.join(str(error).split())
    if isinstance(error, RuntimeError) and text.startswith('Unknown model'):
        return f'{place} is of an architecture that timm does not know here ({text}): update timm or widehrnet_zoo.'
    if isinstance(error, TypeError) and 'unexpected keyword argument' in text:
        return f'{place}: its config.json or your call has an argument that the network does not take ({text}).'
    if isinstance(error, EOFError | pickle.UnpicklingError) or 'PytorchStreamReader' in text:
        reason = textwrap.shorten(text, 120, placeholder=' ...')
        return f'The weights of {place} are not a whole PyTorch file ({reason}): get or save them again.'
    if isinstance(error, RuntimeError) and ('weights_only' in text or 'inconsistent with input_size' in text):
        return f'{place}: {text}'
    if isinstance(error, ValueError) and ('model source' in text or 'source prefix' in text or 'no model id' in text):
        return text
    return None
