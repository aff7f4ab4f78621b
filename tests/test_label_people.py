"""What a model sees of people whom nobody labelled whole."""

import json
from dataclasses import replace

import numpy as np
from dots import DOTS, dots, photo
from load_script import script
from PIL import Image


def test_all_views_agree_on_dots_and_labelled_people_are_left_alone(tmp_path):
    image, keypoints, boxes = photo(2)
    Image.fromarray(image).save(tmp_path / 'a.png')
    people = [
        {'id': i, 'image_id': 1, 'bbox': [*box[:2], *(box[2:] - box[:2])], 'keypoints': [0, 0, 0] * 17}
        for i, box in enumerate(boxes)
    ]
    human = {**people[0], 'id': 9, 'labels': 'human', 'keypoints': [1, 1, 2] * 17}
    labels = {'images': [{'id': 1, 'file_name': 'a.png'}], 'annotations': [*people, human]}
    estimator = dots(skeleton=replace(DOTS, sigmas=(0.1,) * 17))
    entries = script('label_people').label(estimator, labels, tmp_path)
    assert [entry['id'] for entry in entries] == [0, 1]
    assert np.mean([entry['agree'] for entry in entries]) == 1
    found = np.array([entry['keypoints'] for entry in entries]).reshape(2, 17, 3)
    assert np.abs(found[..., :2] - keypoints).max() < 5
    json.dumps(entries)
