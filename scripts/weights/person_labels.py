"""Label files for the person finder: everyday photos with their boxes, and photos of nobody.

    python scripts/weights/person_labels.py EVERYDAY OUT

EVERYDAY holds `train.json`, `val.json`, `images/` and `nobody/`, see its README. OUT gets `train.json` and `val.json`,
whose photos are named from EVERYDAY, and `nobody.json`: photos of nobody that are not learnt from.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

from widehrnet_zoo.files import write_whole

NOBODY_LEARNT = 330
"""Photos of nobody to learn from; the others are kept to count false finds in."""

CATEGORIES = [{'id': 1, 'name': 'person'}]
FIELDS = ('id', 'image_id', 'category_id', 'iscrowd', 'bbox', 'area')


def write_labels(everyday: Path, out: Path) -> None:
    """Write the three label files.

    Args:
        everyday: Folder with `train.json`, `val.json`, `images/` and `nobody/`.
        out: Folder to write to.
    """
    labels = {name: json.loads((everyday / f'{name}.json').read_text()) for name in ('train', 'val')}
    first = 1 + max(image['id'] for content in labels.values() for image in content['images'])
    nobody = []
    for i, file in enumerate(sorted((everyday / 'nobody').iterdir()), first):
        with Image.open(file) as image:
            width, height = image.size
        nobody.append({'id': i, 'file_name': f'nobody/{file.name}', 'width': width, 'height': height})
    for name, more in (('train', nobody[:NOBODY_LEARNT]), ('val', [])):
        images = [{**image, 'file_name': f'images/{image["file_name"]}'} for image in labels[name]['images']]
        people = [{field: person[field] for field in FIELDS} for person in labels[name]['annotations']]
        content = {'images': images + more, 'annotations': people, 'categories': CATEGORIES}
        write_whole(out / f'{name}.json', json.dumps(content))
    content = {'images': nobody[NOBODY_LEARNT:], 'annotations': [], 'categories': CATEGORIES}
    write_whole(out / 'nobody.json', json.dumps(content))


def main() -> None:
    """Write the labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('everyday', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_labels(args.everyday, args.out)


if __name__ == '__main__':
    main()
