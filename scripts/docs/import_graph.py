"""Draw who imports whom among the folders of the package, in docs/concepts.md.

    python scripts/docs/import_graph.py

An arrow is left out where a longer way says the same.
"""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'widehrnet_zoo'
PAGE = ROOT / 'docs' / 'concepts.md'
NO_CODE = {'configs', 'samples', 'space'}
START, END = '<!-- by scripts/docs/import_graph.py -->\n', '<!-- end -->\n'


def modules() -> dict[str, Path]:
    """Each module by its dotted name, the package itself as ''."""
    files = [file for file in PACKAGE.rglob('*.py') if not set(file.relative_to(PACKAGE).parts) & NO_CODE]
    return {
        '.'.join(f.relative_to(PACKAGE).with_suffix('').parts).removesuffix('__init__').rstrip('.'): f for f in files
    }


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the package, anywhere in its text: in functions and under TYPE_CHECKING too."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        package = name.split('.') if file.name == '__init__.py' else name.split('.')[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names = [alias.name.split('.') for alias in node.names]
                targets = ['.'.join(parts) for first, *parts in names if first == 'widehrnet_zoo']
            elif isinstance(node, ast.ImportFrom):
                above = list(filter(None, package[: len(package) - node.level + 1])) if node.level else []
                parts = (node.module or '').split('.')
                if not node.level and parts.pop(0) != 'widehrnet_zoo':
                    continue
                home = '.'.join(filter(None, [*above, *parts]))
                inner = [f'{home}.{alias.name}'.lstrip('.') for alias in node.names]
                targets = [i if i in known else home for i in inner]
            else:
                continue
            found[name] |= set(targets) - {name}
    return found


def arrows() -> list[tuple[str, str]]:
    """Pairs of a folder and one that it imports from, without those that follow from others."""
    folders = {file.parent.name for file in PACKAGE.glob('*/__init__.py')} - NO_CODE
    direct: dict[str, set[str]] = {folder: set() for folder in folders}
    for name, targets in imports().items():
        own = name.partition('.')[0]
        direct.get(own, set()).update({t.partition('.')[0] for t in targets} & folders - {own})

    def reach(folder: str) -> set[str]:
        return direct[folder].union(*(reach(other) for other in direct[folder]))

    kept = {
        folder: {o for o in others if not any(o in reach(p) for p in others if p != o)}
        for folder, others in direct.items()
    }
    return sorted((folder, other) for folder, others in kept.items() for other in others)


def diagram() -> str:
    """The arrows as a Mermaid diagram."""
    lines = [f'  {other} --> {folder}' for folder, other in arrows()]
    return '\n'.join(['```mermaid', 'flowchart LR', *lines, '```', ''])


def page() -> str:
    """The page with the diagram as it is now."""
    before, rest = PAGE.read_text(encoding='utf-8').split(START)
    return before + START + diagram() + END + rest.split(END)[1]


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
