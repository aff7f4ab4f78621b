"""Try hostile input at every door for as long as asked, and say how many were tried and what was found.

    python scripts/ci/fuzz.py --minutes 10
    python scripts/ci/fuzz.py --minutes 5 --door images recipes --keep findings
    python scripts/ci/fuzz.py --minutes 30 --door images --atheris     # guided by coverage, where atheris is installed

The doors and their inputs are those of tests/fuzz. The exit code is 1 if something was found.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests' / 'fuzz')]

if '--atheris' in sys.argv:
    import atheris

    # to the end of the process: the doors import what they lead to when they are first knocked at
    atheris.instrument_imports(include=['widehrnet_zoo', 'PIL', 'yaml']).__enter__()

import command_door  # noqa: E402, F401
import native_doors  # noqa: E402, F401
from doors import DOORS, LIMIT_S, Door, Hang  # noqa: E402
from mutations import vary  # noqa: E402


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=2, help='for all doors together (default: 2)')
    parser.add_argument('--door', nargs='+', choices=sorted(DOORS), default=list(DOORS), help='default: all')
    parser.add_argument('--seed', type=int, default=0, help='of the first input (default: 0)')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='keep the inputs of findings here')
    parser.add_argument('--atheris', action='store_true', help='let atheris choose the inputs, by coverage')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures here')
    return parser.parse_args()


def signature(error: BaseException) -> str:
    """Where an error is from, so that a finding is told once."""
    # one from another process brings its traceback as text
    there = re.findall(r'File ".*?([\w.]+/[\w.]+\.py)", line (\d+)', str(error.__cause__ or ''))
    if own := [place for place in there if 'widehrnet_zoo' in str(error.__cause__)]:
        return f'{type(error).__name__} at {":".join(own[-1])}: {str(error)[:200]}'
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if 'widehrnet_zoo' in f.filename] or list(frames)
    return f'{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}: {str(error)[:200]}'


class Tally:
    """What came out of a door, input by input."""

    def __init__(self, door: Door, keep: Path | None, first: int = 0) -> None:
        self.door, self.keep, self.first = door, keep, first
        self.tried = self.accepted = 0
        self.slowest, self.slowest_input = 0.0, first
        self.findings: dict[str, str] = {}

    def knock(self, content: bytes) -> None:
        """Try an input."""
        self.tried += 1
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.accepted += self.door.knock(content, Path(folder))
            # where nothing could interrupt it
            if time.monotonic() - start > LIMIT_S:
                raise Hang(f'answered after {time.monotonic() - start:.0f} s')
        except (Exception, Hang) as error:
            said = signature(error)
            place = said.partition(': ')[0]
            if place not in self.findings:
                self.findings[place] = said
                sys.stderr.write(f'{self.door.name}: {said} (input {self.first + self.tried - 1})\n')
                if self.keep is not None:
                    self.keep.mkdir(parents=True, exist_ok=True)
                    (self.keep / f'{hashlib.sha256(content).hexdigest()[:12]}.bin').write_bytes(content)
        if (took := time.monotonic() - start) > self.slowest:
            self.slowest, self.slowest_input = took, self.first + self.tried - 1

    def figures(self) -> dict[str, Any]:
        """Numbers and findings."""
        return {
            'tried': self.tried,
            'accepted': self.accepted,
            'slowest_s': round(self.slowest, 2),
            'slowest_input': self.slowest_input,
            'findings': sorted(self.findings.values()),
        }


def run(door: Door, seconds: float, seed: int, keep: Path | None) -> dict[str, Any]:
    """Knock at a door until the time is up."""
    tally = Tally(door, keep, seed)
    # the seed inputs are made before the clock runs
    door.make(Random(0))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tally.knock(door.make(Random(f'{door.name} {seed + tally.tried}')))
    return tally.figures()


def run_atheris(door: Door, seconds: float, seed: int, keep: Path | None) -> dict[str, Any]:
    """The same with inputs that atheris grows from those of the door, in a process of its own, as it never returns."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus, figures = Path(scratch) / 'corpus', Path(scratch) / 'figures.json'
        corpus.mkdir()
        for i in range(200):
            (corpus / str(i)).write_bytes(door.make(Random(f'{door.name} {seed + i}')))
        child = os.fork()
        if child == 0:
            try:
                _atheris(door, seconds, seed, keep, corpus, figures)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not figures.exists():
            # a crash of the interpreter, which nothing in it can catch
            return {
                'tried': 0, 'accepted': 0, 'slowest_s': 0.0, 'slowest_input': seed,
                'findings': [f'the process ended with {os.waitstatus_to_exitcode(status)}'],
            }  # fmt: skip
        return json.loads(figures.read_text())


def _atheris(door: Door, seconds: float, seed: int, keep: Path | None, corpus: Path, figures: Path) -> None:
    tally = Tally(door, keep)
    end = time.monotonic() + seconds

    def one(data: bytes) -> None:
        if time.monotonic() > end:
            figures.write_text(json.dumps(tally.figures()))
            os._exit(0)
        tally.knock(data)

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        random = Random(number)
        # bytes alone rarely leave JSON or a checksum whole
        return atheris.Mutate(data, max_size) if random.randrange(2) else vary(random, data)[:max_size]

    # the doors keep the time themselves, with the same alarm
    options = ['-timeout=0', '-rss_limit_mb=0', '-max_len=65536', '-verbosity=0', f'-artifact_prefix={corpus.parent}/']
    atheris.Setup([sys.argv[0], str(corpus), f'-seed={seed + 1}', *options], one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Run it."""
    args = parse()
    logging.disable(logging.CRITICAL)
    # an input that asks for all of the memory must fail, not take the machine down
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    found = {}
    for name in args.door:
        try_door = run_atheris if args.atheris else run
        found[name] = try_door(DOORS[name], args.minutes * 60 / len(args.door), args.seed, args.keep)
        figures = found[name]
        sys.stdout.write(
            f'{name:<42} {figures["tried"]:>8} tried {figures["accepted"]:>8} accepted '
            f'{len(figures["findings"]):>3} findings, '
            f'slowest {figures["slowest_s"]:.2f} s (input {figures["slowest_input"]})\n'
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
