"""The log of a run: a CSV that fits the checkpoint it goes on from, and TensorBoard's events if asked for."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_whole
from .state import disk_errors

COLUMNS = ('step', 'epoch', 'samples', 'minutes', 'lr', 'loss', 'teacher_loss', 'grad_norm')

_COUNTED = ('step', 'epoch', 'samples', 'minutes')


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of a log, without the columns that are empty; a row that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(path.read_text())):
        if None in row or None in row.values():
            continue
        try:
            rows.append({k: float(v) for k, v in row.items() if v != ''})
        except ValueError:
            continue
    return rows


def join_logs(folders: Iterable[Path], path: Path) -> None:
    """One log of runs that followed each other: steps, epochs, samples and minutes go on counting."""
    rows: list[dict[str, float]] = []
    for folder in folders:
        before = {key: rows[-1][key] if rows else 0.0 for key in _COUNTED}
        for row in read_log(folder / 'log.csv'):
            rows.append({**row, **{key: row[key] + before[key] for key in _COUNTED}})
    others = {key for row in rows for key in row if key not in COLUMNS}
    write_whole(path, _text((*COLUMNS, *sorted(others)), rows))


def _format(row: dict[str, float]) -> dict[str, str]:
    return {k: repr(int(v)) if k in ('step', 'samples') else f'{v:.9g}' for k, v in row.items()}


def _text(columns: tuple[str, ...], rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows([_format(row) for row in rows])
    return text.getvalue()


class RunLog:
    """Writes rows to `log.csv`.

    Args:
        folder: Of the run.
        figure: The task's figure, which has the last two columns, `train_...` and `val_...`.
        step: Step the run goes on from; later rows of an earlier try are removed.
        tensorboard: Write events to `tensorboard/` as well.

    Raises:
        UserError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, figure: str = 'pck', step: int = 0, tensorboard: bool = False):
        self.path = folder / 'log.csv'
        self.columns = (*COLUMNS, f'train_{figure}', f'val_{figure}')
        rows = [row for row in read_log(self.path) if row['step'] <= step] if step else []
        with disk_errors(self.path):
            write_whole(self.path, _text(self.columns, rows))
        self.events: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UserError(
                    'tensorboard=true needs `pip install tensorboard`; log.csv is written anyway.'
                ) from error
            self.events = SummaryWriter(str(folder / 'tensorboard'), purge_step=step)

    def write(self, row: dict[str, float]) -> None:
        """Append a row; it is on disk when this returns.

        Raises:
            UserError: If the disk is full.
        """
        with disk_errors(self.path), open(self.path, 'a', newline='') as file:
            csv.DictWriter(file, self.columns, lineterminator='\n').writerow(_format(row))
        if self.events is not None:
            for name, value in row.items():
                if name not in ('step', 'samples', 'epoch', 'minutes'):
                    self.events.add_scalar(name, value, int(row['step']))

    def close(self) -> None:
        """Flush the events."""
        if self.events is not None:
            self.events.close()
