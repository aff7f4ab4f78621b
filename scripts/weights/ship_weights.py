"""Put trained weights into the package: float16, measured before and after, with their hash.

    python scripts/weights/ship_weights.py ema.safetensors widehrnet_18_attn.people_128x96 --people PEOPLE_DIR
    python scripts/weights/ship_weights.py ema.safetensors widehrnet_10_attn.person_320x320 --boxes VAL_JSON PHOTOS

Refuses weights that lose more than 1e-3 PCK (a person finder: AP50) by the rounding. A tensor with values beyond
float16 stays as it is. The figures go to `widehrnet_zoo/weights/index.json` beside the hash; `--report` keeps the whole
report for the model card. Files over 10 MB are for the repository and the Hub only
(`scripts/weights/publish_weights.py`): name them in pyproject.toml, so that wheels leave them out.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import widehrnet_zoo
from widehrnet_zoo.detection import PersonFinder
from widehrnet_zoo.evaluation.boxes import evaluate_boxes
from widehrnet_zoo.evaluation.run import Protocol, evaluate
from widehrnet_zoo.weights.checkpoints import read_checkpoint
from widehrnet_zoo.weights.shipped import WEIGHTS

MAX_BYTES = 10_000_000
MAX_LOSS = 1e-3
FIGURES = {
    'people val PCK@0.2, human labels': 'PCK@0.2 torso, human',
    'people val PCK@0.2, fused labels, sport': 'PCK@0.2 torso, lspet',
    'people val OKS AP': 'OKS AP',
}


BOX_FIGURES = {'everyday val box AP50': 'AP50', 'everyday val box AP': 'AP', 'everyday val box F1': 'best F1'}


def measure_boxes(
    name: str, state: dict[str, torch.Tensor], labels: Path, photos: Path, out: Path | None, draws: int
) -> dict[str, float]:
    """The figures of a person finder on the validation photos."""
    model = widehrnet_zoo.create_model(name)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    report = evaluate_boxes(labels, photos, PersonFinder(model), out=out, draws=draws, name=name)
    return {short: report.figures[name] for short, name in BOX_FIGURES.items()}


def measure(
    name: str, state: dict[str, torch.Tensor], people: Path, size: tuple[int, int], out: Path | None, draws: int
) -> dict[str, float]:
    """The figures of the `pck` protocol with flip test on the validation photos."""
    model = widehrnet_zoo.create_model(name.partition('.')[0])
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    protocol = Protocol.published('pck')
    protocol = replace(protocol, predict=replace(protocol.predict, flip_test=True))
    report = evaluate(
        protocol,
        people / 'val.json',
        people / 'images',
        widehrnet_zoo.PoseEstimator(model, size=size),
        out=out,
        restart=True,
        draws=draws,
        name=name,
    )
    return {short: report.figures[name] for short, name in FIGURES.items()}


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as it ships.

    Args:
        tensor: Weights, statistics or a counter.

    Returns:
        It in float16; unchanged if float16 would make infinities of it (variances of wide activations do that) or if it
        is of whole numbers.
    """
    if not tensor.is_floating_point() or tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half().contiguous()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('name', help='variant.tag; the tag ends in HEIGHTxWIDTH')
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument('--people', type=Path, help='folder with val.json and images/')
    measured.add_argument('--boxes', type=Path, nargs=2, metavar=('LABELS', 'PHOTOS'), help='of a person finder')
    parser.add_argument('--report', type=Path, help='folder for report.json, results.json')
    parser.add_argument('--draws', type=int, default=1000)
    args = parser.parse_args()
    height, width = map(int, args.name.rpartition('_')[2].split('x'))

    full = read_checkpoint(args.weights)
    half = {k: halved(v) for k, v in full.items()}
    if args.boxes:
        before = measure_boxes(args.name, full, *args.boxes, None, 0)
        after = measure_boxes(args.name, half, *args.boxes, args.report, args.draws)
    else:
        before = measure(args.name, full, args.people, (height, width), None, 0)
        after = measure(args.name, half, args.people, (height, width), args.report, args.draws)
    print('float32', before, '\nfloat16', after)
    if any(abs(after[k] - before[k]) > MAX_LOSS for k in before if 'PCK' in k or 'AP50' in k):
        sys.exit(f'float16 changes the figures by more than {MAX_LOSS}.')

    target = WEIGHTS / f'{args.name}.safetensors'
    with tempfile.TemporaryDirectory(dir=WEIGHTS) as folder:
        new = Path(folder) / target.name
        save_file(half, new, metadata={'format': 'pt'})
        new.chmod(0o644)  # safetensors writes files that only their owner may read
        new.replace(target)
    index_file = WEIGHTS / 'index.json'
    index = json.loads(index_file.read_text()) if index_file.exists() else {}
    index[target.name] = {
        'sha256': hashlib.sha256(target.read_bytes()).hexdigest(),
        'metrics': {k: round(100 * v, 2) for k, v in after.items()},
    }
    if target.stat().st_size > MAX_BYTES:
        index[target.name]['apart'] = True
    index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + '\n')
    print(f'{target.name}: {target.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
