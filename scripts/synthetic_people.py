"""Make people that nobody photographed: bodies in the poses of sport with exact COCO keypoints, to train with.

    pip install anny embreex scipy tqdm
    python scripts/synthetic_people.py out --count 500 --poses people/train.json
    widehrnet train people_256x192 --labels out/labels.json --images out/images ...

Bodies are those of the package `anny` (code Apache-2.0, body data CC0, in its wheel: nothing is downloaded). Clothes,
hair, light and surroundings are drawn by chance, so that no photo and no one else's picture is in them. With `--poses`,
joint angles are fitted to people of a label file with at least 15 keypoints labelled, and new poses are drawn around
them and around those made by hand; without it, around the latter alone.

`out/` then holds `images/`, `labels.json` (COCO keypoints: v = 2 visible, 1 hidden by the body or a thing, 0 out of the
picture), `sheet.jpg` to look at, and what a later run with the same settings goes on from: a photo depends on `--seed`,
its number and the banks `bodies.npz` and `poses.npz` alone. Drawn a second time, what is there is kept.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from synthetic.labels import label_file

from widehrnet_zoo.files import write_whole
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS

NEEDED = ('anny', 'embreex', 'scipy', 'tqdm')
HIDDEN = 0.3  # opacity of hidden keypoints on the sheet
TILE = 256


def check_packages() -> None:
    """Leave with the command that installs what is missing."""
    missing = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing.append(name if error.name in (None, name) else str(error.name))
    if missing:
        sys.exit(f'Missing here: {", ".join(missing)}. Run `pip install {" ".join(NEEDED)}`.')


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that was begun with other settings; note those of a new one."""
    file = out / 'settings.json'
    if not file.exists():
        write_whole(file, json.dumps(settings))
    elif json.loads(file.read_text()) != settings:
        sys.exit(f'{out} was begun with other settings ({file.read_text()}): take another folder or delete it.')


def read_parts(out: Path) -> list[dict[str, Any]]:
    """The label entries of the photos that are there, by number."""
    parts = [json.loads(file.read_text()) for file in sorted((out / 'parts').glob('*.json'))]
    return [part for part in parts if (out / 'images' / part['image']['file_name']).exists()]


def draw_sheet(out: Path, people: list[dict[str, Any]], columns: int = 8) -> Image.Image:
    """Photos with their keypoints and bones; hidden ones are faint.

    Args:
        out: The folder with `images/`.
        people: Entries as `read_parts` gives them.
        columns: Tiles in a row.

    Returns:
        The picture.
    """
    sheet = Image.new('RGB', (columns * TILE, -(-len(people) // columns) * TILE), (24, 24, 28))
    for i, person in enumerate(people):
        keypoints = np.array(person['annotation']['keypoints'], np.float32).reshape(1, -1, 3)
        picture = Image.open(out / 'images' / person['image']['file_name'])
        left, top, width, height = person['annotation']['bbox']
        result = PoseResult(
            keypoints=keypoints[..., :2],
            scores=np.choose(keypoints[..., 2].astype(int), [0.0, HIDDEN, 1.0]).astype(np.float32),
            boxes=np.array([[left, top, left + width, top + height]], np.float32),
            box_scores=np.ones(1, np.float32),
            skeleton=SKELETONS['coco'],
            image_size=picture.size,
        )
        tile = result.draw(picture)
        tile.thumbnail((TILE, TILE))
        sheet.paste(tile, (i % columns * TILE, i // columns * TILE))
    return sheet


def finish(out: Path, shown: int) -> int:
    """Write the label file and the sheet of the photos that are there; how many there are."""
    people = read_parts(out)
    write_whole(out / 'labels.json', json.dumps(label_file(people)))
    if people:
        draw_sheet(out, people[:shown]).save(out / 'sheet.jpg', quality=88)
    return len(people)


def make_people(args: argparse.Namespace) -> int:
    """Draw what is missing; the number of photos that are there."""
    import torch
    from synthetic.bodies import Bank, make_bank
    from synthetic.fitting import fit_poses, load_poses, read_people, save_poses
    from synthetic.poses import base_poses
    from synthetic.studio import Studio
    from tqdm import tqdm

    torch.set_num_threads(1)
    out: Path = args.out
    fitted = args.poses.name if args.poses else None
    check_settings(out, {'seed': args.seed, 'bodies': args.bodies, 'poses': fitted, 'fit': args.fit if fitted else 0})
    if not (out / 'bodies.npz').exists():
        sys.stderr.write('Making bodies; the first time anny reads its data for a few minutes.\n')
        make_bank(args.bodies, args.seed).save(out / 'bodies.npz')
    bank = Bank.load(out / 'bodies.npz')
    poses = base_poses()
    if args.poses:
        if not (out / 'poses.npz').exists():
            people = read_people(args.poses, args.fit, args.seed)
            sys.stderr.write(f'Fitting poses to {len(people)} people.\n')
            save_poses(out / 'poses.npz', fit_poses(bank, people))
        real = load_poses(out / 'poses.npz')
        # those made by hand are few: they come as one in five
        poses = real + poses * max(1, round(len(real) / 4 / len(poses)))
    studio = Studio(bank, poses, args.seed)
    for number in tqdm(range(1, args.count + 1), desc='people', unit='photo'):
        part, name = out / 'parts' / f'{number:06d}.json', f'synthetic_{number:06d}.jpg'
        if part.exists() and (out / 'images' / name).exists():
            continue
        photo = studio.photo(number)
        # the photo comes last: without it the entry does not count
        write_whole(part, json.dumps({'image': photo.image, 'annotation': photo.annotation}))
        write_whole(out / 'images' / name, photo.content)
        if number % 100 == 0:
            finish(out, args.shown)
    return finish(out, args.shown)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder, made if missing; a run that was stopped goes on')
    parser.add_argument('--count', type=int, default=500, help='photos in all (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of all that is drawn (default: %(default)s)')
    parser.add_argument('--poses', type=Path, metavar='LABELS', help='COCO labels of people whose poses to learn from')
    parser.add_argument('--fit', type=int, default=300, help='people of --poses to fit (default: %(default)s)')
    parser.add_argument('--bodies', type=int, default=48, help='shapes of bodies (default: %(default)s)')
    parser.add_argument('--shown', type=int, default=40, help='photos on the sheet (default: %(default)s)')
    args = parser.parse_args()
    if args.count < 1 or args.bodies < 1 or args.fit < 1:
        parser.error('--count, --bodies and --fit must be at least 1.')
    if args.poses and not args.poses.is_file():
        parser.error(f'there is no file {args.poses}.')
    check_packages()
    count = make_people(args)
    sys.stdout.write(f'{args.out}: {count} photos, labels.json, sheet.jpg\n')


if __name__ == '__main__':
    main()
