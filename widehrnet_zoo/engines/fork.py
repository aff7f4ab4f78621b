"""Whether PyTorch can be used in this process."""

import os
import sys

from ..errors import UserError

_process: int | None = None
"""The process in which PyTorch's threads were first used."""


def check_fork() -> None:
    """Called before PyTorch works, on a CPU or a GPU.

    Raises:
        UserError: If this process was forked after PyTorch had been used, so that it would wait without end.
    """
    global _process
    torch = sys.modules.get('torch')
    if torch is None:
        return
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid() and torch.get_num_threads() > 1:
        # the threads of the parent are not here, and OpenMP waits for them
        raise UserError(
            'PyTorch waits without end in a process that was forked after it had been used: start workers by '
            "multiprocessing's 'spawn', or call torch.set_num_threads(1) in them first."
        )
