"""Put trained weights into the package: float16, measured before and after, with their hash.

    python scripts/weights/ship_weights.py ema.safetensors widehrnet_18_attn.everyday_256x192 --data DATA \
        --padding 1.1 --kept-out kept_out.json
    python scripts/weights/ship_weights.py ema.safetensors widehrnet_10_attn.person_320x320 --boxes VAL_JSON PHOTOS

DATA holds `everyday/` and `people/`, each with `val.json` and `images/`. Refuses weights that lose more than 1e-3 in a
figure by the rounding. A tensor with values beyond float16 stays as it is. `--mantissa 5 --like FILE` rounds weights of
convolutions further, so that wheels and clones pack them into two thirds, but for those that FILE has alike: of these
git keeps one copy. The figures go to
`widehrnet_zoo/weights/index.json` beside the hash, with the padding of boxes that the weights like best and the map
from heatmap peaks to chances, fitted to people that were kept out of the training. `--report` keeps the whole reports
for the model card.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

import widehrnet_zoo
from widehrnet_zoo.detection import PersonFinder
from widehrnet_zoo.evaluation.boxes import evaluate_boxes
from widehrnet_zoo.evaluation.run import Protocol, evaluate
from widehrnet_zoo.files import sha256
from widehrnet_zoo.formats.coco import read_labels
from widehrnet_zoo.metrics.calibration import expected_calibration_error, fit_score_map, keypoint_hits
from widehrnet_zoo.training.state import halved
from widehrnet_zoo.weights.checkpoints import read_checkpoint
from widehrnet_zoo.weights.shipped import WEIGHTS

MAX_LOSS = 1e-3
FIGURES = {
    'everyday val OKS AP': ('everyday', 'coco', 'AP'),
    'people val PCK@0.2, human labels': ('people', 'pck', 'PCK@0.2 torso, human'),
    'people val PCK@0.2, fused labels, sport': ('people', 'pck', 'PCK@0.2 torso, lspet'),
    'people val OKS AP': ('people', 'pck', 'OKS AP'),
}
"""A figure's name, and where it is from: data, protocol, name in the report."""
BOX_FIGURES = {'everyday val box AP50': 'AP50', 'everyday val box AP': 'AP', 'everyday val box F1': 'best F1'}


def measure_boxes(
    name: str, state: dict[str, torch.Tensor], labels: Path, photos: Path, out: Path | None, draws: int
) -> dict[str, float]:
    """The figures of a person finder on the validation photos."""
    report = evaluate_boxes(labels, photos, PersonFinder(loaded(name, state)), out=out, draws=draws, name=name)
    return {short: report.figures[name] for short, name in BOX_FIGURES.items()}


def measure(
    name: str,
    state: dict[str, torch.Tensor],
    data: Path,
    size: tuple[int, int],
    padding: float | None,
    out: Path | None = None,
    draws: int = 0,
) -> dict[str, float]:
    """The figures of keypoint weights on the validation photos, with flip test, from the annotated boxes."""
    estimator = widehrnet_zoo.PoseEstimator(loaded(name.partition('.')[0], state, padding), size=size)
    reports = {}
    for folder, named, _ in FIGURES.values():
        if (folder, named) not in reports:
            protocol = Protocol.published(named)
            protocol = replace(protocol, predict=replace(protocol.predict, flip_test=True))
            reports[folder, named] = evaluate(
                protocol,
                data / folder / 'val.json',
                data / folder / 'images',
                estimator,
                out=out and out / folder,
                restart=True,
                draws=draws,
                name=name,
            )
    return {short: reports[folder, named].figures[figure] for short, (folder, named, figure) in FIGURES.items()}


def loaded(name: str, state: dict[str, torch.Tensor], padding: float | None = None) -> torch.nn.Module:
    """A network with these weights, whose view of a box is as wide as asked."""
    model = widehrnet_zoo.create_model(name)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    if padding is not None:
        model.padding = padding  # type: ignore[assignment]
    return model


def rounded(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Float16 values with `bits` of the 10 bits of their mantissa; half of the last one is added first."""
    if value.dtype != torch.float16:
        return value
    rest = 10 - bits
    # the sign is a bit of its own, so that this moves the size alone
    whole = value.contiguous().view(torch.int16) + (1 << rest >> 1)
    return (whole >> rest << rest).view(torch.float16)


def peaks_and_hits(
    estimator: widehrnet_zoo.PoseEstimator, labels: Path, images: Path, out: Path | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Peaks, and which are right, from one look at each person as users look: no flip test, the default decoder."""
    with tempfile.TemporaryDirectory() as folder:
        once = out or Path(folder)
        protocol = replace(Protocol.published('pck'), clip=True)
        evaluate(protocol, labels, images, estimator, out=once, restart=True, worst=0)
        results = json.loads((once / 'results.json').read_text())
    return keypoint_hits(read_labels(labels), results, estimator.skeleton.sigmas or ())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('name', help='variant.tag; the tag ends in HEIGHTxWIDTH')
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument('--data', type=Path, help='folder with everyday/ and people/')
    measured.add_argument('--boxes', type=Path, nargs=2, metavar=('LABELS', 'PHOTOS'), help='of a person finder')
    parser.add_argument('--padding', type=float, help='growth of a box to the view (default: 1.25)')
    parser.add_argument('--kept-out', type=Path, help='labels to fit the score map to; paths of photos are from DATA')
    parser.add_argument('--mantissa', type=int, default=10, help='bits for weights of convolutions (default: 10, all)')
    parser.add_argument('--like', type=Path, help='weights whose tensors stay as they are, where they are the same')
    parser.add_argument('--report', type=Path, help='folder for report.json, results.json')
    parser.add_argument('--draws', type=int, default=1000)
    args = parser.parse_args()
    height, width = map(int, args.name.rpartition('_')[2].split('x'))

    full = read_checkpoint(args.weights)
    half = {k: halved(v).contiguous() for k, v in full.items()}
    like = read_checkpoint(args.like) if args.like else {}
    for key, value in half.items():
        if value.dim() > 1 and not (key in like and torch.equal(value, halved(like[key]))):
            half[key] = rounded(value, args.mantissa)
    entry: dict[str, Any] = {}
    if args.boxes:
        before = measure_boxes(args.name, full, *args.boxes, None, 0)
        after = measure_boxes(args.name, half, *args.boxes, args.report, args.draws)
    else:
        look = (height, width), args.padding
        before = measure(args.name, full, args.data, *look)
        after = measure(args.name, half, args.data, *look, args.report, args.draws)
        if args.padding:
            entry['padding'] = args.padding
        if args.kept_out:
            network = loaded(args.name.partition('.')[0], half, args.padding)
            estimator = widehrnet_zoo.PoseEstimator(network, size=(height, width))
            score_map = fit_score_map(*peaks_and_hits(estimator, args.kept_out, args.data))
            entry['score_map'] = score_map.to_config()
            once = args.report and args.report / 'once'
            everyday = args.data / 'everyday'
            peaks, hits = peaks_and_hits(estimator, everyday / 'val.json', everyday / 'images', once)
            after['everyday val calibration error'] = expected_calibration_error(score_map(peaks), hits)
    print('float32', before, '\nfloat16', after)
    if any(before[k] - after[k] > MAX_LOSS for k in before if 'PCK' in k or 'AP50' in k):
        sys.exit(f'float16 loses more than {MAX_LOSS} in a figure.')

    target = WEIGHTS / f'{args.name}.safetensors'
    with tempfile.TemporaryDirectory(dir=WEIGHTS) as folder:
        new = Path(folder) / target.name
        save_file(half, new, metadata={'format': 'pt'})
        new.chmod(0o644)  # safetensors writes files that only their owner may read
        new.replace(target)
    index_file = WEIGHTS / 'index.json'
    index = json.loads(index_file.read_text()) if index_file.exists() else {}
    index[target.name] = {
        'sha256': sha256(target),
        'metrics': {k: round(100 * v, 2) for k, v in after.items()},
        **entry,
    }
    index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + '\n')
    print(f'{target.name}: {target.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
