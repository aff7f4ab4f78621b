"""`widehrnet train`: fine-tune or train on COCO or MPII keypoints, or on your own."""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HELP = 'fine-tune or train a model'
DESCRIPTION = 'Train by a recipe: a shipped one, a YAML or TOML file, or the defaults; flags override it.'
EPILOG = """\
examples:
  widehrnet train finetune --labels train.json --images photos --val-labels val.json --out runs/mine
  widehrnet train finetune --labels train.json --images photos --preview samples.png
  widehrnet train people_128x96 --labels train.json --images photos --minutes 60 --processes 2
  widehrnet train runs/mine/recipe.json --resume
  accelerate launch --multi_gpu -m widehrnet_zoo.cli.main train coco_256x192 --labels ... --images ...

Every setting of a recipe can be set with --set, sections with dots: --set augment.rotation=30 --set lr=1e-3
"""

# Flag, setting, type, help
FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    ('--labels', 'data.labels', str, 'COCO-keypoints JSON, or the MPII annotations as JSON'),
    ('--images', 'data.images', str, 'folder of its images'),
    ('--packs', 'data.packs', str, 'folder of packs of `widehrnet pack`, instead of labels and images'),
    ('--val-labels', 'data.val_labels', str, 'labels to validate on'),
    ('--val-images', 'data.val_images', str, 'folder of their images (default: --images)'),
    ('--skeleton', 'data.skeleton', str, 'coco, mpii, or a JSON or YAML file (default: from the labels)'),
    ('--model', 'model.name', str, 'variant, variant.tag, hf-hub:org/name or local-dir:FOLDER'),
    ('--weights', 'model.weights', str, 'file of weights to start from'),
    ('--out', 'out', str, 'folder of the run'),
    ('--epochs', 'epochs', float, 'passes over the data'),
    ('--minutes', 'minutes', float, 'wall-clock budget'),
    ('--batch-size', 'batch_size', int, 'samples per step, over all processes together'),
    ('--lr', 'lr', float, 'peak learning rate'),
    ('--seed', 'seed', int, 'seed of order, augmentation and new weights'),
)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and the flags that override it."""
    parser.add_argument('recipe', nargs='?', help='name of a shipped recipe, or a file (train --list shows the names)')
    recipe = parser.add_argument_group('recipe')
    for flag, _, kind, text in FLAGS:
        recipe.add_argument(flag, type=kind, metavar=flag[2:].upper().replace('-', '_'), help=text)
    recipe.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='input of the network, multiples of 32'
    )
    recipe.add_argument(
        '--pretrained',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='start from the weights that --model stands for',
    )
    recipe.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='any setting; may be given again'
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_recipe(parser)
    run_group = parser.add_argument_group('run')
    run_group.add_argument('--resume', action='store_true', help='go on from the newest checkpoint in --out')
    run_group.add_argument(
        '--preview', metavar='FILE', type=Path, help='draw augmented samples with their targets, and do not train'
    )
    run_group.add_argument('--samples', type=int, default=12, help='samples in the preview (default: 12)')
    run_group.add_argument('--list', action='store_true', help='list the recipes that ship')
    run_group.add_argument('--show', action='store_true', help='print the whole recipe and do not train')
    run_group.add_argument('--cpu', action='store_true', help='train on the CPU even if there is an accelerator')
    run_group.add_argument(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='processes on this CPU, each with its share of the cores (default: 1); GPUs go through accelerate launch',
    )
    run_group.add_argument('--quiet', action='store_true', help='no progress bar')


def read_recipe(args: argparse.Namespace) -> Any:
    """The recipe of parsed arguments.

    Args:
        args: What `add_recipe` defines, parsed.

    Raises:
        UserError: If a setting is unknown or does not fit.
    """
    from ..training.recipes import load_config

    return load_config(load_config(args.recipe, _overrides(args)).to_dict(), args.set)


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag, setting, _, _ in FLAGS:
        value = getattr(args, flag[2:].replace('-', '_'))
        if value is not None:
            section, _, key = setting.rpartition('.')
            (values.setdefault(section, {}) if section else values)[key] = value
    if args.size:
        values['size'] = args.size
    if args.pretrained is not None:
        values.setdefault('model', {})['pretrained'] = args.pretrained
    if getattr(args, 'cpu', False) or getattr(args, 'processes', 1) > 1:
        values['cpu'] = True
    return values


def run(args: argparse.Namespace) -> int:
    """Run the command; gives 0; 130 if the run was stopped, with its state saved."""
    from ..errors import UserError
    from ..training.recipes import shipped_configs

    if args.list:
        sys.stdout.write('\n'.join(shipped_configs()) + '\n')
        return 0
    config = read_recipe(args)
    if args.show:
        sys.stdout.write(json.dumps(config.to_dict(), indent=2) + '\n')
        return 0
    if args.preview:
        from ..training.run import preview

        preview(config, args.preview, args.samples)
        sys.stdout.write(f'{args.preview}\n')
        return 0
    if args.processes < 1:
        raise UserError(f'--processes must be at least 1, not {args.processes}.')
    if args.processes > 1 and 'LOCAL_RANK' not in os.environ:
        return _launch(config, args)
    return _train(config, args)


def _train(config: Any, args: argparse.Namespace) -> int:
    from ..training.run import train

    # what was skipped, taken over or is new is part of the result
    logging.getLogger('widehrnet_zoo').setLevel(logging.INFO)
    try:
        train(config, args.resume, progress=not args.quiet)
    except KeyboardInterrupt as stopped:
        sys.stderr.write(f'\n{stopped or "stopped"}\n')
        return 130
    if os.environ.get('RANK', '0') == '0':
        sys.stdout.write(f'{Path(config.out) / "model"}\n')
    return 0


def _launch(config: Any, args: argparse.Namespace) -> int:
    """The same run in several processes, which find each other through gloo on this machine."""
    environment = dict(os.environ)
    # one thread pool for each process, or they fight over the cores
    environment.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // args.processes)))
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / 'recipe.json'
        recipe.write_text(json.dumps(config.to_dict()))
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
        command += ['--nproc-per-node', str(args.processes), '-m', 'widehrnet_zoo.cli.main', 'train', str(recipe)]
        command += ['--resume'] * args.resume + ['--quiet'] * args.quiet
        with subprocess.Popen(command, env=environment) as child:
            asked = False

            def ask(number: int, frame: Any) -> None:
                nonlocal asked
                asked = True
                # Ctrl-C reaches the children too; they save and end
                if number == signal.SIGTERM:
                    child.terminate()

            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                code = child.wait()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
            return 130 if asked else code
