"""Imports inside the package run one way: a folder imports from those above it in this list only."""

import ast
import subprocess
import sys
from pathlib import Path

import widehrnet_zoo

ROOT = Path(widehrnet_zoo.__file__).parent
ORDER = (
    'errors',
    'extras',
    'files',
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
    'training',
    'evaluation',
    'bench',
    'demo',
    'cli',
)
DATA = {'configs', 'samples'}


def modules() -> dict[str, Path]:
    """Each module by its dotted name, the package itself as ''."""
    files = [file for file in ROOT.rglob('*.py') if not set(file.relative_to(ROOT).parts) & (DATA | {'space'})]
    return {'.'.join(f.relative_to(ROOT).with_suffix('').parts).removesuffix('__init__').rstrip('.'): f for f in files}


def imports() -> dict[str, set[str]]:
    """What each module imports of the package, anywhere in its text: in functions and under TYPE_CHECKING too."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        package = name.split('.') if file.name == '__init__.py' else name.split('.')[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                targets = [
                    alias.name.partition('.')[2] for alias in node.names if alias.name.startswith('widehrnet_zoo')
                ]
            elif isinstance(node, ast.ImportFrom):
                home = list(filter(None, package[: len(package) - node.level + 1])) if node.level else []
                parts = (node.module or '').split('.')
                if not node.level and parts.pop(0) != 'widehrnet_zoo':
                    continue
                home = '.'.join(filter(None, [*home, *parts]))
                inner = [f'{home}.{alias.name}'.lstrip('.') for alias in node.names]
                targets = [i if i in known else home for i in inner]
            else:
                continue
            found[name] |= set(targets) - {name}
    return found


def test_every_folder_has_its_place():
    here = {name.partition('.')[0] for name in modules()} - {'', '__main__'}
    assert here == set(ORDER)


def test_imports_run_one_way():
    place = {name: i for i, name in enumerate(ORDER)}
    arrows = []
    for name, targets in imports().items():
        if name in ('', '__main__'):
            continue
        for target in targets:
            own, other = name.partition('.')[0], target.partition('.')[0]
            if own != other and place.get(other, len(ORDER)) > place[own]:
                arrows.append(f'{name} imports {target or "widehrnet_zoo"}')
    assert not arrows


def test_no_circle():
    graph = imports()
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
for name in ('torch', 'timm', 'torchvision'):
    sys.modules[name] = None
import widehrnet_zoo
from widehrnet_zoo import PoseResult, SKELETONS, draw_poses, read_image
from widehrnet_zoo import formats
from widehrnet_zoo.engines import exported
from widehrnet_zoo.inference import stream
from widehrnet_zoo.pose import crops, drawing, images, results, skeletons
assert read_image(images.np.zeros((4, 4, 3), 'uint8')).shape == (4, 4, 3)
"""


def test_what_needs_no_network_needs_no_torch():
    done = subprocess.run([sys.executable, '-c', WITHOUT_TORCH], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
