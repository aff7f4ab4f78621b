"""Check built wheels and the sdist: what is in them, how large they are, and that the wheel for here works on its own.

    python scripts/ci/check_dist.py DIST_DIR

The wheel is unpacked into a folder outside the repository and run from there with the packages of this environment.
"""

import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

KERNELS = 'widehrnet_zoo/kernels/*widehrnet.*'
MAX_MIB = 60
MAX_ALL_WEIGHTS = 60_000_000
NEEDED = (
    'widehrnet_zoo/__init__.py',
    'widehrnet_zoo/py.typed',
    'widehrnet_zoo/samples/astronaut.jpg',
    'widehrnet_zoo/samples/portraits.jpg',
    'widehrnet_zoo/web/page/kernels.wasm',
    'widehrnet_zoo/web/page/threads.wasm',
    'widehrnet_zoo/weights/index.json',
)


def main(dist: Path) -> None:
    """Check the files in `dist`.

    Args:
        dist: Folder with wheels, one of them for this platform, and one sdist.
    """
    wheels = sorted(dist.glob('*.whl'))
    for file in wheels:
        with zipfile.ZipFile(file) as opened:
            if not any(Path(name).match(KERNELS) for name in opened.namelist()):
                sys.exit(f'{file.name} has no compiled kernels.')
    system = {'linux': 'linux', 'darwin': 'macosx', 'win32': 'win'}[sys.platform]
    machine = platform.machine().lower()
    (wheel,) = (file for file in wheels if system in file.name and file.stem.lower().endswith(machine))
    (sdist,) = dist.glob('*.tar.gz')
    for path in (wheel, sdist):
        size = path.stat().st_size / 2**20
        print(f'{path.name}: {size:.1f} MiB')
        if size > MAX_MIB:
            sys.exit(f'{path.name} is larger than {MAX_MIB} MiB.')
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        stray = [n for n in names if not n.startswith(('widehrnet_zoo/', 'widehrnet_zoo-'))]
        missing = [n for n in NEEDED if n not in names]
        if stray or missing:
            sys.exit(f'{wheel.name}: not expected {stray[:5]}; missing {missing}.')
        index = json.loads(opened.read('widehrnet_zoo/weights/index.json'))
        sizes = {Path(i.filename).name: i.file_size for i in opened.infolist() if i.filename.endswith('.safetensors')}
        if sizes.keys() != index.keys():
            sys.exit(f'{wheel.name}: the weights {sorted(sizes)} are not those that the index says are to ship.')
        if sum(sizes.values()) > MAX_ALL_WEIGHTS:
            sys.exit(f'{wheel.name}: the weights are too large: {sizes}.')
        with tempfile.TemporaryDirectory() as folder:
            opened.extractall(folder)
            out = Path(folder) / 'out'
            photo = Path(folder) / 'widehrnet_zoo' / 'samples' / 'astronaut.jpg'
            subprocess.run(
                [sys.executable, '-m', 'widehrnet_zoo', 'predict', str(photo), '--out', str(out)],
                cwd=folder,
                env={**os.environ, 'PYTHONPATH': folder, 'HF_HUB_OFFLINE': '1'},
                check=True,
            )
            if not (out / 'astronaut_pose.json').stat().st_size:
                sys.exit('the wheel wrote an empty result.')
    with tarfile.open(sdist) as packed:
        inside = {name.partition('/')[2] for name in packed.getnames()}
        missing = [n for n in (*NEEDED, 'pyproject.toml', 'LICENSE', 'README.md', 'hubconf.py') if n not in inside]
        if missing:
            sys.exit(f'{sdist.name} has no {missing}.')
    print('wheel and sdist are whole')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
