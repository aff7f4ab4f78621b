"""Several label files as one."""

import json
import sys

import numpy as np
import pytest
from load_script import script

from widehrnet_zoo.training.people import read_people


def labels(tmp_path, name, count, keypoints=('a', 'b'), **fields):
    folder = tmp_path / name
    (folder / 'images').mkdir(parents=True)
    images = [{'id': i, 'file_name': f'{i}.png', 'width': 9, 'height': 9} for i in range(count)]
    person = {'category_id': 7, 'iscrowd': 0, 'num_keypoints': 2, 'bbox': [0, 0, 5, 5], 'area': 9.0, **fields}
    people = [{**person, 'id': i, 'image_id': i, 'keypoints': [i, 1, 2, 3, 4, 2]} for i in range(count)]
    content = {'images': images, 'annotations': people}
    content['categories'] = [{'id': 7, 'name': 'person', 'keypoints': list(keypoints)}]
    (folder / 'labels.json').write_text(json.dumps(content))
    return [str(folder / 'labels.json'), str(folder / 'images')]


@pytest.fixture
def mix(tmp_path, monkeypatch):
    mix_labels = script('mix_labels')

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['mix_labels.py', str(tmp_path / 'runs' / 'mixed.json'), *args])
        mix_labels.main()
        return read_people(tmp_path / 'runs' / 'mixed.json', sample_field='share')

    (tmp_path / 'runs').mkdir()
    return run


def test_people_photos_and_weights_of_both(mix, tmp_path):
    first, second = labels(tmp_path, 'one', 2, share=0.5), labels(tmp_path, 'two', 3)
    people = mix(*first, *second, '--weights', '1', '0.3')
    assert people.files == tuple(f'../{name}/images/{i}.png' for name, n in (('one', 2), ('two', 3)) for i in range(n))
    assert len(set(people.ids)) == 5
    assert people.keypoints[:, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert np.allclose(people.sample_weights, [0.5, 0.5, 0.3, 0.3, 0.3])


def test_other_keypoints_and_half_a_pair_are_refused(mix, tmp_path):
    first, second = labels(tmp_path, 'one', 1), labels(tmp_path, 'two', 1, keypoints=('b', 'a'))
    with pytest.raises(SystemExit, match='other keypoints'):
        mix(*first, *second)
    for wrong in ([*first, second[0]], [*first, '--weights', '1', '2'], [first[0], 'nowhere']):
        with pytest.raises(SystemExit, match='2'):
            mix(*wrong)
