"""The kernels built for other machines: an emulator runs them."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from small_model import THREE_STAGES, trained_like

from widehrnet_zoo import deploy
from widehrnet_zoo.kernels.record import record

SOURCES = Path(__file__).parents[1] / 'widehrnet_zoo' / 'kernels' / 'inference'

ARM = 'aarch64-linux-gnu'
ELSEWHERE = {
    'aarch64': ('Linux', 'libwidehrnet.so', [f'{ARM}-g++'], ['qemu-aarch64', '-L', f'/usr/{ARM}']),
    # Clang, as for the wheels: GCC leaves what AVX needs unaligned on Windows
    'x86_64': (
        'Windows',
        'libwidehrnet.dll',
        [sys.executable, '-m', 'ziglang', 'c++', '-target', 'x86_64-windows-gnu'],
        ['wine'],
    ),
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('processor', ELSEWHERE)
def test_the_kernels_of_another_system_give_the_heatmaps_of_pytorch(processor, tmp_path):
    system, library, compiler, emulator = ELSEWHERE[processor]
    needed = ['cmake', compiler[0], emulator[0]]
    if 'ziglang' in compiler and importlib.util.find_spec('ziglang') is None:
        needed.append('ziglang')
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        pytest.skip(f'needs {" and ".join(missing)}')
    target = [f'-DCMAKE_SYSTEM_NAME={system}', f'-DCMAKE_SYSTEM_PROCESSOR={processor}']
    target.append(f'-DCMAKE_CXX_COMPILER={";".join(compiler)}')
    configure = ['cmake', '-S', str(SOURCES), '-B', str(tmp_path), *target]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(['cmake', '--build', str(tmp_path)], check=True, capture_output=True)
    check = tmp_path / 'check.exe'
    source = Path(__file__).with_name('kernels_check.cpp')
    libraries = ['-ldl'] if system == 'Linux' else []
    subprocess.run([*compiler, '-O1', f'-I{SOURCES}', str(source), '-o', str(check), *libraries], check=True)
    for kwargs in (
        {**THREE_STAGES, 'attn_layer': 'se'},
        {'channels': (10, 22, 36), 'num_modules': (1, 1), 'stem_width': 12, 'num_classes': 5},
    ):
        model = trained_like(timm.create_model('widehrnet_10', **kwargs))
        steps, numbers = record(deploy(model)).encode()
        images = torch.randn(3, 3, 64, 96)
        with torch.no_grad():
            expected = model(images)
        arrays = {'steps': steps, 'numbers': numbers, 'images': images.numpy(), 'heatmaps': expected.numpy()}
        files = []
        for name, array in arrays.items():
            files.append(tmp_path / f'{name}.bin')
            array.tofile(files[-1])
        command = [*emulator, check, f'./{library}', *(file.name for file in files), 3, 64, 96]
        environment = {**os.environ, 'WINEDEBUG': '-all', 'WINEPREFIX': str(tmp_path / 'wine')}
        # Wine leaves processes behind that would keep a pipe open
        with open(tmp_path / 'said.txt', 'wb') as said:
            subprocess.run(list(map(str, command)), check=True, stdout=said, cwd=tmp_path, env=environment)
        lines = [line.split() for line in (tmp_path / 'said.txt').read_text().splitlines()]
        names = list(dict.fromkeys(name for name, _, _ in lines))
        assert [(name, threads) for name, threads, _ in lines] == [(name, str(i)) for name in names for i in (1, 2, 3)]
        assert all(float(error) < 1e-5 for _, _, error in lines), lines
        assert names == ['neon'] if processor == 'aarch64' else {'generic'} < set(names)
