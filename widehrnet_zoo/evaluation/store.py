"""Predictions on disk while an evaluation runs, so that it can go on after an interruption."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import read_json, write_whole


class PredictionStore:
    """Parts of a run's predictions, each written whole or not at all.

    Args:
        folder: Where the parts lie; made if absent.
        run: What the predictions depend on (weights, labels, switches), JSON values only.
        total: Number of samples of the run.
        restart: Throw away what is there.

    Raises:
        UserError: If the folder holds parts of another run.
    """

    def __init__(self, folder: str | Path, run: dict[str, Any], total: int, restart: bool = False):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        run = json.loads(json.dumps({**run, 'samples': total}))
        stamp = self._folder / 'run.json'
        if restart:
            for part in self._folder.glob('part-*.npz'):
                part.unlink()
        elif stamp.exists():
            before = read_json(stamp)
            if not isinstance(before, dict):
                raise UserError(f'{stamp} is damaged: --restart throws the predictions beside it away.')
            changed = [key for key in sorted(run.keys() | before.keys()) if run.get(key) != before.get(key)]
            if changed:
                raise UserError(
                    f'{self._folder.parent} holds predictions of another run ({", ".join(changed)} changed): '
                    'give another --out, or --restart to throw them away.'
                )
        write_whole(stamp, json.dumps(run, indent=1))
        self.total = total

    def load(self, num_keypoints: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """What is there.

        Returns:
            float32 (total, K, 3), NaN where nothing is stored, and (total,) whether it is.
        """
        keypoints = np.full((self.total, num_keypoints, 3), np.nan, np.float32)
        done = np.zeros(self.total, bool)
        for path in sorted(self._folder.glob('part-*.npz')):
            try:
                with np.load(path) as part:
                    rows, values = part['rows'], part['keypoints'].astype(np.float32)
                if rows.dtype.kind not in 'iu' or rows.min() < 0 or values.shape != (len(rows), num_keypoints, 3):
                    raise ValueError('not what was stored')
                if not np.isfinite(values).all():
                    raise ValueError('not finite')
                keypoints[rows], done[rows] = values, True
            except Exception:  # a torn archive fails in many ways; what it held is predicted again
                path.unlink()
        return keypoints, done

    def add(self, rows: npt.NDArray[np.intp], keypoints: npt.NDArray[np.float32]) -> None:
        """Store a part.

        Args:
            rows: (n,) sample indices.
            keypoints: (n, K, 3).
        """
        if not len(rows):
            return
        name = f'part-{rows[0]:07d}-{len(rows)}.npz'
        temporary = self._folder / f'{name}.{os.getpid()}.tmp'
        with open(temporary, 'wb') as file:
            np.savez(file, rows=rows, keypoints=keypoints)
        os.replace(temporary, self._folder / name)
