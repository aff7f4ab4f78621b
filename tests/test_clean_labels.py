"""Taking doubtful human labels out of the training set."""

import json
import sys
from pathlib import Path

import pytest
from load_script import script

AGREED, HUMAN = 1, 2


def person(image_id, kinds):
    # shoulders at y = 10, hips at y = 110: a torso of 100 pixels
    points = [[50.0, 10.0, 2] if i < 11 else [50.0, 110.0, 2] for i in range(17)]
    return {
        'id': image_id,
        'image_id': image_id,
        'bbox': [0, 0, 100, 200],
        'num_keypoints': 17,
        'keypoints': [v for point in points for v in point],
        'label_kind': kinds,
    }


def seen(annotation, moved):
    points = list(annotation['keypoints'])
    for index, dx in moved.items():
        points[3 * index] += dx
    return {'image_id': annotation['image_id'], 'category_id': 1, 'keypoints': points, 'score': 1.0}


@pytest.fixture
def clean(tmp_path, monkeypatch):
    clean_labels = script('clean_labels')

    def run(annotations, results):
        names = [str(tmp_path / name) for name in ('labels.json', 'results.json', 'clean.json')]
        for name, content in zip(names, ({'annotations': annotations}, results), strict=False):
            Path(name).write_text(json.dumps(content))
        monkeypatch.setattr(sys, 'argv', ['clean_labels.py', *names])
        clean_labels.main()
        return json.loads(Path(names[2]).read_text())['annotations']

    return run


def test_only_human_labels_beyond_reach_go(clean, capsys):
    one = person(1, [HUMAN] * 9 + [AGREED] * 8)
    moves = {7: 26.0, 8: 24.0, 13: 90.0}
    after = clean([one], [seen(one, moves)])[0]
    assert [i for i, v in enumerate(after['keypoints'][2::3]) if v == 0] == [7]
    assert after['num_keypoints'] == 16
    assert after['keypoints'][:21] == one['keypoints'][:21]
    assert after['share'] == 0.65
    assert '1 of 17 keypoints taken out' in capsys.readouterr().out


def test_nobody_loses_every_keypoint(clean):
    one = person(1, [HUMAN] * 17)
    for result, share in ((seen(one, dict.fromkeys(range(17), 90.0)), 1.0), (seen(one, {}), 0.3)):
        assert clean([one], [result])[0] == {**one, 'share': share, 'predicted': result['keypoints']}


def test_results_of_other_photos_are_refused(clean):
    one, other = person(1, [HUMAN] * 17), person(2, [HUMAN] * 17)
    with pytest.raises(SystemExit, match='nothing of image 1'):
        clean([one], [seen(other, {})])
