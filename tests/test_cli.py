import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import small

import widehrnet_zoo
from widehrnet_zoo import PoseResult, create_model
from widehrnet_zoo.cli.main import COMMANDS, build_parser, main
from widehrnet_zoo.cli.photos import find_photos, name_outputs
from widehrnet_zoo.cli.predict import TOGETHER
from widehrnet_zoo.formats import FORMATS, read_csv, read_parquet
from widehrnet_zoo.models.macs import count_macs

META = torch.device('meta')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp('weights') / 'light_256x192.safetensors'
    save_file(small().state_dict(), path)
    return str(path)


def save(path, size=(60, 80), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    return path


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


def test_a_photo_gives_a_picture_and_a_json(tmp_path, weights, capsys):
    photo = save(tmp_path / 'me.png')
    out = tmp_path / 'out'
    assert main(['predict', str(photo), '--out', str(out), '--weights', weights, '--quiet', '--detector', 'none']) == 0
    assert '1 photo, 1 person' in capsys.readouterr().out
    assert names(out) == ['me_pose.jpg', 'me_pose.json']
    assert Image.open(out / 'me_pose.jpg').size == (60, 80)
    values = json.loads((out / 'me_pose.json').read_text())
    assert values['path'] == str(photo) and len(values['people'][0]['keypoints']) == 17


def test_one_broken_photo_does_not_stop_the_others(tmp_path, weights, capsys):
    save(tmp_path / 'in' / 'a.png')
    (tmp_path / 'in' / 'b.jpg').write_bytes(b'broken')
    save(tmp_path / 'in' / 'c.png', seed=1)
    out = tmp_path / 'out'
    command = ['predict', str(tmp_path / 'in'), 'nowhere.jpg', '--out', str(out), '--weights', weights, '--no-picture']
    assert main([*command, '--batch-size', '8', '--detector', 'none']) == 1
    said = capsys.readouterr()
    assert names(out) == ['a_pose.json', 'c_pose.json']
    assert 'b.jpg' in said.err and 'nowhere.jpg' in said.err and 'Traceback' not in said.err
    assert '2 of 4 photos' in said.out and '2 failed' in said.out


def test_boxes_come_from_numbers_or_a_file(tmp_path, weights, capsys):
    photo, other = save(tmp_path / 'a.png'), save(tmp_path / 'b.png')
    out = tmp_path / 'out'
    common = ['--out', str(out), '--weights', weights, '--quiet']
    assert main(['predict', str(photo), *common, '--boxes', '5,6,40,70; 1,1,20,20']) == 0
    people = json.loads((out / 'a_pose.json').read_text())['people']
    assert [p['box'] for p in people] == [[5, 6, 40, 70], [1, 1, 20, 20]]
    boxes = tmp_path / 'boxes.json'
    boxes.write_text(json.dumps({'a.png': [[5, 6, 40, 70, 0.5]], 'b.png': []}))
    assert main(['predict', str(photo), str(other), *common, '--boxes', str(boxes)]) == 0
    assert json.loads((out / 'a_pose.json').read_text())['people'][0]['box_score'] == 0.5
    assert json.loads((out / 'b_pose.json').read_text())['people'] == []
    # replaced whole, and nothing else left
    assert names(out) == ['a_pose.jpg', 'a_pose.json', 'b_pose.jpg', 'b_pose.json']
    assert main(['predict', str(photo), *common, '--boxes', '40,6,5,70']) == 1
    assert 'x, y, width, height' in capsys.readouterr().err
    assert main(['predict', str(photo), *common, '--boxes', 'boxes.txt']) == 2


def test_all_photos_go_into_one_file_of_each_format_asked_for(tmp_path, weights):
    pytest.importorskip('pyarrow')
    for i, name in enumerate(('a/7.png', 'b/8.png')):
        save(tmp_path / 'in' / name, seed=i)
    (tmp_path / 'in' / 'broken.png').write_bytes(b'broken')
    (tmp_path / 'in' / os.fsdecode(b'caf\xe9.png')).write_bytes((tmp_path / 'in' / 'a' / '7.png').read_bytes())
    out = tmp_path / 'out'
    assert TOGETHER.keys() == FORMATS.keys()
    formats = [part for name in FORMATS for part in ('--format', name)]
    command = ['predict', str(tmp_path / 'in'), '--out', str(out), '--weights', weights, '--quiet', '--no-picture']
    assert main([*command, *formats, '--boxes', '5,6,40,70; 1,1,20,20']) == 1
    one = [PoseResult.from_dict(json.loads(path.read_text())) for path in sorted(out.rglob('*_pose.json'))]
    together = {r.path: r for r in map(PoseResult.from_dict, json.loads((out / 'poses.json').read_text()))}
    assert together.keys() == {r.path for r in one} and len(one) == 3
    for table in (
        read_csv(out / 'poses.csv', image_size=(60, 80)),
        read_parquet(out / 'poses.parquet', None, (60, 80)),
    ):
        assert len(table) == 3
        for result in one:
            (row,) = [t for t in table if t.path == result.path.encode('utf-8', 'backslashreplace').decode()]
            np.testing.assert_array_equal(row.keypoints, result.keypoints)
    ids = [entry['image_id'] for entry in json.loads((out / 'poses_coco.json').read_text())]
    assert sorted(ids, key=str) == [7, 7, 8, 8, 'caf\udce9', 'caf\udce9']
    assert len(names(out / 'poses_mmpose')) == 3 and '7.json' in names(out / 'poses_mmpose')


def test_a_format_that_cannot_be_written_is_told_before_anything_is_done(tmp_path, weights, capsys, monkeypatch):
    for name in ('a/7.png', 'b/007.png', 'c/x.png', 'd/X.png'):
        save(tmp_path / name)
    command = ['predict', '--out', str(tmp_path / 'out'), '--weights', weights, '--quiet']
    coco = [str(tmp_path / 'a/7.png'), str(tmp_path / 'b/007.png'), '--format', 'coco']
    mmpose = [str(tmp_path / 'c/x.png'), str(tmp_path / 'd/X.png'), '--format', 'mmpose']
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    parquet = [str(tmp_path / 'a/7.png'), '--format', 'parquet']
    for more, message in ((coco, 'both image 7'), (mmpose, 'called X'), (parquet, 'widehrnet_zoo[parquet]')):
        assert main([*command, *more]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_photos_of_the_same_name_keep_apart(tmp_path):
    photos = [tmp_path / p for p in ('a/x.jpg', 'b/x.jpg', 'b/x.png', 'c/x.JPG', 'c/y.jpg', 'c/sub/x.jpg')]
    for photo in photos:
        save(photo)
    found, missing, _ = find_photos([str(p) for p in photos] + [str(tmp_path / 'c')], tmp_path / 'out')
    assert len(found) == 6 and not missing
    targets = [str(t).casefold() for t in name_outputs(found)]
    assert len(set(targets)) == 6 and targets[4] == 'y'
    found, _, _ = find_photos([str(tmp_path / 'c')], tmp_path / 'out')
    assert [t.as_posix() for t in name_outputs(found)] == ['sub/x', 'x', 'y']


def test_results_in_the_photos_folder_are_not_taken_for_photos(tmp_path, weights):
    save(tmp_path / 'a.png')
    command = ['predict', str(tmp_path), str(tmp_path / '*.jpg'), '--weights', weights, '--quiet', '--detector', 'none']
    for out in (tmp_path, tmp_path, tmp_path / 'out', tmp_path / 'out'):
        main([*command, '--out', str(out)])
    assert names(tmp_path) == ['a.png', 'a_pose.jpg', 'a_pose.json', 'out/a_pose.jpg', 'out/a_pose.json']


def test_no_photo_is_lost_because_its_name_is_that_of_a_result(tmp_path, capsys):
    save(tmp_path / 'tree.png')
    save(tmp_path / 'tree_pose.jpg')
    before = (tmp_path / 'tree_pose.jpg').read_bytes()
    assert main(['predict', str(tmp_path), '--out', str(tmp_path)]) == 2
    assert 'would be written over' in capsys.readouterr().err
    assert (tmp_path / 'tree_pose.jpg').read_bytes() == before


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        (['predict', 'nowhere.jpg', '--out', 'out'], 'no file nowhere.jpg'),
        (['predict', '.', '--out', 'out'], 'hold none'),
        (['predict', 'a.png', '--out', 'a.png'], 'is a file'),
        (['predict', 'a.png', '--out', 'out', '--threshold', '7'], 'threshold'),
        (['predict', 'a.png', '--out', 'out', '--model', 'widehrnet_17'], 'widehrnet_18'),
        (['predict', 'a.png', '--out', 'out', '--model', 'widehrnet_10'], 'weights'),
        (['predict', 'a.png', '--out', 'out', '--weights', 'none.pth'], 'none.pth'),
        (
            ['predict', 'https://example.org/a.JPG?w=9', '--out', 'out'],
            'https://example.org/a.JPG is the address of a photo',
        ),
        (['predict', 'rtsp://a/b', '--out', 'out', '--format', 'csv'], '--format is for photos'),
        (['info', 'widehrnet_17'], 'widehrnet_18'),
        (['list', 'resnet*'], 'resnet'),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    if 'a.png' in command:
        save(tmp_path / 'a.png')
    assert main(command) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count('\n') == 1 and 'Traceback' not in said.err
    assert main([*command, '--debug']) == 2
    assert 'Traceback' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_every_command_explains_itself_with_examples():
    commands = build_parser()._subparsers._group_actions[0].choices
    assert set(commands) <= set(COMMANDS) and {'predict', 'list', 'info'} <= set(commands)
    for name, parser in commands.items():
        text = parser.format_help()
        assert 'example' in text and f'widehrnet {name}' in text and '--debug' in text


def test_list_and_info_tell_what_a_tag_knows(capsys):
    assert main(['list', 'widehrnet_18_attn', '--json']) == 0
    entries = {e['name']: e for e in json.loads(capsys.readouterr().out)}
    mpii = entries['widehrnet_18_attn.mpii_256x256']
    assert mpii['official_macs'] == pytest.approx(0.996e9, abs=0.001e9) and mpii['weights'] == 'convert'
    assert mpii['figures'] == {'MPII val PCKh@0.5': 88.47}
    assert entries['widehrnet_18_attn.coco_384x288']['size'] == [384, 288]
    assert main(['list', 'widehrnet_1?_attn']) == 0
    assert '88.47' in capsys.readouterr().out
    assert main(['info', 'widehrnet_18.mpii_256x256']) == 0
    text = capsys.readouterr().out
    for part in ('256x256', '2,685,624', 'upper_neck', 'unknown', 'WideHRNet: An Efficient', 'right_knee / left_knee'):
        assert part in text


def test_macs_are_counted_at_any_size_without_touching_the_model():
    model = create_model('widehrnet_10_attn')
    before = {name: type(m) for name, m in model.named_modules()}
    counts = {'there': 0}

    def count(module, inputs, output):
        counts['there'] += output[0].numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, 96, 160))
    assert count_macs(model, (96, 160)) == counts['there']
    assert {name: type(m) for name, m in model.named_modules()} == before
    pooled = create_model('widehrnet_10', global_pool='avg', num_classes=10, device=META)
    assert count_macs(pooled, (64, 64)) > 0


def test_unknown_names_of_the_package_are_attribute_errors():
    with pytest.raises(AttributeError, match='nothing_here'):
        _ = widehrnet_zoo.nothing_here


def test_a_photo_from_a_pipe_gives_a_line_of_json_and_no_file(tmp_path, weights, monkeypatch, capfd):
    photo = save(tmp_path / 'a.png').read_bytes()
    monkeypatch.chdir(tmp_path)
    options = ['--weights', weights, '--json', '--quiet', '--boxes', '5,6,40,70']
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(photo)))
    assert main(['predict', '-', str(tmp_path / 'a.png'), *options]) == 0
    said = capfd.readouterr()
    first, second = (PoseResult.from_dict(json.loads(line)) for line in said.out.splitlines())
    assert names(tmp_path) == ['a.png']
    assert (first.path, second.path) == ('-', str(tmp_path / 'a.png')) and first == replace(second, path='-')
    assert '2 photos, 2 people' in said.err
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'nothing')))
    assert main(['predict', '-', *options]) == 1


def test_without_out_results_go_to_poses(tmp_path, weights, monkeypatch, capsys):
    save(tmp_path / 'a.png')
    monkeypatch.chdir(tmp_path)
    options = ['--weights', weights, '--quiet', '--detector', 'none', '--format', 'jsonl']
    assert main(['predict', 'a.png', *options]) == 0
    assert names(tmp_path / 'poses') == ['a_pose.jpg', 'a_pose.json', 'poses.jsonl']
    assert len((tmp_path / 'poses' / 'poses.jsonl').read_text().splitlines()) == 1


def test_photos_of_a_folder_that_cannot_be_read_are_named(tmp_path, weights, monkeypatch, capsys):
    from widehrnet_zoo.pose import images

    save(tmp_path / 'in' / 'a.png')
    for name in ('b.HEIC', 'c.dng', 'd.mp4', 'e.txt'):
        (tmp_path / 'in' / name).write_bytes(b'\0\0\0\x18ftypheic' + bytes(64))
    monkeypatch.setattr(images, 'has_heif', lambda: False)
    options = ['--out', str(tmp_path / 'out'), '--weights', weights, '--quiet', '--no-picture', '--detector', 'none']
    assert main(['predict', str(tmp_path / 'in'), *options]) == 0
    said = capsys.readouterr()
    assert (
        '3 files in folders skipped' in said.err
        and 'c.dng (convert it to JPEG)' in said.err
        and '3 skipped' in said.out
    )
    assert 'b.HEIC (needs pip install "widehrnet_zoo[heic]")' in said.err and 'e.txt' not in said.err
    assert main(['predict', str(tmp_path / 'in' / 'b.HEIC'), *options]) == 1
    assert 'is a HEIC photo: run `pip install "widehrnet_zoo[heic]"`' in capsys.readouterr().err
    (tmp_path / 'in' / 'a.png').unlink()
    assert main(['predict', str(tmp_path / 'in'), *options]) == 2
    assert 'No photos found: 3 files in folders skipped' in capsys.readouterr().err


def test_folders_and_files_that_may_not_be_read_are_named_and_do_not_stop_the_others(
    tmp_path, weights, monkeypatch, capsys
):
    shut, secret = tmp_path / 'in' / 'shut', tmp_path / 'secret.png'
    shut.mkdir(parents=True)
    save(tmp_path / 'in' / 'a.png')

    def denied(real):
        def call(path='.', *args, **options):
            if not isinstance(path, int) and os.fspath(path) in (str(shut), str(secret)):
                raise PermissionError(13, 'Permission denied', os.fspath(path))
            return real(path, *args, **options)

        return call

    for name in ('scandir', 'stat', 'lstat'):
        monkeypatch.setattr(os, name, denied(getattr(os, name)))
    options = ['--out', str(tmp_path / 'out'), '--weights', weights, '--quiet', '--no-picture', '--detector', 'none']
    assert main(['predict', str(tmp_path / 'in'), str(secret), *options]) == 1
    said = capsys.readouterr()
    for path in (shut, secret):
        assert f'widehrnet: {path} cannot be read: Permission denied\n' in said.err
    assert '; 2 failed' in said.out
    assert main(['predict', str(shut), *options]) == 2
    assert f'No photos found: {shut} cannot be read: Permission denied.' in capsys.readouterr().err


def test_a_full_disk_behind_stdout_is_said_in_words(tmp_path, weights, monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(sys, 'stdout', Full())
    options = ['--weights', weights, '--json', '--quiet', '--detector', 'none']
    assert main(['predict', str(save(tmp_path / 'a.png')), *options]) == 2
    assert capsys.readouterr().err == 'widehrnet: No space left on device.\n'


def test_version_and_help_need_no_pytorch():
    hidden = 'import sys; sys.modules["torch"] = None; sys.orig_argv = ["python", "-m", "widehrnet_zoo"];'
    for flag in ('--version', 'predict --help'):
        code = f'{hidden} from widehrnet_zoo.cli.main import main; main({flag.split()!r})'
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert done.returncode == 0 and 'widehrnet' in done.stdout, done.stderr


def test_an_interruption_before_the_command_runs_ends_without_a_traceback():
    hidden = 'import signal, sys; sys.orig_argv = ["python", "-m", "widehrnet_zoo"]; import widehrnet_zoo;'
    code = f'{hidden} print(signal.getsignal(signal.SIGINT) is signal.SIG_DFL); signal.raise_signal(signal.SIGINT)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (-signal.SIGINT, 'True', '')
    # nor while the package's first modules, and all that they import, are imported
    code = hidden.replace(
        'import widehrnet_zoo',
        """
class Interrupt:
    def find_spec(name, *_):
        if name.startswith('widehrnet_zoo.') and name != 'widehrnet_zoo.start':
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
import widehrnet_zoo""",
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, '')
    code = f"""{hidden}
from widehrnet_zoo.cli import main
def interrupted():
    signal.raise_signal(signal.SIGINT)
main.build_parser = interrupted
sys.exit(main.main([]))"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')


@pytest.mark.parametrize(
    ('command', 'reason'),
    [
        (['predict', 'a.jpg', '--out', ''], 'the path is empty'),
        (['convert', 'a.pth', ''], 'the path is empty'),
        (['predict', 'a.jpg', '--actors', '4'], 'give --ray as well'),
    ],
)
def test_an_empty_path_is_not_the_current_folder_and_actors_need_ray(command, reason, capsys):
    try:
        code = main(command)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and reason in capsys.readouterr().err


@pytest.mark.parametrize(
    'command',
    [
        ['predict', 'none.jpg', 'SAMPLE', '--out', 'OUT'],
        ['eval', '--data', 'none.json', '--model', 'widehrnet_10', '--out', 'OUT'],
        ['bench', 'widehrnet_10_attn', '--out', 'OUT'],
        ['export', 'widehrnet_10_attn', '--format', 'onnx', '--out', 'OUT/pose.onnx'],
        ['train', 'finetune', '--set', 'data.labels=none.json', '--set', 'data.images=.', '--out', 'OUT'],
        ['train', 'finetune', '--set', 'data.labels=none.json', '--set', 'data.images=.', '--preview', 'OUT/x.png'],
        ['pack', 'finetune', '--set', 'data.labels=none.json', '--set', 'data.images=.', '--to', 'OUT'],
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_any_work(command, tmp_path, capsys):
    if command[0] in ('train', 'pack'):
        pytest.importorskip('accelerate')
    (tmp_path / 'file').touch()
    sample = Path(widehrnet_zoo.__file__).parent / 'samples' / 'astronaut.jpg'
    words = [w.replace('OUT', str(tmp_path / 'file' / 'out')).replace('SAMPLE', str(sample)) for w in command]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r'widehrnet: Results cannot be written to .*out \(Not a directory\): give another .*\n', said)
