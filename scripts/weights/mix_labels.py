"""Put label files and their photos side by side, to train on all of them.

    python scripts/weights/mix_labels.py mixed.json a.json a/images b.json b/images --weights 1 0.3
    widehrnet train people_256x192 --labels mixed.json --images . --set data.sample_weights=share ...

Labels and folders of photos come in pairs. Photos are named from the folder of the new file, which is what `--images`
of the training is. Ids are counted anew. With `--weights`, one number for each pair, the field `share` of everybody
says how often to come (times the share that the person had).
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from widehrnet_zoo.files import write_whole
from widehrnet_zoo.formats.coco import read_labels


def mix(sources: list[tuple[Path, Path]], home: Path, sample_weights: list[float]) -> dict[str, Any]:
    """One label file of several.

    Args:
        sources: COCO-keypoints files, each with the folder of its photos.
        home: Folder that the photos are named from.
        sample_weights: For each source how often its people come.

    Returns:
        COCO's images, annotations and categories.

    Raises:
        ValueError: If the files have different keypoints.
        UserError: If one is broken.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category: dict[str, Any] = {}
    for (file, folder), share in zip(sources, sample_weights, strict=True):
        labels = read_labels(file)
        category = category or {**labels.category, 'id': 1}
        if list(labels.names) != list(category.get('keypoints', ())):
            raise ValueError(f'{file} has other keypoints than {sources[0][0]}.')
        ids = {}
        for image in labels.images.values():
            ids[image['id']] = len(images) + 1
            name = Path(os.path.relpath(folder / image['file_name'], home)).as_posix()
            images.append({**image, 'id': ids[image['id']], 'file_name': name})
        for person in labels.annotations:
            new = {'id': len(annotations) + 1, 'image_id': ids[person['image_id']], 'category_id': 1}
            annotations.append({**person, **new, 'share': round(share * person.get('share', 1), 4)})
    return {'images': images, 'annotations': annotations, 'categories': [category]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('sources', type=Path, nargs='+', metavar='LABELS IMAGES', help='pairs of a file and a folder')
    parser.add_argument('--weights', type=float, nargs='+', help='above 0, one for each pair (default: 1)')
    args = parser.parse_args()
    sources = list(zip(args.sources[::2], args.sources[1::2], strict=False))
    sample_weights = args.weights or [1.0] * len(sources)
    if len(args.sources) % 2 or len(sample_weights) != len(sources) or min(sample_weights) <= 0:
        parser.error('give pairs of labels and images, and one share above 0 for each pair.')
    if missing := [str(folder) for _, folder in sources if not folder.is_dir()]:
        parser.error(f'there is no folder {", ".join(missing)}.')
    try:
        mixed = mix(sources, args.out.resolve().parent, sample_weights)
    except ValueError as error:
        sys.exit(str(error))
    write_whole(args.out, json.dumps(mixed))
    sys.stdout.write(f'{args.out}: {len(mixed["annotations"])} people in {len(mixed["images"])} photos\n')


if __name__ == '__main__':
    main()
