"""Whether this process is the command `widehrnet`; imported before all else."""

import os
import signal
import sys


def _is_command() -> bool:
    called = os.path.basename((sys.argv or [''])[0]) in ('widehrnet', 'widehrnet.exe')
    options = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return called or any(a == '-m' and b.partition('.')[0] == __package__ for a, b in options)


IS_COMMAND = _is_command()
"""Whether it runs as a script or as `python -m widehrnet_zoo`."""

if IS_COMMAND:
    # until `main`, which catches an interruption, it ends the process without a traceback; contextlib comes later
    try:  # noqa: SIM105
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not in the main thread
        pass
