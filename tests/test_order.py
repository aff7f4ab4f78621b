"""Imports inside the package run one way: a folder imports from those above it in this list only."""

import subprocess
import sys
from pathlib import Path

import pytest
from load_script import script

import widehrnet_zoo

ROOT = Path(widehrnet_zoo.__file__).parent
ORDER = (
    'start',
    'errors',
    'extras',
    'files',
    'progress',
    'version',
    'pose',
    'formats',
    'metrics',
    'weights',
    'models',
    'hub',
    'deployment',
    'kernels',
    'engines',
    'export',
    'detection',
    'inference',
    'video',
    'collection',
    'training',
    'evaluation',
    'bench',
    'demo',
    'web',
    'cli',
)
GRAPH = script('import_graph')


def test_every_folder_has_its_place():
    here = {name.partition('.')[0] for name in GRAPH.modules()} - {'', '__main__'}
    assert here == set(ORDER)


def test_imports_run_one_way():
    place = {name: i for i, name in enumerate(ORDER)}
    arrows = []
    for name, targets in GRAPH.imports().items():
        if name in ('', '__main__'):
            continue
        for target in targets:
            own, other = name.partition('.')[0], target.partition('.')[0]
            if own != other and place.get(other, len(ORDER)) > place[own]:
                arrows.append(f'{name} imports {target or "widehrnet_zoo"}')
    assert not arrows


def test_no_circle():
    graph = GRAPH.imports()
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f'a circle: {" -> ".join([*path, name])}'
        if name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


WITHOUT_TORCH = """
import sys
for name in ('torch', 'timm', 'torchvision', 'tqdm', 'safetensors', 'huggingface_hub'):
    sys.modules[name] = None
import widehrnet_zoo
from widehrnet_zoo import PoseResult, SKELETONS, draw_poses, read_image
from widehrnet_zoo import formats
from widehrnet_zoo.engines import exported
from widehrnet_zoo.inference import estimator, stream
from widehrnet_zoo import detection, video
from widehrnet_zoo.pose import crops, drawing, images, results, skeletons
assert read_image(images.np.zeros((4, 4, 3), 'uint8')).shape == (4, 4, 3)
"""


def test_what_needs_no_network_needs_no_torch():
    done = subprocess.run([sys.executable, '-c', WITHOUT_TORCH], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_picture_in_the_docs_is_that_of_the_imports():
    assert GRAPH.page() == GRAPH.PAGE.read_text(encoding='utf-8'), 'run scripts/docs/import_graph.py'
