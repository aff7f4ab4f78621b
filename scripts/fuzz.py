"""Try hostile input at every door for as long as asked, and say how many were tried and what was found.

    python scripts/fuzz.py --minutes 10
    python scripts/fuzz.py --minutes 5 --door images recipes --keep findings
    python scripts/fuzz.py --minutes 30 --door images --atheris     # guided by coverage, where atheris is installed

The doors and their inputs are those of tests/fuzz. The exit code is 1 if something was found.
"""

import argparse
import hashlib
import json
import logging
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests' / 'fuzz')]

from doors import DOORS, Door  # noqa: E402


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=2, help='for all doors together (default: 2)')
    parser.add_argument('--door', nargs='+', choices=sorted(DOORS), default=list(DOORS), help='default: all')
    parser.add_argument('--seed', type=int, default=0, help='of the first input (default: 0)')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='keep the inputs of findings here')
    parser.add_argument('--atheris', action='store_true', help='let atheris choose the bytes, for one door')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures here')
    return parser.parse_args()


def signature(error: BaseException) -> str:
    """Where an error is from, so that a finding is told once."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if 'widehrnet_zoo' in f.filename] or list(frames)
    return f'{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}: {str(error)[:200]}'


def run(door: Door, seconds: float, seed: int, keep: Path | None) -> dict:
    """Knock at a door until the time is up."""
    tried = accepted = 0
    slowest = 0.0
    findings: dict[str, str] = {}
    # the seed inputs are made before the clock runs
    door.make(Random(0))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = door.make(Random(f'{door.name} {seed + tried}'))
        tried += 1
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                accepted += door.knock(content, Path(folder))
        except Exception as error:
            place = signature(error).partition(': ')[0]
            if place not in findings:
                findings[place] = signature(error)
                name = f'{hashlib.sha256(content).hexdigest()[:12]}.bin'
                sys.stderr.write(f'{door.name}: {signature(error)} (input {seed + tried - 1})\n')
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes(content)
        slowest = max(slowest, time.monotonic() - start)
    return {
        'tried': tried,
        'accepted': accepted,
        'slowest_s': round(slowest, 2),
        'findings': sorted(findings.values()),
    }


def run_atheris(door: Door) -> None:
    """Let atheris mutate the bytes of valid and nearly valid inputs; it ends the process itself."""
    import atheris

    def one(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            door.knock(data, Path(folder))

    with tempfile.TemporaryDirectory() as corpus:
        for i in range(200):
            (Path(corpus) / str(i)).write_bytes(door.make(Random(i)))
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], corpus, '-timeout=60'], one)
        atheris.Fuzz()


def main() -> int:
    """Run it."""
    args = parse()
    logging.disable(logging.CRITICAL)
    if args.atheris:
        if len(args.door) != 1:
            sys.exit('atheris never returns: name one --door')
        run_atheris(DOORS[args.door[0]])
    # an input that asks for all of the memory must fail, not take the machine down
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    found = {}
    for name in args.door:
        found[name] = run(DOORS[name], args.minutes * 60 / len(args.door), args.seed, args.keep)
        figures = found[name]
        sys.stdout.write(
            f'{name:<42} {figures["tried"]:>8} tried {figures["accepted"]:>8} accepted '
            f'{len(figures["findings"]):>3} findings, slowest {figures["slowest_s"]:.2f} s\n'
        )
        sys.stdout.flush()
    total = sum(f['tried'] for f in found.values())
    wrong = sum(len(f['findings']) for f in found.values())
    sys.stdout.write(f'{total} inputs, {wrong} findings\n')
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + '\n')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
