"""Full and read-only disks, kills, pipes, odd names, strangers' files: what must hold when things go wrong.

Hostile input to every door is in tests/fuzz; here is what it found, and what no input alone brings about.
"""

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import torch
from hub_server import HubServer, Repo
from PIL import Image
from safetensors.torch import save_file

from widehrnet_zoo import files
from widehrnet_zoo.checkpoints import misfits, read_checkpoint
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.convert import convert_checkpoint, find_architecture, read_weights
from widehrnet_zoo.detection import BoxFile
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.estimator import PoseEstimator
from widehrnet_zoo.evaluation.labels import read_labels
from widehrnet_zoo.files import write_whole
from widehrnet_zoo.hub import save_pretrained
from widehrnet_zoo.images import read_image
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.results import PoseResult
from widehrnet_zoo.skeletons import SKELETONS, Skeleton

SMALL = {'channels': (8, 16), 'num_modules': (1,), 'stem_width': 8}
ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'}


def small(num_classes=17):
    torch.manual_seed(0)
    return create_model('widehrnet_10', num_classes=num_classes, **SMALL)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A folder with a model small enough to run for nothing."""
    return save_pretrained(small(), tmp_path_factory.mktemp('model') / 'small', SKELETONS['coco'], size=(64, 64))


def photos(folder, count, size=(40, 50)):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f'{i:05d}.png')
    return folder


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
        assert main(['predict', str(source), '--out', str(out), '--model', str(model), '--quiet']) == 2
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


def killed_at(moment, way, new, folder):
    """Replace files in a process of its own that is killed before or after one of the steps; whether it was."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def stepwise(function):
            def step(*args, **options):
                if next(steps) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*args, **options)
                if next(steps) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return step

        def busy(*args):
            raise OSError(16, 'Device or resource busy')

        try:
            if way != 'exchanged':
                files._exchange = lambda one, other: False
            if way == 'in place':
                os.rename = busy
            for name in ('rename', 'replace', 'unlink', 'link', 'rmdir'):
                setattr(os, name, stepwise(getattr(os, name)))
            files._exchange = stepwise(files._exchange)
            files.replace_files(new, folder, 'config.json')
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork here')
@pytest.mark.parametrize('way', ['exchanged', 'moved', 'in place'])
def test_a_kill_between_any_two_steps_of_replacing_a_model_mixes_nothing(tmp_path, way):
    names = ('README.md', 'config.json', 'model.safetensors')

    def content(folder):
        return {name: (folder / name).read_text() for name in names if (folder / name).exists()}

    kinds = set()
    for moment in itertools.count():
        folder, fresh = tmp_path / str(moment) / 'model', tmp_path / str(moment) / '.model.tmp'
        for place, age in ((folder, 'old'), (fresh, 'new')):
            place.mkdir(parents=True)
            for name in names:
                (place / name).write_text(age)
        (folder / 'mine').mkdir()
        (folder / 'mine' / 'notes.txt').write_text('mine')
        was_killed = killed_at(moment, way, fresh, folder)
        found = content(folder)
        if found in (dict.fromkeys(names, 'old'), dict.fromkeys(names, 'new')):
            kinds.add(found['config.json'])
            assert (folder / 'mine' / 'notes.txt').read_text() == 'mine'
        elif way == 'moved':
            kinds.add('away')
            kept = fresh.with_name('.model.tmp.old')
            assert not folder.exists() and content(kept) == dict.fromkeys(names, 'old')
            assert (kept / 'mine' / 'notes.txt').read_text() == 'mine'
        else:
            kinds.add('none')
            assert way == 'in place' and 'config.json' not in found
        if not was_killed:
            break
    assert moment > 3 and found['config.json'] == 'new'
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
    assert main(['predict', str(source), '--out', str(out), '--model', str(model), '--quiet']) == 0
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


# ---------------------------------------------------------------------------------------- what the fuzzing has found


def test_a_picture_of_three_sides_is_damaged():
    buffer = io.BytesIO()
    Image.new('L', (13, 9)).save(buffer, 'IM')
    content = buffer.getvalue()
    assert read_image(content).shape == (9, 13, 3)
    with pytest.raises(UserError, match='its size is'):
        read_image(content.replace(b'13*9\r', b'1*3*9\r', 1))


def test_a_video_whose_title_is_no_unicode_is_read(tmp_path):
    av = pytest.importorskip('av')
    from widehrnet_zoo.video.clips import VideoReader

    with av.open(str(tmp_path / 'v.mkv'), 'w') as video:
        video.metadata['title'] = 'a title of its own'
        stream = video.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
        video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        video.mux(stream.encode(None))
    content = (tmp_path / 'v.mkv').read_bytes()
    assert b'of its own' in content
    (tmp_path / 'v.mkv').write_bytes(content.replace(b'of its own', b'of its \xe9wn'))
    with VideoReader(tmp_path / 'v.mkv') as reader:
        assert len(list(reader)) == 1


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def test_a_torch_export_file_with_code_in_it_is_refused_before_pytorch_opens_it(tmp_path, monkeypatch):
    from widehrnet_zoo.deployment.backends import open_backend
    from widehrnet_zoo.deployment.export import export

    export(small(), tmp_path / 'good.pt2', size=(64, 64))
    monkeypatch.setattr(torch.export, 'load', lambda *args, **options: pytest.fail('it was opened'))
    with zipfile.ZipFile(tmp_path / 'good.pt2') as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    pickled = io.BytesIO()
    torch.save(Evil(), pickled)
    (inputs,) = [name for name in good if name.endswith('.pt') and 'input' in name]
    (model,) = [name for name in good if re.search(r'models/\w+\.json', name)]

    def graph(change):
        values = json.loads(good[model])
        change(values)
        return {**good, model: json.dumps(values).encode()}

    for changed, said in (
        ({**good, inputs: pickled.getvalue()}, 'pickle'),
        ({**good, 'x/data/weights/weight_0': pickled.getvalue()}, 'pickle'),
        ({**good, 'x/data/constants/custom_obj_0': b'x'}, 'an object'),
        ({**good, 'x/data/aotinductor/model/x.so': b'x'}, 'compiled'),
        (graph(lambda v: v.update(guards_code=['print(1)'])), 'guards'),
        (graph(lambda v: v['graph_module']['graph']['nodes'][0].update(target='torch.hub.load')), r'torch\.hub\.load'),
        (graph(lambda v: v.update(x={'expr_str': '__import__("os").getpid()'})), 'expression'),
        (graph(lambda v: v.update(x={'use_pickle': True})), 'pickled weights'),
    ):
        with zipfile.ZipFile(tmp_path / 'x.pt2', 'w') as archive:
            for name, data in changed.items():
                archive.writestr(name, data)
        with pytest.raises(UserError, match=said):
            open_backend(tmp_path / 'x.pt2')


def test_a_graph_that_fails_when_it_runs_is_told_in_one_line(tmp_path, capfd):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from widehrnet_zoo.deployment.export import export

    export(small(), tmp_path / 'x.onnx', size=(64, 64))
    graph = onnx.load(tmp_path / 'x.onnx')
    (concat, *_) = [node for node in graph.graph.node if node.op_type == 'Concat']
    for attribute in concat.attribute:
        attribute.i = 2
    onnx.save(graph, tmp_path / 'x.onnx')
    source = photos(tmp_path / 'in', 1)
    call = ['predict', str(source), '--out', str(tmp_path / 'out'), '--model', str(tmp_path / 'x.onnx'), '--quiet']
    assert main(call) in (1, 2)
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and 'x.onnx' in said and 'unexpected' not in said


def official(model):
    from test_convert import official_name

    return {official_name(name, False): value for name, value in model.state_dict().items()}


def test_a_damaged_name_cannot_ask_for_a_million_modules(tmp_path):
    state = small().state_dict()
    state['stages.0.1000000.branches.0.0.conv_pw.conv.weight'] = torch.zeros(1)
    with pytest.raises(UserError, match='missing'):
        find_architecture(state)
    state = official(small())
    for claim in (torch.empty((2**40, 0, 1, 1)), torch.zeros(1).expand(2**40, 8, 1, 1)):
        state['keypoint_head.final_layer.weight'] = claim
        torch.save({'state_dict': state}, tmp_path / 'x.pth')
        with pytest.raises(UserError, match='final layer'):
            convert_checkpoint(tmp_path / 'x.pth', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_that_unpacks_to_a_multiple_of_itself_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save({'state_dict': {'backbone.x': torch.zeros(8 << 20)}}, tmp_path / 'plain.pth')
    with zipfile.ZipFile(tmp_path / 'plain.pth') as plain, zipfile.ZipFile(tmp_path / 'x.pth', 'w', 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / 'x.pth').stat().st_size < 1 << 20
    assert read_checkpoint(tmp_path / 'plain.pth')
    monkeypatch.setattr(torch, 'load', lambda *args, **options: pytest.fail('it was unpacked'))
    for door in (read_weights, lambda file: convert_checkpoint(file, tmp_path / 'out')):
        with pytest.raises(UserError, match='unpack to 32 MiB'):
            door(tmp_path / 'x.pth')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda w: w.fill_(float('nan')), 'not finite'),
        (lambda w: (w * 100).to(torch.int8), 'of another type'),
        (lambda w: w.to(torch.complex64), 'of another type'),
        (lambda w: w.to('meta'), 'of another type'),
        (lambda w: w[:-1], 'misshapen'),
    ],
)
def test_weights_that_only_seem_to_fit_are_refused_at_every_door(tmp_path, change, said):
    model = small()
    state = model.state_dict()
    key = 'stem.conv.bn.weight'
    assert not misfits(state, model.state_dict())
    state[key] = change(state[key].clone())
    assert said in misfits(state, model.state_dict()) and key in misfits(state, model.state_dict())
    names = dict(zip(state, official(model), strict=True))
    torch.save({'state_dict': {names[k]: v for k, v in state.items()}}, tmp_path / 'x_64x64.pth')
    with pytest.raises(UserError, match=said):
        convert_checkpoint(tmp_path / 'x_64x64.pth', tmp_path / 'out')
    with pytest.raises(UserError, match=said):
        PoseEstimator(weights=tmp_path / 'x_64x64.pth')
    assert read_weights(tmp_path / 'x_64x64.pth').keys() == state.keys()


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_a_quantised_count_is_refused():
    model = small()
    state = model.state_dict()
    key = next(k for k, v in state.items() if not v.is_floating_point())
    state[key] = torch.quantize_per_tensor(torch.tensor(0.0), 1.0, 0, torch.quint8)
    assert misfits(state, model.state_dict()) == f'1 of another type ({key} quint8)'


@pytest.mark.parametrize(
    'change',
    [
        {'model_args': {'channels': [8, 2**40], 'num_modules': [1], 'stem_width': 8}},
        {'model_args': {'channels': [8, 16], 'num_modules': [10**9], 'stem_width': 8}},
        {'model_args': {'channels': 'wide'}},
        {'model_args': {'channels': [8, None]}},
        {'num_classes': 10**12},
        {'num_classes': [17]},
        {'architecture': ['widehrnet_10']},
        {'model_args': {'global_pool': [1]}},
        {'skeleton': 7},
        {'skeleton': None, 'label_names': [*range(17)]},
        {'pretrained_cfg': {'std': [0, 0, 0]}},
        {'pretrained_cfg': {'mean': ['a', 'b', 'c']}},
        {'pretrained_cfg': {'std': 3}},
        {'pretrained_cfg': {'input_size': 64}},
        {'pretrained_cfg': {'input_size': [3, '64', 64]}},
        {'pretrained_cfg': {'input_size': [3, 63.5, 64]}},
    ],
)
def test_a_strangers_config_is_refused_with_a_sentence(tmp_path, model, change):
    config = json.loads((model / 'config.json').read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if key == 'pretrained_cfg' else value
    (tmp_path / 'config.json').write_text(json.dumps(config))
    save_file(create_model(f'local-dir:{model}', pretrained=True).state_dict(), tmp_path / 'model.safetensors')
    with pytest.raises(UserError):
        PoseEstimator(f'local-dir:{tmp_path}', device='cpu')


@pytest.mark.parametrize(
    'change',
    [
        {'flip_pairs': [[0.9, 1.9]]},
        {'bones': [[float('inf'), 0]]},
        {'sigmas': [float('inf'), 1, 1]},
        {'keypoints': ['a', None, 'b']},
        {'keypoints': {'a': 1}},
        {3: 4, 'x': 5},
    ],
)
def test_a_skeleton_is_taken_as_it_is_written_or_not_at_all(change):
    with pytest.raises(UserError):
        Skeleton.from_dict({'keypoints': ['a', 'b', 'c'], **change})


def labels(**change):
    annotation = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'keypoints': [1, 2, 2], 'area': 9}
    image = {'id': 1, 'file_name': 'a.jpg', 'width': 9, 'height': 9}
    data = {'images': [image], 'annotations': [annotation], 'categories': [{'id': 1, 'keypoints': ['a']}]}
    for place, (key, value) in change.items():
        data[place][0][key] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('[' * 200_000, 'nested too deep'),
        (labels(annotations=('bbox', [10**400, 2, 3, 4])), 'bbox'),
        (labels(annotations=('bbox', [1e308, 2, 1e308, 4])), 'bbox'),
        (labels(annotations=('id', [1])), 'as "id"'),
        (labels(annotations=('image_id', {})), 'not among'),
        (labels(annotations=('num_keypoints', 'many')), 'num_keypoints'),
        (labels(images=('id', [])), 'lacks "id"'),
        (labels(images=('width', 'wide')), 'width'),
        (labels(annotations=('iscrowd', [[1]])), 'iscrowd'),
        (labels(annotations=('iscrowd', 1)), 'no person'),
        (labels(categories=('id', None)), 'categories'),
        (labels(categories=('keypoints', 'nose')), 'list of names'),
        (labels(categories=('keypoints', [1])), 'list of names'),
        (labels(categories=('keypoints', False), annotations=('keypoints', 3)), 'keypoints'),
    ],
)
def test_labels_of_the_wrong_kind_are_named(tmp_path, content, said):
    (tmp_path / 'labels.json').write_text(content)
    with pytest.raises(UserError, match=said):
        read_labels(tmp_path / 'labels.json')


@pytest.mark.parametrize(
    'change', [{'path': float('inf')}, *({'image_size': {'width': w, 'height': 1}} for w in (float('inf'), -1, 40.7))]
)
def test_a_result_with_values_of_another_kind_is_not_read_back(change):
    result = PoseResult([[[1, 2]]], [[0.5]], [[0, 0, 9, 9]], [1], Skeleton('one', ('a',)), (9, 9))
    with pytest.raises(UserError, match='no result'):
        PoseResult.from_dict({**result.to_dict(), **change})


@pytest.mark.parametrize('box', [[1, 2, 3, 10**400], [1, 2, 3, 1e300], [1, 2, True, 4]])
def test_boxes_of_no_size_on_earth_are_refused(tmp_path, box):
    (tmp_path / 'boxes.json').write_text(json.dumps({'a.jpg': [box]}))
    with pytest.raises(UserError, match=r"'a\.jpg'"):
        BoxFile(tmp_path / 'boxes.json')


@pytest.mark.parametrize(
    'text',
    [
        'lr: 2021-99-99',
        'lr: 0b',
        'lr: !!int "x"',
        'lr: !!python/object/apply:os.system [ls]',
        'model: {args: &a {x: *a}}',
        'a0: &a0 [1, 1]\n' + ''.join(f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n' for i in range(1, 60)),
        'lr: ' + '[' * 5000,
    ],
)
def test_yaml_that_is_a_trap_is_refused_at_once(tmp_path, text, capsys):
    pytest.importorskip('yaml')
    (tmp_path / 'recipe.yaml').write_text(text)
    start = time.monotonic()
    assert main(['train', str(tmp_path / 'recipe.yaml'), '--show']) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'unexpected' not in said and len(said) < 1000
    assert time.monotonic() - start < 1.5
