import errno
import gc
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_shapes import LEAST, tiny_recipe, write_kites

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.models.opening import open_network
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.skeletons import skeleton_of
from widehrnet_zoo.training import load_config, train
from widehrnet_zoo.training.accelerator import make_accelerator
from widehrnet_zoo.training.log import RunLog, read_log
from widehrnet_zoo.training.start import freeze, start_model
from widehrnet_zoo.training.state import latest_checkpoint, load_checkpoint, save_checkpoint
from widehrnet_zoo.training.stopping import StopRequest

pytest.importorskip('yaml')
pytest.importorskip('accelerate')
pytestmark = pytest.mark.usefixtures('quick_runs')  # `whole_run`, made before, has all
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def kites(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kites')
    write_kites(folder, 24)
    write_kites(folder, 6, seed=1, name='val')
    return folder


def losses(out):
    return {int(row['step']): row['loss'] for row in read_log(Path(out) / 'log.csv') if 'loss' in row}


def start(recipe, *flags, **environment):
    path = Path(recipe['out']).with_suffix('.json')
    path.write_text(json.dumps(recipe))
    command = [sys.executable, '-m', 'widehrnet_zoo.cli.main', 'train', str(path), '--quiet', *flags]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **environment}
    pipes: dict = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


@pytest.fixture(scope='module')
def whole_run(kites, tmp_path_factory):
    out = tmp_path_factory.mktemp('whole') / 'run'
    recipe = tiny_recipe(kites, out, epochs=4, data__val_labels=str(kites / 'val.json'), pck=0.1, eval_epochs=2)
    torch.set_num_threads(1)
    model = train(load_config(recipe), progress=False)
    gc.freeze()  # as conftest.py left it: a run ends its own
    return recipe, out, model


def test_a_run_leaves_model_log_and_pictures(whole_run):
    recipe, out, model = whole_run
    rows = read_log(out / 'log.csv')
    assert [int(row['step']) for row in rows] == list(range(1, 13))
    assert np.mean([r['loss'] for r in rows[-3:]]) < rows[0]['loss'] - 0.1
    assert sum('val_pck' in row for row in rows) == 2 and all('train_pck' in row for row in rows)
    assert rows[-1]['lr'] < 0.1 * recipe['lr'] < rows[2]['lr']
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['steps'] == 12 and summary['val_pck@0.1'] == pytest.approx(rows[-1]['val_pck'])
    assert load_config(out / 'recipe.json') == load_config(recipe)
    for name in ('curves.png', 'validation.png'):
        assert (out / name).stat().st_size > 2000
    again = create_model(f'local-dir:{out / "model"}', pretrained=True).eval()
    assert skeleton_of(again).keypoints[0] == 'tip' and skeleton_of(again).bones
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(again(x), model(x), rtol=1e-4, atol=1e-5)
    kept = again.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


def test_a_second_run_in_the_same_folder_is_refused_without_resume(whole_run):
    recipe, out, _ = whole_run
    before = losses(out)
    with pytest.raises(UserError, match='--resume'):
        train(load_config(recipe), progress=False)
    train(load_config(recipe), resume=True, progress=False)
    assert losses(out) == before


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_curve(whole_run, tmp_path):
    recipe, out, model = whole_run
    recipe = {**recipe, 'out': str(tmp_path / 'killed'), 'save_minutes': 0}
    kills = 0
    for wait_for in (2, 6, 9):
        child = start(recipe, '--resume')
        while child.poll() is None and max(losses(recipe['out']), default=0) < wait_for:
            time.sleep(0.01)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate()
    assert kills >= 2 and max(losses(recipe['out'])) < 12
    child = start(recipe, '--resume')
    _, said = child.communicate()
    assert child.returncode == 0, said
    assert losses(recipe['out']) == losses(out)
    ours = load_file(Path(recipe['out']) / 'model' / 'model.safetensors')
    assert all(torch.equal(v.cpu(), ours[k]) for k, v in model.state_dict().items())
    assert not list(Path(recipe['out']).glob('*.tmp'))


@pytest.mark.slow
@pytest.mark.parametrize('sync_bn', [True, False])
def test_two_processes_give_the_curve_of_one_at_the_same_total_batch(whole_run, tmp_path, sync_bn):
    recipe, out, _ = whole_run
    recipe = {**recipe, 'out': str(tmp_path / 'two'), 'sync_bn': sync_bn}
    child = start(recipe, '--processes', '2')
    _, said = child.communicate()
    assert child.returncode == 0, said
    one, two = losses(out), losses(recipe['out'])
    difference = max(abs(one[step] - two[step]) / one[step] for step in one)
    assert one.keys() == two.keys()
    assert json.loads((tmp_path / 'two' / 'summary.json').read_text())['processes'] == 2
    if sync_bn:
        assert difference < 2e-3
    else:
        # each process normalises by its own half of the batch: close, and not the same
        assert 2e-3 < difference < 0.2


@pytest.mark.slow
def test_two_launchers_as_of_two_machines_give_the_curve_of_one(whole_run, tmp_path):
    recipe, out, _ = whole_run
    file = tmp_path / 'two.json'
    file.write_text(json.dumps({**recipe, 'out': str(tmp_path / 'two'), 'sync_bn': True}))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, '-m', 'torch.distributed.run', '--nnodes', '2', '--nproc-per-node', '1']
    command += ['--master-addr', '127.0.0.1', '--master-port', port]
    rest = ['-m', 'widehrnet_zoo.cli.main', 'train', str(file), '--quiet']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    children = [subprocess.Popen([*command, '--node-rank', rank, *rest], env=environment) for rank in '01']
    assert [child.wait() for child in children] == [0, 0]
    assert json.loads((tmp_path / 'two' / 'summary.json').read_text())['processes'] == 2
    one, two = losses(out), losses(tmp_path / 'two')
    assert one.keys() == two.keys() and max(abs(one[step] - two[step]) / one[step] for step in one) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ('processes', 'number', 'group'),
    [(1, signal.SIGTERM, False), (2, signal.SIGTERM, False), (2, signal.SIGTERM, True), (2, signal.SIGINT, True)],
)
def test_a_run_told_to_stop_saves_its_state_and_resume_goes_on(whole_run, tmp_path, processes, number, group):
    recipe, out, _ = whole_run
    recipe = {**recipe, 'out': str(tmp_path / 'stopped')}
    child = start(recipe, '--processes', str(processes))
    while child.poll() is None and not losses(recipe['out']):
        time.sleep(0.01)
    # the whole group: as a terminal or a cluster's scheduler does
    (os.killpg if group else os.kill)(child.pid, number)
    _, said = child.communicate()
    assert child.returncode == 130 and '--resume' in said, said
    done = max(losses(recipe['out']))
    assert load_checkpoint(latest_checkpoint(Path(recipe['out'])))['step'] == done < 12
    train(load_config(recipe), resume=True, progress=False)
    went = losses(recipe['out'])
    assert went == losses(out) if processes == 1 else went.keys() == losses(out).keys()


def test_a_launcher_that_repeats_a_signal_does_not_stop_the_run_before_its_state_is_saved(monkeypatch):
    run = StopRequest()
    with run.listen():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert run.asked
        later = time.monotonic() + 10
        monkeypatch.setattr(time, 'monotonic', lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_loss_that_is_not_finite_stops_and_says_what_it_was(kites, tmp_path):
    recipe = tiny_recipe(kites, tmp_path / 'run', lr=1e18, warmup_steps=0, clip_grad=None, opt='sgd', sched='constant')
    with pytest.raises(UserError, match=r'not finite at step \d+.*learning rate 1e\+18.*(weights|overflows)'):
        train(load_config(recipe), progress=False)
    assert latest_checkpoint(tmp_path / 'run') is None


def test_tensorboard_gets_the_rows_of_the_log(tmp_path):
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    log = RunLog(tmp_path, tensorboard=True)
    for step in (1, 2):
        log.write({'step': step, 'samples': 8 * step, 'loss': 3.0 / step})
    log.close()
    events = reader.EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert events.Tags()['scalars'] == ['loss']
    assert [(e.step, e.value) for e in events.Scalars('loss')] == [(1, 3.0), (2, 1.5)]


def tick(monkeypatch, seconds):
    """A clock that goes on by so much each time it is read, so that minutes are as many steps on any machine."""
    readings = itertools.count()
    monkeypatch.setattr(time, 'monotonic', lambda: seconds * next(readings))


def test_a_budget_of_minutes_ends_the_run_annealed(kites, tmp_path, monkeypatch):
    tick(monkeypatch, 0.2)
    recipe = tiny_recipe(kites, tmp_path / 'run', epochs=10_000, minutes=0.05, warmup_steps=1, ema_decay=0)
    train(load_config(recipe), progress=False)
    rows = read_log(tmp_path / 'run' / 'log.csv')
    assert rows[-1]['lr'] < 0.2 * recipe['lr'] and 0.04 < rows[-1]['minutes'] < 0.06


def test_what_is_missing_to_learn_is_said(kites, tmp_path, monkeypatch, caplog):
    for name in ('labels', 'images'):
        with pytest.raises(UserError, match=f'--{name}'):
            train(load_config(tiny_recipe(kites, tmp_path / 'run', **{f'data__{name}': None})), progress=False)
    tick(monkeypatch, 60)
    train(load_config(tiny_recipe(kites, tmp_path / 'run', minutes=0.05)), progress=False)
    assert 'over before the first step' in caplog.text


def state(value):
    return {'a': torch.full((3,), float(value))}, {'state': {0: {'m': torch.ones(2), 'n': 3}}, 'param_groups': [{}]}


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model, optimizer = state(1)
    save_checkpoint(tmp_path, 1, model, optimizer, None, {'elapsed': 5.0})

    def full(handle):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='No space left on device'):
        save_checkpoint(tmp_path, 2, *state(2), None, {'elapsed': 6.0})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint-00000001']
    loaded = load_checkpoint(latest_checkpoint(tmp_path))
    assert loaded['step'] == 1 and loaded['elapsed'] == 5 and torch.equal(loaded['model']['a'], model['a'])
    assert loaded['optimizer']['state'][0]['n'] == 3 and torch.equal(
        loaded['optimizer']['state'][0]['m'], torch.ones(2)
    )


def test_half_written_and_damaged_checkpoints_are_not_taken(tmp_path):
    save_checkpoint(tmp_path, 3, *state(1), None, {})
    (tmp_path / 'checkpoint-00000009.tmp').mkdir()
    (tmp_path / 'checkpoint-00000009.tmp' / 'state.json').write_text('{"step": 9}')
    assert latest_checkpoint(tmp_path).name == 'checkpoint-00000003'
    weights = tmp_path / 'checkpoint-00000003' / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match='damaged'):
        load_checkpoint(latest_checkpoint(tmp_path))


def test_new_keypoints_get_a_new_head_and_known_names_keep_their_rows(whole_run):
    from widehrnet_zoo.pose.skeletons import Skeleton

    _, out, model = whole_run
    config = load_config({'model': {'name': f'local-dir:{out / "model"}'}}).model
    started = start_model(config, Skeleton('other', ('tail', 'beak', 'tip')), (64, 64))
    old, new = model.classifier.weight, started.classifier.weight
    assert torch.equal(new[0], old[4]) and torch.equal(new[2], old[0]) and new.shape[0] == 3
    assert new[1].abs().max() < 0.01
    assert torch.equal(started.stem.conv.conv.weight, model.stem.conv.conv.weight)
    file = out / 'model' / 'model.safetensors'
    args = json.loads((out / 'recipe.json').read_text())['model']['args']
    for options in (args, {}):
        assert torch.equal(open_network('widehrnet_10', file, size=(64, 64), **options).network.classifier.weight, old)
    with pytest.raises(UserError, match='do not fit the network'):
        open_network('widehrnet_10_attn', file, size=(64, 64))


def test_frozen_parts_do_not_move_and_their_norms_neither(whole_run, kites, tmp_path):
    _, out, model = whole_run
    name = f'local-dir:{out / "model"}'
    recipe = tiny_recipe(kites, tmp_path / 'run', epochs=1, model__name=name, model__freeze=['backbone'], ema_decay=0)
    recipe['model'].pop('args')
    trained = train(load_config({**recipe, 'layer_decay': 0.8}), progress=False)
    after = trained.state_dict()
    for key, value in model.state_dict().items():
        moved = not torch.equal(value, after[key])
        assert moved == key.startswith('classifier.'), key
    with pytest.raises(UserError, match='no module is called'):
        freeze(model, ('stagse',))


def test_a_teacher_teaches_by_heatmaps_and_by_keypoints(whole_run, kites, tmp_path):
    _, out, _ = whole_run
    name = f'local-dir:{out / "model"}'
    recipe = tiny_recipe(kites, tmp_path / 'a', epochs=1, model__name=name, teacher__model=name, ema_decay=0)
    recipe['model'].pop('args')
    train(load_config(recipe), progress=False)
    first = read_log(tmp_path / 'a' / 'log.csv')[0]
    # training statistics of the norms are what tells the student from its own teacher
    assert 0 <= first['teacher_loss'] < 1
    data = json.loads((kites / 'train.json').read_text())
    for annotation in data['annotations']:
        points = np.array(annotation['keypoints'], float).reshape(-1, 3)
        annotation['seen'] = np.concatenate((points[:, :2], np.full((5, 1), 0.5)), 1).ravel().tolist()
        annotation['keypoints'] = [0, 0, 0] * 4 + annotation['keypoints'][:3]
    (kites / 'taught.json').write_text(json.dumps(data))
    recipe = tiny_recipe(kites, tmp_path / 'b', teacher__keypoints='seen', data__labels=str(kites / 'taught.json'))
    train(load_config(recipe), progress=False)
    rows = read_log(tmp_path / 'b' / 'log.csv')
    assert rows[-1]['teacher_loss'] < rows[0]['teacher_loss'] - 0.1
    recipe['teacher'] = {'keypoints': 'unseen'}
    with pytest.raises(UserError, match='unseen'):
        train(load_config(recipe), progress=False)


@pytest.mark.parametrize(
    'options', [{'precision': 'bf16'}, {'grad_checkpointing': True, 'channels_last': False}, {'opt': 'lion', 'ohkm': 3}]
)
def test_options_of_the_engine_train(kites, tmp_path, options, whole_run, monkeypatch, caplog):
    monkeypatch.setattr('torch.backends.cpu.get_cpu_capability', lambda: 'AVX2')
    options = dict(options)
    ohkm = options.pop('ohkm', 0)
    recipe = tiny_recipe(kites, tmp_path / 'run', epochs=1, target__ohkm=ohkm, **options)
    train(load_config(recipe), progress=False)
    ours, plain = losses(tmp_path / 'run'), losses(whole_run[1])
    if not ohkm:
        assert ours[1] == pytest.approx(plain[1], rel=2e-2 if 'precision' in options else 1e-5)
    assert ('no instructions for bfloat16' in caplog.text) == ('precision' in options)


def test_the_command_draws_a_preview_and_names_mistakes(kites, tmp_path, capsys):
    from widehrnet_zoo.cli.main import main

    labels = ['--labels', str(kites / 'train.json'), '--images', str(kites / 'images'), '--out', str(tmp_path / 'run')]
    picture = tmp_path / 'samples.png'
    assert main(['train', *labels, '--size', '64', '64', '--preview', str(picture), '--samples', '4']) == 0
    from PIL import Image

    with Image.open(picture) as image:
        assert min(image.size) > 150
    assert main(['train', *labels, '--set', f'data.cache={picture}/cache', '--preview', str(picture)]) == 2
    assert 'give another folder as data.cache' in capsys.readouterr().err
    assert main(['train', *labels, '--set', 'augment.rotatoin=3']) == 2
    assert 'did you mean augment.rotation' in capsys.readouterr().err
    assert main(['train', '--list']) == 0
    assert 'coco_256x192' in capsys.readouterr().out
    assert main(['train', 'coco_256x192', '--cpu']) == 2
    assert 'data.labels' in capsys.readouterr().err


def rows_of(out):
    return read_log(Path(out) / 'log.csv')


def test_stages_follow_each_other_from_size_to_size_and_resume_where_they_were(kites, tmp_path):
    stages = [{'size': [32, 32], 'epochs': 2, 'batch_size': 12}, {'augment': {'rotation': 5}, 'epochs': 1}]
    recipe = {**tiny_recipe(kites, tmp_path / 'run', model__args=LEAST), 'stages': stages}
    recipe['data']['val_labels'] = str(kites / 'val.json')
    config = load_config(recipe)
    model = train(config, progress=False)
    one, two = tmp_path / 'run' / '1-32x32', tmp_path / 'run' / '2-64x64'
    assert load_config(one / 'recipe.json').size == (32, 32)
    second = load_config(two / 'recipe.json')
    assert second.augment.rotation == 5 and second.model.name == f'local-dir:{one / "model"}'
    rows = rows_of(tmp_path / 'run')
    assert [row['samples'] for row in rows if 'loss' in row] == [12, 24, 36, 48, 56, 64, 72]
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    assert summary['samples'] == 72 and [s['steps'] for s in summary['stages']] == [4, 3]
    kept = load_file(tmp_path / 'run' / 'model' / 'model.safetensors')
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    half = load_file(tmp_path / 'run' / 'weights.safetensors')
    assert all(torch.allclose(v, half[k].to(v), rtol=1e-2, atol=1e-6) for k, v in model.state_dict().items())
    assert sum(v.dtype == torch.float16 for v in half.values()) > 10
    with pytest.raises(UserError, match='--resume'):
        train(config, progress=False)
    # a run that was stopped in its second stage goes on there
    import shutil

    stamp = (one / 'log.csv').stat().st_mtime_ns
    shutil.rmtree(two)
    train(config, resume=True, progress=False)
    assert (one / 'log.csv').stat().st_mtime_ns == stamp and len(rows_of(tmp_path / 'run')) == len(rows)
    for wrong, says in (({'sizes': 3}, r'stages\[1\]\.sizes'), ({'out': 'x'}, 'whole run'), ({'share': 0}, 'above 0')):
        with pytest.raises(UserError, match=says):
            load_config({'stages': [wrong]})


def test_stages_share_the_minutes(kites, tmp_path, monkeypatch):
    tick(monkeypatch, 0.2)
    stages = [{'size': [32, 32], 'share': 1}, {'share': 2}]
    recipe = tiny_recipe(kites, tmp_path / 'run', epochs=10_000, minutes=0.15, model__args=LEAST, stages=stages)
    train(load_config(recipe), progress=False)
    first, second = (load_config(tmp_path / 'run' / name / 'recipe.json') for name in ('1-32x32', '2-64x64'))
    assert first.minutes == pytest.approx(0.05, rel=0.1)
    # all that the first left, its start and end included
    done = json.loads((tmp_path / 'run' / 'summary.json').read_text())['stages'][0]['minutes']
    assert 0.07 < second.minutes <= 0.15 - done + 0.006


def test_warm_up_and_averaging_are_bounded_by_the_run(kites, tmp_path):
    from widehrnet_zoo.training.optimizer import Schedule, average_decay

    assert average_decay(0.998, 150) == pytest.approx(1 - 1 / 15)
    assert average_decay(0.998, 100_000) == 0.998 and average_decay(0.998, 3) == 0
    parameter = torch.nn.Parameter(torch.zeros(1))
    config = load_config({'lr': 1.0, 'warmup_steps': 100})

    def rates(total, progress):
        schedule = Schedule(torch.optim.SGD([parameter], 1.0), config, total, 10.0)
        return [schedule.set(step, progress(step)) for step in range(150)]

    # the longest run that fits into 150 steps: 7 of warm-up, not 100
    steps = rates(150, lambda step: step / 150)
    assert np.argmax(steps) == 7 and steps[-1] < 0.01
    # long enough, it has all its warm-up
    assert np.argmax(np.array(rates(1_000_000, lambda step: step / 1_000_000)) > 0.99) == 100
    # a budget of time that ends after 60 steps, whatever the epochs
    timed = rates(1_000_000, lambda step: min(1.0, step / 60))
    assert np.argmax(timed) == 3 and timed[60] < 0.01


def test_a_resumed_run_takes_the_new_settings_and_refuses_what_its_state_is_not_of(kites, tmp_path):
    still = {'sched': 'constant', 'warmup_steps': 0, 'layer_decay': 0.9}
    recipe = {**tiny_recipe(kites, tmp_path / 'run', epochs=1, model__args=LEAST), **still}
    train(load_config(recipe), progress=False)

    def groups():
        state = load_checkpoint(latest_checkpoint(tmp_path / 'run'))
        return state['optimizer'], rows_of(tmp_path / 'run')[-1]['lr']

    changed = {**recipe, 'epochs': 2, 'lr': 1e-4, 'weight_decay': 0.5, 'layer_decay': 0.5}
    train(load_config(changed), resume=True, progress=False)
    fresh = {**changed, 'out': str(tmp_path / 'fresh'), 'epochs': 1}
    train(load_config(fresh), progress=False)
    state, lr = groups()
    expected = load_checkpoint(latest_checkpoint(tmp_path / 'fresh'))['optimizer']
    assert lr == pytest.approx(1e-4)
    assert [(g['lr'], g['weight_decay'], g['lr_scale']) for g in state['param_groups']] == [
        (g['lr'], g['weight_decay'], g['lr_scale']) for g in expected['param_groups']
    ]
    for key, value in {'opt': 'sgd', 'batch_size': 4, 'layer_decay': None}.items():
        with pytest.raises(UserError, match=f'{key}'):
            train(load_config({**changed, 'epochs': 3, key: value}), resume=True, progress=False)


@pytest.mark.slow
def test_what_accelerate_is_told_outside_the_recipe_changes_nothing_and_is_said(tmp_path, whole_run, monkeypatch):
    recipe = {**whole_run[0], 'epochs': 1, 'out': str(tmp_path / 'run')}
    told = {'ACCELERATE_MIXED_PRECISION': 'bf16', 'ACCELERATE_GRADIENT_ACCUMULATION_STEPS': '4'}
    child = start(recipe, **told, ACCELERATE_DYNAMO_BACKEND='EAGER')
    _, said = child.communicate()
    assert child.returncode == 0, said
    for name in (*told, 'ACCELERATE_DYNAMO_BACKEND'):
        assert f'{name}=' in said and 'left aside' in said
    first, plain = rows_of(tmp_path / 'run')[0], rows_of(whole_run[1])[0]
    assert first['loss'] == pytest.approx(plain['loss'], rel=1e-6)
    assert first['grad_norm'] == pytest.approx(plain['grad_norm'], rel=1e-4)
    monkeypatch.setenv('ACCELERATE_USE_FSDP', 'true')
    with pytest.raises(UserError, match='ACCELERATE_USE_FSDP'):
        make_accelerator(load_config(recipe))


def test_numbers_of_steps_come_in_their_order():
    from widehrnet_zoo.training.readings import Readings

    readings = Readings()
    for step in range(3):
        readings.add(torch.tensor([step, 0.5]), {'step': step})
    assert [(values, row['step']) for values, row in readings.read()] == [([0, 0.5], 0), ([1, 0.5], 1), ([2, 0.5], 2)]
    assert list(readings.read(wait=True)) == []


def test_stacked_muon_is_timms_step_and_keeps_its_state():
    import copy

    from timm.optim import create_optimizer_v2

    from widehrnet_zoo.training.muon import StackedMuon

    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(8, 12, 1),
        torch.nn.Conv2d(12, 12, 3, groups=12),
        torch.nn.Conv2d(12, 8, 1),
        torch.nn.Linear(8, 12),
    ).to(memory_format=torch.channels_last)
    stacked = copy.deepcopy(plain)
    options = {'opt': 'nmuon', 'lr': 0.1, 'weight_decay': 0.1, 'layer_decay': None}
    one = create_optimizer_v2(plain, **options)
    two = StackedMuon(create_optimizer_v2(stacked, **options))
    before = [p.clone() for p in plain.parameters()]
    for _ in range(4):
        for p, q in zip(plain.parameters(), stacked.parameters(), strict=True):
            p.grad, q.grad = (torch.randn_like(p),) * 2
        one.step()
        two.step()
    for p, q, was in zip(plain.parameters(), stacked.parameters(), before, strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-3) and not torch.allclose(p, was, atol=0.05)
        assert one.state[p].keys() == two.state[q].keys()
        assert all(
            torch.allclose(torch.as_tensor(v), torch.as_tensor(two.state[q][k])) for k, v in one.state[p].items()
        )
    assert [g.keys() for g in one.param_groups] == [g.keys() for g in two.param_groups]
