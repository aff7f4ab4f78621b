"""Memory of `widehrnet predict` while it goes through many photos.

    python scripts/ci/memory.py --photos 10000
    python scripts/ci/memory.py --photos 1000 --side 640 --pictures

Random photos and a small untrained network are made in a temporary folder; resident memory is read from /proc while
the command runs. The exit code is 1 if it grows by more than 1 MiB per 1,000 photos after the first fifth.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def prepare(folder: Path, count: int, side: int) -> None:
    """Eight random photos under `count` names, and a model."""
    sys.path.insert(0, str(ROOT))
    from widehrnet_zoo import create_model
    from widehrnet_zoo.hub import save_pretrained

    model = create_model('widehrnet_10', channels=(8, 16), num_modules=(1,), stem_width=8)
    save_pretrained(model, folder / 'model', size=(64, 64))
    (folder / 'in').mkdir()
    random = np.random.default_rng(0)
    for i in range(8):
        pixels = random.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    for i in range(count):
        os.link(folder / f'{i % 8}.png', folder / 'in' / f'{i:06d}.png')


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=int, default=1000, help='default: 1000')
    parser.add_argument('--side', type=int, default=64, help='of the photos in pixels (default: 64)')
    parser.add_argument('--pictures', action='store_true', help='write the pictures too')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.photos, args.side)
        command = [sys.executable, '-m', 'widehrnet_zoo', 'predict', str(folder / 'in'), '--out', str(folder / 'out')]
        command += ['--model', str(folder / 'model'), '--quiet'] + ['--no-picture'] * (not args.pictures)
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        samples = []
        start = time.monotonic()
        with subprocess.Popen(command, env=environment) as child:
            while child.poll() is None:
                time.sleep(0.5)
                try:
                    pages = int(Path(f'/proc/{child.pid}/statm').read_text().split()[1])
                    done = sum(1 for entry in os.scandir(folder / 'out') if entry.name.endswith('.json'))
                except (OSError, IndexError):
                    continue
                if pages:  # none is left of a process that has ended
                    samples.append((done, pages * os.sysconf('SC_PAGE_SIZE') / 2**20))
            if child.returncode:
                return child.returncode
        seconds = time.monotonic() - start
    settled = np.array([s for s in samples if s[0] > args.photos / 5])
    slope = float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0]) * 1000 if len(settled) > 3 else float('nan')
    sys.stdout.write(
        f'{args.photos} photos in {seconds:.0f} s; resident {settled[0, 1]:.1f} MiB after {settled[0, 0]:.0f}, '
        f'{settled[-1, 1]:.1f} MiB at the end, highest {max(s[1] for s in samples):.1f} MiB; '
        f'{slope:+.3f} MiB per 1,000 photos\n'
    )
    return int(not slope < 1)


if __name__ == '__main__':
    sys.exit(main())
