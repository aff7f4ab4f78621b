"""Full and read-only disks, kills, pipes, odd names: what must hold when the world around goes wrong.

Hostile input is in tests/fuzz and in test_hostile_files.py.
"""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hub_server import HubServer, Repo
from PIL import Image
from small_model import official, photos, small

from widehrnet_zoo.cli.main import main
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats import save_results
from widehrnet_zoo.hub import save_pretrained
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.images import read_image
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS

ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A folder with a model small enough to run for nothing."""
    return save_pretrained(small(), tmp_path_factory.mktemp('model') / 'small', SKELETONS['coco'], size=(64, 64))


def command(*args):
    return [sys.executable, '-m', 'widehrnet_zoo', *map(str, args)]


@contextlib.contextmanager
def mounted(folder, options):
    """A file system of its own, where this may be made."""
    folder.mkdir(exist_ok=True)
    tried = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f'a tmpfs cannot be mounted here: {tried.stderr.decode().strip()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


needs_mount = pytest.mark.skipif(
    not sys.platform.startswith('linux') or os.geteuid() != 0, reason='mounting a tmpfs needs root on Linux'
)


# ------------------------------------------------------------------------------------------------ full and read-only


@needs_mount
def test_a_disk_that_fills_up_stops_predict_in_one_line_and_leaves_whole_files(tmp_path, model, capsys):
    source = photos(tmp_path / 'in', 12, (300, 400))
    with mounted(tmp_path / 'disk', 'size=200k') as disk:
        out = disk / 'out'
        options = ['--model', str(model), '--quiet', '--detector', 'none']
        assert main(['predict', str(source), '--out', str(out), *options]) == 2
        said = capsys.readouterr().err
        assert 'No space left' in said and '_pose' in said and said.count('\n') == 1
        files = sorted(out.iterdir())
        assert files and not [f for f in files if f.suffix == '.tmp']
        for file in files:
            json.loads(file.read_text()) if file.suffix == '.json' else Image.open(file).load()


@needs_mount
def test_a_full_disk_keeps_the_earlier_model_and_names_itself(tmp_path, model, capsys):
    torch.save({'state_dict': official(small(17))}, tmp_path / 'mine_64x64.pth')
    with mounted(tmp_path / 'disk', 'size=700k') as disk:
        target = disk / 'model'
        assert main(['convert', str(tmp_path / 'mine_64x64.pth'), str(target)]) == 0
        before = {p.name: p.read_bytes() for p in target.iterdir()}
        (disk / 'filler').write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 8192))
        capsys.readouterr()
        assert main(['convert', str(tmp_path / 'mine_64x64.pth'), str(target), '--force']) == 2
        said = capsys.readouterr().err
        assert ('No space left' in said or 'os error 28' in said) and said.count('\n') == 1
        assert {p.name: p.read_bytes() for p in target.iterdir()} == before
        assert sorted(p.name for p in disk.iterdir()) == ['filler', 'model']


@needs_mount
@pytest.mark.slow
def test_read_only_folders_are_told_and_a_read_only_cache_is_used(tmp_path, model, capsys):
    server = HubServer()
    server.repos['a/b'] = Repo()
    server.repos['a/b'].commit({p.name: p.read_bytes() for p in model.iterdir()})
    load = 'from widehrnet_zoo import create_model; create_model("hf-hub:a/b", pretrained=True)'
    environment = {**ENVIRONMENT, 'HF_ENDPOINT': server.url, 'HF_HUB_DISABLE_XET': '1', 'HF_HUB_OFFLINE': '0'}
    try:
        with mounted(tmp_path / 'disk', 'size=8m') as disk:
            environment['HF_HOME'] = str(disk / 'hf')
            subprocess.run([sys.executable, '-c', load], env=environment, check=True)
            subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
            subprocess.run([sys.executable, '-c', load], env=environment, check=True)
            subprocess.run([sys.executable, '-c', load], env={**environment, 'HF_HUB_OFFLINE': '1'}, check=True)
            # what is not there yet cannot be put there, and that is a sentence
            server.repos['a/c'] = server.repos['a/b']
            code = main_in_process(['info', 'hf-hub:a/c'], environment)
            assert code.returncode == 2 and 'Read-only' in code.stderr and 'Traceback' not in code.stderr
            source = photos(tmp_path / 'in', 1)
            assert main(['predict', str(source), '--out', str(disk / 'out'), '--model', str(model), '--quiet']) == 2
            said = capsys.readouterr().err
            assert 'Read-only' in said and 'Traceback' not in said
    finally:
        server.close()


def main_in_process(args, environment):
    return subprocess.run(command(*args), env=environment, capture_output=True, text=True, check=False)


def test_the_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    target = tmp_path / 'x.json'
    write_whole(target, 'old')

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match=r'No space left.*x\.json'):
        write_whole(target, 'new')
    assert target.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['x.json']


def test_a_result_names_its_file_not_the_temporary_one(tmp_path, monkeypatch):
    def read_only(dir, prefix, suffix):
        raise OSError(30, 'Read-only file system', f'{dir}/{prefix}abc{suffix}')

    monkeypatch.setattr('widehrnet_zoo.files.tempfile.mkstemp', read_only)
    nothing = np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 4)), np.zeros(0)
    nobody = PoseResult(*nothing, SKELETONS['coco'], (9, 9))
    for save in (nobody.save_json, lambda file: save_results([nobody], file, 'csv')):
        with pytest.raises(UserError) as said:
            save(tmp_path / 'x.json')
        assert str(said.value) == f'{tmp_path / "x.json"} cannot be written: Read-only file system.'


# ---------------------------------------------------------------------------------------------- kills and neighbours


@pytest.mark.slow
def test_predict_killed_at_any_moment_leaves_whole_files_and_goes_on(tmp_path, model):
    source, out = photos(tmp_path / 'in', 60, (200, 300)), tmp_path / 'out'
    call = command('predict', source, '--out', out, '--model', model, '--quiet')
    seen = 0
    for wait_for in (1, 7, 20):
        child = subprocess.Popen(call, env=ENVIRONMENT)
        while child.poll() is None and len(list(out.glob('*.json'))) < wait_for:
            time.sleep(0.02)
        child.kill()
        child.wait()
        for file in out.iterdir():
            if file.suffix == '.json':
                assert json.loads(file.read_text())['people']
            elif file.suffix == '.jpg':
                Image.open(file).load()
            else:
                assert file.name.startswith('.') and file.suffix == '.tmp'
            seen += 1
    assert seen
    assert subprocess.run(call, env=ENVIRONMENT, check=False).returncode == 0
    assert len(list(out.glob('*_pose.json'))) == len(list(out.glob('*_pose.jpg'))) == 60


@pytest.mark.slow
def test_convert_killed_at_any_moment_leaves_no_half_model(tmp_path):
    weights, target = tmp_path / 'mine_64x64.pth', tmp_path / 'model'
    torch.save({'state_dict': official(small())}, weights)
    whole = {'README.md', 'config.json', 'model.safetensors'}
    start = time.monotonic()
    subprocess.run(command('convert', weights, tmp_path / 'once'), env=ENVIRONMENT, check=True, capture_output=True)
    took = time.monotonic() - start
    for share in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        child = subprocess.Popen(command('convert', weights, target, '--force'), env=ENVIRONMENT, stdout=-3, stderr=-3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(took * share)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if target.exists():
            assert {p.name for p in target.iterdir()} == whole
            create_model(f'local-dir:{target}', pretrained=True)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork here')
@pytest.mark.parametrize('way', ['exchanged', 'moved', 'in place'])
def test_a_kill_between_any_two_steps_of_replacing_a_model_mixes_nothing(tmp_path, way):
    program = pathlib.Path(__file__).with_name('killed_replacing.py')
    subprocess.run([sys.executable, program, tmp_path, way], env=ENVIRONMENT, check=True)
    names = ('README.md', 'config.json', 'model.safetensors')

    def content(folder):
        return {name: (folder / name).read_text() for name in names if (folder / name).exists()}

    kinds, moments = set(), sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    for moment in moments:
        folder, kept = moment / 'model', moment / '.model.tmp.old'
        found = content(folder)
        if found in (dict.fromkeys(names, 'old'), dict.fromkeys(names, 'new')):
            kinds.add(found['config.json'])
            assert (folder / 'mine' / 'notes.txt').read_text() == 'mine'
        elif way == 'moved':
            kinds.add('away')
            assert not folder.exists() and content(kept) == dict.fromkeys(names, 'old')
            assert (kept / 'mine' / 'notes.txt').read_text() == 'mine'
        else:
            kinds.add('none')
            assert way == 'in place' and 'config.json' not in found
    # the last one was not killed
    assert len(moments) > 4 and found['config.json'] == 'new'
    expected = {'exchanged': {'old', 'new'}, 'moved': {'old', 'away', 'new'}, 'in place': {'old', 'none', 'new'}}
    assert kinds == expected[way]


def test_a_model_is_replaced_in_the_folder_one_is_in_and_through_a_link(tmp_path, monkeypatch):
    for name in ('one', 'two'):
        save_pretrained(small(), tmp_path / name, SKELETONS['coco'], size=(64, 64))
        (tmp_path / name / 'mine.txt').write_text('mine')
    (tmp_path / 'link').symlink_to('two')
    monkeypatch.chdir(tmp_path / 'one')
    for folder in ('.', tmp_path / 'link'):
        save_pretrained(small(5), folder, size=(64, 64), overwrite=True)
    for name in ('one', 'two'):
        assert json.loads((tmp_path / name / 'config.json').read_text())['num_classes'] == 5
        assert (tmp_path / name / 'mine.txt').read_text() == 'mine'
    assert pathlib.Path('mine.txt').exists() and (tmp_path / 'link').is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['link', 'one', 'two']


@pytest.mark.slow
def test_processes_that_fill_one_cache_at_once_all_get_whole_weights(tmp_path, model):
    server = HubServer()
    server.repos['a/b'] = Repo()
    server.repos['a/b'].commit({p.name: p.read_bytes() for p in model.iterdir()})
    load = (
        'import torch; from widehrnet_zoo import create_model\n'
        'state = create_model("hf-hub:a/b", pretrained=True).state_dict()\n'
        'print(float(sum(v.double().abs().sum() for v in state.values())))'
    )
    environment = {
        **ENVIRONMENT, 'HF_ENDPOINT': server.url, 'HF_HUB_DISABLE_XET': '1', 'HF_HUB_OFFLINE': '0',
        'HF_HOME': str(tmp_path / 'hf'),
    }  # fmt: skip
    try:
        children = [
            subprocess.Popen([sys.executable, '-c', load], env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        sums = {child.communicate()[0].strip() for child in children}
        assert [child.returncode for child in children] == [0, 0]
    finally:
        server.close()
    state = create_model(f'local-dir:{model}', pretrained=True).state_dict()
    assert sums == {str(float(sum(v.double().abs().sum() for v in state.values())))}
    blobs = [p for p in (tmp_path / 'hf').rglob('blobs/*') if p.is_file()]
    assert not [p for p in blobs if p.name.endswith('.incomplete')] and len(blobs) == 2


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path('/proc/self/statm').exists(), reason='memory is read from /proc')
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path, model):
    source = photos(tmp_path / 'in', 1)
    with open('/proc/self/statm') as statm:
        pages = []
        estimator = PoseEstimator(f'local-dir:{model}', device='cpu')
        for i, _ in enumerate(estimator.stream(source / '00000.png' for _ in range(900))):
            if i >= 300 and i % 100 == 0:
                statm.seek(0)
                pages.append(int(statm.read().split()[1]))
    # a leak of one such picture each would be 3.5 MiB, that of one crop 7 MiB
    assert (pages[-1] - pages[0]) * os.sysconf('SC_PAGE_SIZE') < 2 << 20


# ------------------------------------------------------------------------------------------------- names and pipes


def test_a_name_that_is_no_unicode_is_a_photo_like_others(tmp_path, model, capfd):
    source = tmp_path / 'in'
    photos(source, 1)
    try:
        os.rename(source / '00000.png', os.fsencode(source) + b'/caf\xe9.png')
    except OSError:
        pytest.skip('this file system takes Unicode names only')
    out = tmp_path / 'o\udce9'
    options = ['--model', str(model), '--quiet', '--detector', 'none']
    assert main(['predict', str(source), '--out', str(out), *options]) == 0
    assert 'o\\udce9' in capfd.readouterr().out
    (made,) = out.glob('*.json')
    values = json.loads(made.read_bytes().decode('utf-8'))
    assert os.fsencode(values['path']).endswith(b'caf\xe9.png')
    assert PoseResult.from_dict(values).path == values['path']


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='there are no named pipes here')
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'photo.jpg')
    said = []

    def read():
        try:
            read_image(tmp_path / 'photo.jpg')
        except UserError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert said and 'pipe' in said[0]


def test_pictures_that_another_program_would_draw_are_refused():
    for kind in ('EPS', 'ICO'):
        buffer = io.BytesIO()
        Image.new('RGB', (16, 16)).save(buffer, kind)
        with pytest.raises(UserError, match='convert it to JPEG or PNG'):
            read_image(buffer.getvalue())
