"""Publish weights of our own on the Hugging Face Hub, with their card and its pictures.

    hf auth login
    python scripts/weights/publish_weights.py widehrnet_10_attn.people_256x192 OWNER/widehrnet_10_attn.people_256x192

After it `create_model('hf-hub:OWNER/widehrnet_10_attn.people_256x192', pretrained=True)` is the same network.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard

import widehrnet_zoo
from widehrnet_zoo.hub import push_to_hub
from widehrnet_zoo.weights.licenses import OWN
from widehrnet_zoo.weights.shipped import shipped_entry

CARDS = Path(__file__).resolve().parents[2] / 'docs' / 'weights'


def publish(name: str, repo_id: str, private: bool = False) -> str:
    """Push weights as they were released, in float16, and their card.

    Args:
        name: `variant.tag` of weights of our own.
        repo_id: `org/name`.
        private: Whether a new repository is private.

    Returns:
        The last commit's id.
    """
    results = [
        EvalResult(
            task_type='keypoint-detection',
            dataset_type='people',
            dataset_name='people val',
            metric_type='oks-ap' if 'OKS' in figure else 'pck',
            metric_name=figure,
            metric_value=value,
        )
        for figure, value in shipped_entry(name)['metrics'].items()
    ]
    model = widehrnet_zoo.create_model(name, pretrained=True).half()
    push_to_hub(model, repo_id, results=results, license=OWN, private=private)
    api = HfApi()
    text = (CARDS / f'{name}.md').read_text()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for picture in re.findall(r'\((\.\./images/[^)]+)\)', text):
            (folder / Path(picture).name).write_bytes((CARDS / picture).read_bytes())
            text = text.replace(f'({picture})', f'({Path(picture).name})')
        about = ModelCard.load(repo_id).data
        (folder / 'README.md').write_text(f'---\n{about.to_yaml()}\n---\n\n{text}')
        return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message='Model card').oid


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='variant.tag')
    parser.add_argument('repo_id', metavar='OWNER/NAME')
    parser.add_argument('--private', action='store_true')
    args = parser.parse_args()
    if 'metrics' not in shipped_entry(args.name) or not (CARDS / f'{args.name}.md').exists():
        sys.exit(f'{args.name}: there are no weights of our own by this name with a card in {CARDS}.')
    commit = publish(args.name, args.repo_id, args.private)
    sys.stdout.write(f"create_model('hf-hub:{args.repo_id}@{commit}', pretrained=True)\n")


if __name__ == '__main__':
    main()
