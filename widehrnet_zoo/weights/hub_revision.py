"""The revision of a repository on the Hub that is read: a branch, tag or commit after `@`, by default `main`."""

from ..errors import UserError


def split_revision(repo: str) -> tuple[str, str | None]:
    """The parts of a repository's name.

    Args:
        repo: `org/name` or `org/name@revision`.

    Returns:
        `org/name`, and the revision or `None`, which huggingface-hub takes for `main`.
    """
    name, at, revision = repo.partition('@')
    return name, revision if at else None


def with_revision(name: str, revision: str) -> str:
    """A model's name with the revision that is given beside it.

    Args:
        name: `hf-hub:org/name`.
        revision: Branch, tag or commit.

    Raises:
        UserError: If it is not a model of the Hub, or names a revision of its own.
    """
    if not name.startswith(('hf-hub:', 'hf_hub:')) or '@' in name:
        raise UserError(f'revision={revision!r} is for a model of the Hub that names none, not for {name}.')
    return f'{name}@{revision}'
