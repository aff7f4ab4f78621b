"""The model card, from made-up labels and predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
from load_script import script
from PIL import Image

pytest.importorskip('pycocotools')
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.evaluation.run import Protocol, evaluate
from widehrnet_zoo.pose.skeletons import SKELETONS

ROOT = Path(__file__).resolve().parents[1]
COCO = SKELETONS['coco']
NAME = 'widehrnet_18_attn.people_128x96'


@pytest.fixture(scope='module')
def model_card():
    return script('model_card')


@pytest.fixture
def run(tmp_path):
    """Labels of 20 people; 10 found exactly, 10 with the right arm and all of the legs far off."""
    random = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for i in range(1, 21):
        points = random.uniform(20, 180, (17, 2))
        points[6], points[11] = (60, 60), (100, 120)  # right shoulder and left hip: a torso of 72 pixels
        found = points.copy()
        if i > 10:
            found[[8, 10, *range(13, 17), 1, 2, 3, 4]] += 60
        images.append({'id': i, 'file_name': f'{i}.jpg', 'width': 200, 'height': 200, 'source': 'sport'})
        flat = np.concatenate([points, np.full((17, 1), 2)], 1).ravel().tolist()
        annotations.append(
            {
                'id': i,
                'image_id': i,
                'category_id': 1,
                'keypoints': flat,
                'num_keypoints': 17,
                'bbox': [20, 20, 160, 160],
                'area': 9000,
                'iscrowd': 0,
            }
        )
        rows = np.concatenate([found, np.full((17, 1), 0.9)], 1).ravel().tolist()
        results.append({'image_id': i, 'category_id': 1, 'keypoints': rows, 'score': 0.9, 'ann': i})
    labels = tmp_path / 'labels.json'
    category = {'id': 1, 'name': 'person', 'keypoints': list(COCO.keypoints)}
    labels.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': [category]}))
    (tmp_path / 'found.json').write_text(json.dumps(results))
    evaluate(Protocol.published('pck'), labels, results=tmp_path / 'found.json', out=tmp_path / 'run', draws=50)
    return tmp_path / 'run', labels


@pytest.fixture
def facts(model_card):
    words = {key: f'{key} of the test' for key in model_card.FACTS}
    return {**words, 'hours': 3.5, 'limits': ['One.', 'Two.'], 'reproduce': 'widehrnet train people_128x96'}


def test_card_has_figures_by_joint_with_intervals_and_both_grids(model_card, run, facts, tmp_path):
    file = model_card.write_card(NAME, *run, facts, tmp_path / 'docs', draws=200)
    text = file.read_text()
    assert file == tmp_path / 'docs' / 'weights' / f'{NAME}.md'
    row = {line.split('|')[1].strip(): line for line in text.splitlines() if line.startswith('| ')}
    assert '1.000 [1.000, 1.000] | 20 |' in row['left_shoulder']
    assert '0.500 [' in row['right_wrist'] and row['right_wrist'].count('| - |') == 1  # no human labels here
    low, high = (float(v) for v in row['right_wrist'].split('[')[1].split(']')[0].split(','))
    # a share of 10 in 20: 1.96 standard deviations are 0.22
    assert low == pytest.approx(0.28, abs=0.07) and high == pytest.approx(0.72, abs=0.07)
    assert 'from the 10 people\nwith every keypoint right' in text and 'from the 10 with at most half' in text
    assert '3.5 machine-hours on machine of the test' in text and '- One.\n- Two.' in text
    for kind in ('successes', 'failures'):
        picture = Image.open(tmp_path / 'docs' / 'images' / 'weights' / f'{NAME}.{kind}.png').convert('RGB')
        assert len(picture.getcolors(100_000)) > 5


def test_figures_by_joint_are_those_of_the_evaluation_together(model_card, run):
    joints = model_card.Joints(model_card.read_labels(run[1]), json.loads((run[0] / 'results.json').read_text()))
    report = json.loads((run[0] / 'report.json').read_text())
    body = [joints.figures()[f'fused {name}'] for name in model_card.BODY]
    assert np.mean(body) == pytest.approx(report['figures']['PCK@0.2 torso, sport'])


def test_grid_draws_labels_and_predictions_where_they_are(model_card, run):
    joints = model_card.Joints(model_card.read_labels(run[1]), json.loads((run[0] / 'results.json').read_text()))
    exact = np.asarray(model_card.grid(joints, np.array([0])))
    wrong = np.asarray(model_card.grid(joints, np.array([15])))
    grey = np.abs(exact.astype(int) - model_card.LABEL).sum(2) < 30
    grey_wrong = np.abs(wrong.astype(int) - model_card.LABEL).sum(2) < 30
    assert grey_wrong.sum() > 1.2 * grey.sum()  # a label shows beside a wrong prediction, and hides under a right one


@pytest.mark.parametrize(
    ('change', 'said'),
    [({'hours': None}, 'hours is missing'), ({'limits': []}, 'limits is missing'), ({'x': 1}, 'x is unknown')],
)
def test_facts_that_are_not_filled_in_are_named(model_card, facts, tmp_path, change, said):
    file = tmp_path / 'facts.json'
    file.write_text(json.dumps({**facts, **change}))
    with pytest.raises(UserError, match=said):
        model_card.read_facts(file)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'intervals': {}}, 'bootstrap'),
        ({'switches': {'protocol': 'coco'}}, 'protocol pck'),
        ({'subject': {'model': 'widehrnet_30_attn.people_128x96, input 128x96'}}, 'not widehrnet_18_attn'),
    ],
)
def test_run_of_another_kind_or_variant_makes_no_card(model_card, run, facts, tmp_path, change, said):
    folder, labels = run
    report = json.loads((folder / 'report.json').read_text())
    (folder / 'report.json').write_text(json.dumps({**report, **change}))
    with pytest.raises(UserError, match=said):
        model_card.write_card(NAME, folder, labels, facts, tmp_path / 'docs')
    assert not (tmp_path / 'docs').exists()
