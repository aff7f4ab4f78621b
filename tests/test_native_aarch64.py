import shutil
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from small_model import THREE_STAGES, trained_like

from widehrnet_zoo import deploy
from widehrnet_zoo.kernels.record import record

SOURCES = Path(__file__).parents[1] / 'widehrnet_zoo' / 'kernels' / 'inference'
COMPILER, EMULATOR = 'aarch64-linux-gnu-g++', 'qemu-aarch64'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in (COMPILER, EMULATOR, 'cmake')),
        reason=f'needs cmake, {COMPILER} and {EMULATOR}',
    ),
]


def test_the_kernels_of_an_arm_processor_give_the_heatmaps_of_pytorch(tmp_path):
    target = ['-DCMAKE_SYSTEM_NAME=Linux', '-DCMAKE_SYSTEM_PROCESSOR=aarch64', f'-DCMAKE_CXX_COMPILER={COMPILER}']
    configure = ['cmake', '-S', str(SOURCES), '-B', str(tmp_path), *target]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(['cmake', '--build', str(tmp_path)], check=True, capture_output=True)
    check = tmp_path / 'check'
    source = Path(__file__).with_name('kernels_check.cpp')
    subprocess.run([COMPILER, '-O1', f'-I{SOURCES}', str(source), '-o', str(check), '-ldl'], check=True)
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
        command = [EMULATOR, '-L', '/usr/aarch64-linux-gnu', check, tmp_path / 'libwidehrnet.so', *files, 3, 64, 96]
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
        lines = [line.split() for line in done.stdout.splitlines()]
        assert [(name, threads) for name, threads, _ in lines] == [('neon', str(i)) for i in (1, 2, 3)]
        assert all(float(error) < 1e-5 for _, _, error in lines), done.stdout
