"""`widehrnet eval`: measure a model by a published protocol."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import add_engine, add_precision, engine_options
from .people import add_detector, add_limits, people_options

if TYPE_CHECKING:
    from ..evaluation.report import Report

HELP = 'measure a model by the COCO, MPII or PCK protocol, or a person finder by its boxes'
DESCRIPTION = 'Measure a model, or results that are there already, as the field counts it.'
EPILOG = """\
examples:
  widehrnet eval --data people/val.json --images people/images --model widehrnet_18_attn --protocol pck
  widehrnet eval --data person_keypoints_val2017.json --images val2017 --model widehrnet_18_attn.coco_256x192 \\
      --weights official.pth --boxes COCO_val2017_detections_AP_H_56_person.json --out runs/coco
  widehrnet eval --protocol mpii --data mpii_val.json --images mpii/images --model widehrnet_18.mpii_256x256 \\
      --weights official.pth --out runs/mpii
  widehrnet eval --data people/val.json --results predictions.json --protocol pck
  widehrnet eval --data person_keypoints_val2017.json --images val2017 --model widehrnet_18_attn --detector default
  widehrnet eval --protocol boxes --data everyday/val.json --images everyday/images --out runs/boxes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    what = parser.add_argument_group('what')
    what.add_argument(
        '--data',
        required=True,
        metavar='LABELS',
        type=Path,
        help='COCO-keypoints JSON, or the MPII annotations as JSON',
    )
    what.add_argument('--images', metavar='DIR', type=Path, help='folder of the photos')
    what.add_argument('--model', help='variant, variant.tag, hf-hub:ORG/NAME, folder or exported file')
    what.add_argument('--weights', metavar='FILE', help='weights; official mmpose checkpoints are converted')
    what.add_argument(
        '--boxes',
        metavar='FILE',
        type=Path,
        help="a detector's boxes in COCO's results format, instead of the annotated ones (coco)",
    )
    add_detector(what, 'whole photos, instead of the annotated boxes (coco)')
    what.add_argument('--ground-truth', metavar='FILE', type=Path, help='mpii_gt_val.mat (default: beside the labels)')
    what.add_argument(
        '--results', metavar='FILE', type=Path, help='score this COCO-results file instead of running a model'
    )
    how = parser.add_argument_group('protocol')
    how.add_argument('--protocol', choices=('coco', 'mpii', 'pck', 'boxes'), default='coco', help='default: coco')
    how.add_argument(
        '--flip-test',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='average with the mirrored crop (default: on for coco and mpii, else off)',
    )
    how.add_argument(
        '--shift',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='shift the mirrored heatmaps by one pixel (default: on)',
    )
    how.add_argument(
        '--decoder', choices=('quarter', 'dark', 'soft'), help='default: quarter; dark for pck and --detector'
    )
    how.add_argument(
        '--clip',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='clip annotated boxes to the image (default: on for coco, off for pck)',
    )
    how.add_argument(
        '--padding', type=float, help="growth of a box to the model's view (default: the model's own, most often 1.25)"
    )
    how.add_argument(
        '--nms', type=float, metavar='OKS', help='suppress above this OKS; 1 keeps all (default: 0.9 for coco)'
    )
    how.add_argument(
        '--min-box-score',
        type=float,
        default=0.0,
        metavar='SCORE',
        help="leave a detector's lower boxes out (default: 0)",
    )
    add_limits(parser.add_argument_group('with --detector'))
    how.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help="input, instead of the model's own")
    how.add_argument('--by-joint', action='store_true', help='PCK or PCKh of each joint too (mpii, pck)')
    how.add_argument(
        '--bootstrap',
        type=int,
        default=0,
        metavar='DRAWS',
        help='95%% intervals from this many resamplings of the photos (1000 is usual)',
    )
    run_group = parser.add_argument_group('run')
    run_group.add_argument(
        '--out',
        metavar='DIR',
        type=Path,
        help='report.json, report.md, results.json, worst.png; a run that was cut off goes on here',
    )
    run_group.add_argument('--restart', action='store_true', help='throw away the predictions in --out')
    run_group.add_argument('--worst', type=int, default=12, metavar='N', help='people in worst.png (default: 12)')
    add_engine(run_group)
    add_precision(run_group)
    run_group.add_argument('--batch-size', type=int, default=32, help='people per step (default: 32)')
    run_group.add_argument('--workers', type=int, default=2, help='threads that read photos (default: 2)')
    run_group.add_argument('--quiet', action='store_true', help='no progress bar')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..errors import UserError
    from ..files import check_folder

    if args.out is not None:
        check_folder(args.out)
    if args.results is not None and (args.model is not None or args.weights is not None):
        raise UserError('--model or --weights and --results exclude each other: one is measured, the other scored.')
    if args.detector is not None:
        report = _everyone(args)
    elif args.protocol == 'boxes':
        report = _boxes(args)
    else:
        report = _keypoints(args)
    sys.stdout.write(report.table())
    return 0


def _size(args: argparse.Namespace) -> tuple[int, int] | None:
    return tuple(args.size) if args.size else None


def _keypoints(args: argparse.Namespace) -> 'Report':
    from ..errors import UserError
    from ..evaluation.run import Protocol, evaluate

    protocol = Protocol.published(args.protocol)
    how = replace(
        protocol.predict,
        shift=args.shift,
        decoder=args.decoder or protocol.predict.decoder,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=not args.quiet,
        flip_test=protocol.predict.flip_test if args.flip_test is None else args.flip_test,
    )
    nms = protocol.nms if args.nms is None else args.nms
    protocol = replace(
        protocol,
        predict=how,
        clip=protocol.clip if args.clip is None else args.clip,
        padding=args.padding,
        nms=None if nms is None or nms >= 1 else nms,
        min_box_score=args.min_box_score,
    )
    estimator = None
    if args.results is None:
        if args.model is None and args.weights is None:
            raise UserError('Give --model or --weights to measure a model, or --results to score a file of results.')
        from ..inference.estimator import PoseEstimator

        estimator = PoseEstimator(args.model, args.weights, size=_size(args), **engine_options(args))
    return evaluate(
        protocol,
        args.data,
        args.images,
        estimator,
        boxes=args.boxes,
        ground_truth=args.ground_truth,
        results=args.results,
        out=args.out,
        restart=args.restart,
        draws=args.bootstrap,
        worst=args.worst,
        by_joint=args.by_joint,
        name=args.model,
    )


def _boxes(args: argparse.Namespace) -> 'Report':
    from ..errors import UserError
    from ..evaluation.boxes import evaluate_boxes

    if args.boxes or args.ground_truth:
        raise UserError('--boxes and --ground-truth are for keypoints: leave them out with --protocol boxes.')
    finder = None
    if args.results is None:
        from ..detection.finder import DEFAULT_FINDER, PersonFinder

        model = DEFAULT_FINDER if args.model is None and args.weights is None else args.model
        options = {'size': _size(args), 'flip_test': bool(args.flip_test), **engine_options(args)}
        finder = PersonFinder(model, args.weights, **options)
    return evaluate_boxes(
        args.data,
        args.images,
        finder,
        results=args.results,
        out=args.out,
        draws=args.bootstrap,
        name=args.model,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=not args.quiet,
    )


def _everyone(args: argparse.Namespace) -> 'Report':
    """Whole photos in, with the options of `PoseEstimator`, not those of the published protocols."""
    from ..errors import UserError
    from ..evaluation.everyone import evaluate_everyone
    from ..inference.estimator import PoseEstimator

    if args.protocol != 'coco':
        raise UserError(f'--detector finds people for --protocol coco; {args.protocol} looks at the annotated people.')
    if args.boxes or args.results or args.ground_truth:
        raise UserError('--detector finds the people itself: leave --boxes, --results and --ground-truth out.')
    if args.images is None:
        raise UserError('A folder of --images is needed to find people in.')
    estimator = PoseEstimator(
        args.model,
        args.weights,
        size=_size(args),
        padding=args.padding,
        decoder=args.decoder or 'dark',
        flip_test=bool(args.flip_test),
        batch_size=args.batch_size,
        **engine_options(args),
        **people_options(args),
    )
    return evaluate_everyone(
        args.data,
        args.images,
        estimator,
        args.detector,
        out=args.out,
        draws=args.bootstrap,
        name=args.model,
        workers=args.workers,
        progress=not args.quiet,
    )
