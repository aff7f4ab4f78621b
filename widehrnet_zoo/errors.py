"""Errors that are for the person who called."""


class UserError(ValueError):
    """Something that the caller can mend; the message says what was wrong, what was expected and what to do."""
