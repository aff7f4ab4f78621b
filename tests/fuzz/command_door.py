"""The door of the command line."""

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from doors import door, later, put
from file_doors import BOXES, COCO, RESULTS
from mutations import mutate_bytes
from PIL import Image
from weight_doors import photo, saved_small

from widehrnet_zoo.errors import UserError


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def command_input() -> Callable[[Random], bytes]:
    values = (
        '0',
        '-1',
        '1',
        '2',
        '99999999999',
        '0.5',
        'nan',
        'inf',
        '-inf',
        '1e400',
        '',
        'x',
        '..',
        '/',
        '\u0663',
        "'",
    )
    files = (
        'photo.png',
        'labels.json',
        'boxes.json',
        'results.json',
        'recipe.yaml',
        'broken.jpg',
        'none',
        '.',
        'x.pth',
    )
    seeds = (
        ['predict', 'photo.png', '--out', 'out', '--weights', 'small.safetensors', '--quiet'],
        ['predict', 'photo.png', 'broken.jpg', '--out', 'out', '--model', 'small', '--boxes', '1,2,30,25', '--quiet'],
        ['predict', '.', '--out', 'out', '--model', 'small', '--boxes', 'boxes.json', '--quiet', '--no-picture'],
        ['eval', '--data', 'labels.json', '--results', 'results.json', '--protocol', 'pck', '--quiet'],
        ['eval', '--data', 'labels.json', '--images', '.', '--model', 'small', '--protocol', 'pck', '--quiet'],
        ['eval', '--data', 'labels.json', '--results', 'results.json', '--protocol', 'coco', '--quiet'],
        ['convert', 'x.pth', 'out'],
        ['info', 'local-dir:small'],
        ['train', 'recipe.yaml', '--show'],
        ['train', 'finetune', '--labels', 'labels.json', '--images', '.', '--set', 'lr=1e-3', '--show'],
        ['export', 'small', '--format', 'onnx', '--out', 'out'],
    )
    options = (
        ['--threshold'], ['--batch-size'], ['--decoder'], ['--boxes'], ['--weights'], ['--model'], ['--padding'],
        ['--nms'], ['--min-box-score'], ['--bootstrap'], ['--worst'], ['--by-joint'], ['--size', '64'],
        ['--skeleton'], ['--set'],
        ['--device'], ['--flip-test'], ['--bf16'], ['--lr'], ['--epochs'], ['--seed'], ['--out'],
    )  # fmt: skip

    def make(random: Random) -> bytes:
        command = list(random.choice(seeds))
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            at = random.randrange(1, len(command) + 1)
            match random.randrange(4):
                case 0:
                    command[at - 1 + (at == 1) : at] = [random.choice(values + files)]
                case 1:
                    command[at:at] = [*random.choice(options), random.choice(values + files)]
                case 2:
                    command.append(random.choice(random.choice(options)))
                case 3:
                    command.insert(at, random.choice(values + files))
        # these would start a training
        command += ['--show'] * (command[0] == 'train' and '--show' not in command)
        damaged = random.choice((None, None, *files[:6]))
        mutated = b''
        if damaged is not None:
            mutated = mutate_bytes(random, cli_files()[damaged])
        return json.dumps({'command': command, 'damaged': damaged, 'content': mutated.hex()}).encode()

    return make


@functools.cache
def cli_files() -> dict[str, bytes]:
    from widehrnet_zoo.training.recipes import CONFIGS

    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, 'PNG')
    return {
        'photo.png': buffer.getvalue(),
        'broken.jpg': b'no photo',
        'labels.json': json.dumps(COCO).encode(),
        'results.json': json.dumps(RESULTS).encode(),
        'boxes.json': json.dumps({'photo.png': BOXES['a.jpg']}).encode(),
        'recipe.yaml': (CONFIGS / 'finetune.yaml').read_bytes(),
        'x.pth': b'no checkpoint',
    }


@door('command line', later(command_input), 15)
def command(content: bytes, folder: Path) -> None:
    import os

    from widehrnet_zoo.cli.main import main

    given = json.loads(content)
    for name, data in cli_files().items():
        put(folder, name, data)
    if given['damaged']:
        put(folder, given['damaged'], bytes.fromhex(given['content']))
    (folder / 'small').mkdir()
    put(folder / 'small', 'model.safetensors', saved_small()[0])
    put(folder / 'small', 'config.json', json.dumps(saved_small()[1]).encode())
    put(folder, 'small.safetensors', saved_small()[0])
    kept = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    here = Path.cwd()
    os.chdir(folder)
    try:
        with quiet() as (_, err):
            try:
                code = main(given['command'])
            except SystemExit as stop:
                code = stop.code
    finally:
        os.chdir(here)
    said = err.getvalue()
    assert code in (0, 1, 2), f'exit code {code}: {said}'
    assert 'Traceback' not in said and 'unexpected' not in said, said[-600:]
    assert code == 0 or said.strip(), 'failed without a word'
    for path, data in kept.items():
        assert path.read_bytes() == data, f'{path.name} was changed'
    if code:
        raise UserError(said.strip().splitlines()[-1])
