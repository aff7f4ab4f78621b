"""Every example of the documentation and of the README, as a test.

A comment `<!-- needs: REASON -->` before a block keeps it from being run, not from being parsed.
"""

import contextlib
import io
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from load_script import script

from widehrnet_zoo.cli.main import build_parser, main
from widehrnet_zoo.weights.shipped import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = Path('widehrnet_zoo') / 'samples'
BLOCK = re.compile(r'(?:^ *<!-- needs: ([^\n]+?) -->\n+)?^( *)```(\w*)[^\n]*\n(.*?)^\2```$', re.M | re.S)
PRETRAINED = re.compile(r'pretrained=True|PoseEstimator\(|\bwidehrnet predict')
# pages whose Python examples need a server, a checkpoint or made-up data, and the test that runs them
ELSEWHERE = {
    'backbone.md': 'test_training_docs.py',
    'convert.md': 'test_convert.py',
    'fine-tune.md': 'test_training_docs.py',
    'publish.md': 'test_hub.py',
    'without-pytorch.md': 'test_without_torch.py',
}
SHELL = ('', 'sh', 'bash', 'console')
RUN = ('list', 'info', 'predict')


@dataclass
class Block:
    page: Path
    line: int
    language: str
    code: str
    needs: str | None

    def __str__(self):
        return f'{self.page.relative_to(ROOT)}:{self.line}'

    def skip_if_missing(self):
        if self.needs:
            pytest.skip(f'needs {self.needs}')
        if PRETRAINED.search(self.code) and not (WEIGHTS / 'index.json').exists():
            pytest.skip('needs the weights that ship, and widehrnet_zoo/weights/index.json is not there')


def blocks(page):
    text = page.read_text(encoding='utf-8')
    for match in BLOCK.finditer(text):
        needs, indent, language, code = match.groups()
        code = ''.join(line[len(indent) :] if line.strip() else line for line in code.splitlines(keepends=True))
        yield Block(page, text.count('\n', 0, match.start(4)) + 1, language, code, needs)


def commands(code):
    """Arguments of each `widehrnet` command of a shell block; `...` stands for arguments named before."""
    for line in code.replace('\\\n', ' ').splitlines():
        for part in line.removeprefix('$ ').split('&&'):
            words = shlex.split(part, comments=True)
            # as the value of an option it stays
            words = [w for w, before in zip(words, ['', *words], strict=False) if w != '...' or before.startswith('--')]
            if words and words[0] == 'widehrnet':
                yield words[1:]


def is_run_elsewhere(page):
    other = ROOT / 'tests' / ELSEWHERE.get(page.name, 'none')
    return other.exists() and page.name in other.read_text(encoding='utf-8')


PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language in ('python', 'py') and not is_run_elsewhere(block.page)]
COMMANDS = [(block, c) for block in BLOCKS if block.language in SHELL for c in commands(block.code)]


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    """A folder, a namespace and the blocks that did not run, by page."""
    found = {}

    def place(page):
        if page not in found:
            folder = tmp_path_factory.mktemp(page.stem)
            shutil.copytree(ROOT / SAMPLES, folder / SAMPLES)
            shutil.copy(ROOT / SAMPLES / 'astronaut.jpg', folder / 'photo.jpg')
            found[page] = folder, {'__name__': '__main__'}, {}
        return found[page]

    return place


def run_python(block, namespace):
    block.skip_if_missing()
    code = compile('\n' * (block.line - 1) + block.code, str(block.page), 'exec')
    try:
        exec(code, namespace)
    except ImportError as error:
        if 'pip install "widehrnet_zoo[' in str(error):
            pytest.skip(str(error))
        if isinstance(error, ModuleNotFoundError) and not error.name.startswith('widehrnet_zoo'):
            pytest.skip(f'needs {error.name}')
        raise


@pytest.mark.slow
@pytest.mark.parametrize('block', PYTHON, ids=str)
def test_python_example_runs(block, places, monkeypatch):
    folder, namespace, left_out = places(block.page)
    monkeypatch.chdir(folder)
    monkeypatch.setattr('sys.argv', ['example'])
    ran = namespace.setdefault('__blocks__', set())
    # the examples of a page build on each other, so a single one runs those before it
    for other in PYTHON:
        if other.page != block.page or other.line > block.line or other.line in ran:
            continue
        ran.add(other.line)
        try:
            run_python(other, namespace)
        except pytest.skip.Exception as skipped:
            left_out[other.line] = str(skipped)
        except NameError as error:
            if not left_out:
                raise
            left_out[other.line] = f'{error}, as an example before it was left out'
    if block.line in left_out:
        pytest.skip(left_out[block.line])


@pytest.mark.parametrize(('block', 'arguments'), COMMANDS, ids=[f'{b} {c[0] if c else ""}' for b, c in COMMANDS])
def test_command_of_the_docs_parses(block, arguments):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser().parse_args(arguments)
        except SystemExit as ended:
            assert ended.code == 0, f'{block}: {errors.getvalue()}'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('block', 'arguments'), [(b, c) for b, c in COMMANDS if c and c[0] in RUN], ids=lambda value: str(value)
)
def test_command_of_the_docs_runs(block, arguments, places, monkeypatch):
    block.skip_if_missing()
    monkeypatch.chdir(places(block.page)[0])
    assert main(arguments) == 0
    for file in re.findall(r'`(out/[\w.]+)`', block.page.read_text(encoding='utf-8')):
        assert Path(file).exists(), f'{block.page.name} names {file}, and there is no such file'


def test_there_are_examples_in_the_docs():
    assert len(PYTHON) > 10 and len(COMMANDS) > 10
    assert {block.page.name for block in PYTHON} >= {'README.md', 'index.md', 'add-a-model.md'}


@pytest.mark.slow
def test_model_table_is_that_of_the_registry():
    page = (ROOT / 'docs' / 'models.md').read_text(encoding='utf-8')
    assert page == script('model_table').page(), 'run scripts/docs/model_table.py'


def test_every_page_is_in_the_menu():
    menu = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
    pages = [p.relative_to(ROOT / 'docs').as_posix() for p in (ROOT / 'docs').rglob('*.md')]
    assert [p for p in pages if p not in menu and not p.startswith('weights/')] == []
