"""Run timm's own model tests, unmodified, on the models of this package.

    python scripts/ci/timm_suite.py [--jobs N] [--sdist FILE]

Downloads the source distribution of the installed timm with pip, takes `tests/test_models.py` out of it and runs each
test of a `widehrnet*` model, in N processes side by side. `timm_plugin.py` tells the tests of this package. It is a
pass only if exactly the expected tests were collected and each of them passed, none skipped. The expected
number follows from the registry: so many tests for each variant, one for each tag, two for each tag with weights.

Needs the extras `train` (torchvision, for the tests of torch.fx) and `dev` (pytest). No test needs the Hub, and none
may use it: the weights that ship are files of this package.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import timm

import widehrnet_zoo

SCRIPTS = Path(__file__).resolve().parent

PER_VARIANT = (
    'test_model_forward',
    'test_model_backward',
    'test_model_forward_torchscript',
    'test_model_forward_features',
    'test_model_forward_intermediates',
    'test_model_forward_intermediates_features',
    'test_prune_intermediate_layers_contract',
    'test_model_forward_fx',
    'test_model_backward_fx',
    'test_model_forward_fx_torchscript',
)
PER_TAG = ('test_model_default_cfgs',)
PER_PRETRAINED = ('test_model_load_pretrained', 'test_model_features_pretrained')


def expected_tests() -> Counter[str]:
    """How often each test of timm must run: once for each of our models that it is about."""
    variants = len(widehrnet_zoo.list_models())
    tags = len(timm.list_models('widehrnet*', include_tags=True))
    pretrained = len(widehrnet_zoo.list_pretrained())
    return Counter(
        dict.fromkeys(PER_VARIANT, variants) | dict.fromkeys(PER_TAG, tags) | dict.fromkeys(PER_PRETRAINED, pretrained)
    )


def fetch_sdist(folder: Path) -> Path:
    """Download the source distribution of the installed timm."""
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps']
    done = subprocess.run([*command, '--no-binary', 'timm', '--dest', str(folder), f'timm=={timm.__version__}'])
    found = list(folder.glob('timm-*.tar.gz'))
    if done.returncode or len(found) != 1:
        sys.exit(
            f'The source distribution of timm {timm.__version__} could not be downloaded with pip, so its tests could '
            'not be run. Give a file that you have with --sdist.'
        )
    return found[0]


def extract_tests(sdist: Path, folder: Path) -> Path:
    """Take the tests and their settings out of a source distribution.

    Returns:
        Root of the tests. timm itself is not in it, so that the installed one is tested.
    """
    with tarfile.open(sdist) as archive:
        root = archive.getnames()[0].partition('/')[0]
        wanted = [m for m in archive if m.name == f'{root}/pyproject.toml' or m.name.startswith(f'{root}/tests/')]
        # Python before 3.11.4 has no filters; the file is timm's own
        filtered: dict = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
        archive.extractall(folder, wanted, **filtered)
    if not (folder / root / 'tests' / 'test_models.py').is_file():
        sys.exit(f'{sdist.name} has no tests/test_models.py.')
    return folder / root


def run_tests(root: Path, jobs: int) -> list[ElementTree.Element]:
    """Run the tests in processes side by side.

    Args:
        root: Folder with `tests/test_models.py` and timm's `pyproject.toml`.
        jobs: Number of processes.

    Returns:
        JUnit's `testcase` elements.
    """
    # on GitHub the suite leaves out tests that only the large models of timm make expensive
    environment = {k: v for k, v in os.environ.items() if k != 'GITHUB_ACTIONS'}
    environment |= {'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    paths = [str(SCRIPTS), str(SCRIPTS.parents[1]), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment['PYTHONPATH'] = os.pathsep.join(paths)
    command = [sys.executable, '-m', 'pytest', '-p', 'timm_plugin', '-p', 'no:cacheprovider', '-q', '-W', 'ignore']
    command += ['-c', str(root / 'pyproject.toml'), '-o', 'xfail_strict=true', str(root / 'tests' / 'test_models.py')]
    work = root.parent / 'work'
    work.mkdir()
    reports = [root.parent / f'report{i}.xml' for i in range(jobs)]
    processes = [
        subprocess.Popen(
            [*command, f'--junitxml={report}'], cwd=work, env=environment | {'TIMM_SUITE_SHARE': f'{i}/{jobs}'}
        )
        for i, report in enumerate(reports)
    ]
    codes = [process.wait() for process in processes]
    # 1: tests failed, which the reports tell
    if any(code not in (0, 1) for code in codes) or not all(report.exists() for report in reports):
        sys.exit(f'pytest could not run the tests (exit codes {codes}).')
    return [case for report in reports for case in ElementTree.parse(report).iter('testcase')]


def main() -> None:
    """Fetch, run, count and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='processes side by side (all cores)')
    parser.add_argument('--sdist', type=Path, help='source distribution of timm, instead of downloading it')
    args = parser.parse_args()

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = extract_tests(args.sdist or fetch_sdist(folder), folder)
        cases = run_tests(root, max(1, args.jobs))

    expected = expected_tests()
    collected = Counter(case.get('name', '').partition('[')[0] for case in cases)
    failed = [c for c in cases if c.find('failure') is not None or c.find('error') is not None]
    skipped = [c for c in cases if c.find('skipped') is not None]
    seconds = Counter[str]()
    for case in cases:
        seconds[case.get('name', '').partition('[')[0]] += float(case.get('time', 0))  # type: ignore[assignment]

    print(f'\ntimm {timm.__version__}, tests/test_models.py, models widehrnet*:')
    for test in sorted(expected | collected):
        print(f'  {collected[test]:4} of {expected[test]:4}  {seconds[test]:6.1f} s  {test}')
    passed = len(cases) - len(failed) - len(skipped)
    print(
        f'{passed} passed, {len(failed)} failed, {len(skipped)} skipped, {len(cases)} collected of '
        f'{expected.total()} expected, {time.monotonic() - start:.0f} s.'
    )
    for case in failed + skipped:
        print(f'  {"skipped" if case in skipped else "failed"}: {case.get("name")}')
    if not cases or failed or skipped or collected != +expected:
        sys.exit("timm's own tests: NOT a pass.")
    print("timm's own tests: pass.")


if __name__ == '__main__':
    main()
