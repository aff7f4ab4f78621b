"""The model card, from made-up labels and predictions."""

import json

import numpy as np
import pytest
from load_script import script
from PIL import Image

pytest.importorskip('pycocotools')
pytest.importorskip('matplotlib')
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.evaluation.run import Protocol, evaluate
from widehrnet_zoo.pose.skeletons import SKELETONS

COCO = SKELETONS['coco']
NAME = 'widehrnet_18_attn.everyday_256x192'


@pytest.fixture
def model_card(monkeypatch):
    module = script('model_card')
    entry = {'padding': 1.1, 'score_map': {'peaks': [0, 1], 'chances': [0, 0.9]}}
    monkeypatch.setattr(module, 'shipped_entry', lambda name: entry)
    return module


@pytest.fixture
def data(tmp_path):
    """Labels of 20 people; 10 found exactly, 10 with the right arm and all of the legs far off."""
    random = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for i in range(1, 21):
        points = random.uniform(20, 180, (17, 2))
        points[6], points[11] = (60, 60), (100, 120)  # right shoulder and left hip: a torso of 72 pixels
        found = points.copy()
        if i > 10:
            found[[8, 10, *range(13, 17), 1, 2, 3, 4]] += 90
        images.append({'id': i, 'file_name': f'{i}.jpg', 'width': 200, 'height': 200, 'source': 'sport'})
        visible = np.full((17, 1), 2)
        visible[9:] = 2 if i != 1 else 0  # of the first person only head, shoulders and elbows
        annotations.append(
            {
                'id': i,
                'image_id': i,
                'category_id': 1,
                'keypoints': np.concatenate([points * (visible > 0), visible], 1).ravel().tolist(),
                'num_keypoints': int((visible > 0).sum()),
                'bbox': [20, 20, 160, 160],
                'area': 9000,
                'iscrowd': 0,
            }
        )
        rows = np.concatenate([found, np.full((17, 1), 0.9)], 1).ravel().tolist()
        results.append({'image_id': i, 'category_id': 1, 'keypoints': rows, 'score': 0.9, 'ann': i})
    category = {'id': 1, 'name': 'person', 'keypoints': list(COCO.keypoints)}
    found = tmp_path / 'found.json'
    found.write_text(json.dumps(results))
    for folder, protocol in (('everyday', 'coco'), ('people', 'pck'), ('once', 'pck')):
        if folder != 'once':
            labels = tmp_path / folder / 'val.json'
            labels.parent.mkdir()
            labels.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': [category]}))
        evaluate(Protocol.published(protocol), labels, results=found, out=tmp_path / 'run' / folder, draws=50)
    return tmp_path


@pytest.fixture
def facts(model_card):
    words = {key: f'{key} of the test' for key in model_card.FACTS}
    row = [10, 20, 'here', 'human', 'free']
    return {
        **words,
        'data': [row],
        'recipe': [['256x192', 1000, '1e-3', 3.5, '']],
        'tried': ['X.'],
        'limits': ['1.', '2.'],
    }


def test_card_has_figures_by_joint_person_and_score(model_card, data, facts):
    file = model_card.write_card(NAME, data / 'run', data, facts, data / 'docs', draws=200)
    text = file.read_text()
    row = {line.split('|')[1].strip(): line for line in text.splitlines() if line.startswith('| ')}
    assert '1.000 [1.000, 1.000] | 20 |' in row['left_shoulder']
    low, high = (float(v) for v in row['right_wrist'].split('[')[1].split(']')[0].split(','))
    # a share of 9 in 19: 1.96 standard deviations are 0.22
    assert low == pytest.approx(0.25, abs=0.08) and high == pytest.approx(0.7, abs=0.08)
    assert row['head and shoulders'] == '| head and shoulders | 1 | 1.000 | 1.000 |'
    assert row['whole'].startswith('| whole | 19 |')
    assert row['120 to 240 pixels high'].startswith('| 120 to 240 pixels high | 20 |')
    # 232 of 332 keypoints are right; peaks say 0.9, of which the map makes 0.81
    assert 'calibration error is 0.111 (peaks: 0.201)' in ' '.join(text.split())
    assert '| 256x192 | 1,000 | 1e-3 | 3.5 |  |' in text and '- 1.\n- 2.' in text and 'everyday AP |' in text
    for kind in ('successes', 'failures', 'scores'):
        picture = Image.open(data / 'docs' / 'images' / 'weights' / f'{NAME}.{kind}.png').convert('RGB')
        assert len(picture.getcolors(100_000)) > 5


def test_grid_draws_labels_and_predictions_where_they_are(model_card, data):
    results = json.loads((data / 'run' / 'everyday' / 'results.json').read_text())
    seen = model_card.People(model_card.read_labels(data / 'everyday' / 'val.json'), results)
    exact = np.asarray(model_card.grid(seen, np.array([1])))
    wrong = np.asarray(model_card.grid(seen, np.array([15])))
    grey = np.abs(exact.astype(int) - model_card.LABEL).sum(2) < 30
    grey_wrong = np.abs(wrong.astype(int) - model_card.LABEL).sum(2) < 30
    assert grey_wrong.sum() > 1.2 * grey.sum()  # a label shows beside a wrong prediction, and hides under a right one


@pytest.mark.parametrize(
    ('change', 'said'),
    [({'machine': None}, 'machine is missing'), ({'limits': []}, 'limits is missing'), ({'x': 1}, 'x is unknown')],
)
def test_facts_that_are_not_filled_in_are_named(model_card, facts, tmp_path, change, said):
    file = tmp_path / 'facts.json'
    file.write_text(json.dumps({**facts, **change}))
    with pytest.raises(UserError, match=said):
        model_card.read_facts(file, NAME, model_card.FACTS)


def test_run_of_another_variant_makes_no_card(model_card, data, facts):
    report_file = data / 'run' / 'everyday' / 'report.json'
    report = json.loads(report_file.read_text())
    report_file.write_text(
        json.dumps({**report, 'subject': {'model': 'widehrnet_30_attn.people_128x96, input 128x96'}})
    )
    with pytest.raises(UserError, match='not widehrnet_18_attn'):
        model_card.write_card(NAME, data / 'run', data, facts, data / 'docs')
    assert not (data / 'docs').exists()
