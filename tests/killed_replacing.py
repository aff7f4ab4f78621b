"""Replace the files of a model, killed before and after each step: `python killed_replacing.py FOLDER WAY`.

In a program of its own, without PyTorch: its forks cost next to nothing.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

sys.modules['torch'] = None
from widehrnet_zoo import files  # noqa: E402

NAMES = ('README.md', 'config.json', 'model.safetensors')


def killed_at(moment, way, new, folder):
    """Replace files in a process of its own that is killed before or after one of the steps; whether it was."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def stepwise(function):
            def step(*args, **options):
                if next(steps) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*args, **options)
                if next(steps) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return step

        def busy(*args):
            raise OSError(16, 'Device or resource busy')

        try:
            if way != 'exchanged':
                files._exchange = lambda one, other: False
            if way == 'in place':
                os.rename = busy
            for name in ('rename', 'replace', 'unlink', 'link', 'rmdir'):
                setattr(os, name, stepwise(getattr(os, name)))
            files._exchange = stepwise(files._exchange)
            files.replace_files(new, folder, 'config.json')
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def main(root, way):
    for moment in itertools.count():
        folder, fresh = root / str(moment) / 'model', root / str(moment) / '.model.tmp'
        for place, age in ((folder, 'old'), (fresh, 'new')):
            place.mkdir(parents=True)
            for name in NAMES:
                (place / name).write_text(age)
        (folder / 'mine').mkdir()
        (folder / 'mine' / 'notes.txt').write_text('mine')
        if not killed_at(moment, way, fresh, folder):
            return


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2])
