"""Everyone in a photo: detectors, limits, and each person once."""

import json
import subprocess
import sys

import numpy as np
import pytest
from dots import COCO, DOTS, SIZE, ReadsDots, dots, dotted_set, light, photo
from PIL import Image

import widehrnet_zoo.inference.estimator as estimator_module
from widehrnet_zoo import PoseEstimator
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.detection import finder_ships, open_detector
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.inference import detectors
from widehrnet_zoo.inference.people import (
    Limits,
    Poses,
    choose_boxes,
    choose_people,
    distinct_people,
    likely_people,
    merge_looks,
    person_chances,
    take_people,
)
from widehrnet_zoo.inference.photo import Photo
from widehrnet_zoo.pose.crops import box_views, crop_people, mirror_views
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import Skeleton


class Everybody:
    """A detector that knows where the dotted people are, and keeps how many photos it was shown at a time."""

    def __init__(self, extra=(), score=0.9):
        self.batches, self.extra, self.score = [], extra, score

    def __call__(self, image):
        return self.find([image])[0]

    def find(self, images):
        self.batches.append(len(images))
        found = []
        for image in images:
            people = image.shape[1] // 350 if image.std() > 0 else 0
            boxes = [(90 + 350 * i, 30, 250 + 350 * i, 350) for i in range(people)]
            boxes += [*self.extra] if people else []
            found.append((np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), self.score)))
        return found


def human(detector, **options):
    backend = ReadsDots()
    backend.skeleton = COCO
    return PoseEstimator(backend=backend, detector=detector, **options)


NOBODY = np.full((400, 350, 3), 128, np.uint8)


def test_score_of_a_person_by_hand():
    result = PoseResult(
        keypoints=np.zeros((2, 3, 2), np.float32),
        scores=np.array([[0.9, 0.5, 0.1], [0.0, -0.1, 0.0]], np.float32),
        boxes=np.array([[0, 0, 9, 9]] * 2, np.float32),
        box_scores=np.array([0.5, 1.0], np.float32),
        skeleton=Skeleton('three', ('a', 'b', 'c')),
        image_size=(10, 10),
    )
    # (0.81 + 0.25 + 0.01) / (0.9 + 0.5 + 0.1); nothing seen is 0
    np.testing.assert_allclose(result.person_scores, [0.5**0.5 * 1.07 / 1.5, 0], rtol=1e-5)


def test_everyone_is_found_and_all_crops_go_through_the_network_together():
    detector = Everybody()
    estimator = dots(detector=detector, batch_size=16, second_look=False)
    photos = [photo(n, seed=n) for n in (3, 1, 2)]
    results = estimator([photos[0][0], NOBODY, photos[1][0], photos[2][0]])
    assert [len(r) for r in results] == [3, 0, 1, 2]
    for result, (_, keypoints, boxes) in zip([results[0], *results[2:]], photos, strict=True):
        order = np.argsort(result.boxes[:, 0])  # the highest score comes first
        np.testing.assert_array_equal(result.boxes[order], boxes.astype(np.float32))
        assert np.abs(result.keypoints[order] - keypoints).max() < 5
        assert (np.diff(result.person_scores) <= 0).all()
    assert detector.batches == [4] and estimator.backend.batches == [6]


def test_boxes_that_are_given_switch_the_detector_off_and_none_is_the_whole_photo():
    image, _, boxes = photo(2)
    detector = Everybody()
    estimator = dots(detector=detector)
    assert len(estimator(image, boxes[:1])) == 1 and len(estimator(image, [])) == 0 and not detector.batches
    assert len(estimator(image)) == 2
    whole = estimator(photo()[0], detector=None)
    assert len(whole) == 1 and len(detector.batches) == 1
    np.testing.assert_array_equal(whole.keypoints, dots(detector=None)(photo()[0]).keypoints)
    assert len(dots(detector=None)(image, detector=lambda image: (boxes[1:], [1.0]))) == 1


def test_a_detector_is_the_default_for_human_skeletons_where_it_ships(monkeypatch):
    opened = []

    def opens(name, device, threshold, engine):
        opened.append((name, threshold))
        return Everybody()

    monkeypatch.setattr(detectors, 'open_detector', opens)
    monkeypatch.setattr(detectors, 'finder_ships', lambda: True)
    assert light().detector() is not None and human('auto').detector() is not None
    assert dots().detector() is None  # of other keypoints
    assert dots(detector='default').detector() is not None
    opened.clear()
    estimator = human('auto', box_threshold=0.4)
    assert not opened  # until a photo comes without boxes
    estimator(photo()[0], photo()[2])
    assert not opened
    estimator([photo()[0]] * 2)
    estimator(photo()[0], box_threshold=0.6)
    assert opened == [('default', 0.4), ('default', 0.6)]
    monkeypatch.setattr(detectors, 'finder_ships', lambda: False)
    assert human('auto').detector() is None and len(human('auto')(photo(2)[0])) == 1


@pytest.mark.skipif(finder_ships(), reason='the person finder is here')
def test_without_the_finder_the_default_is_said_to_be_missing():
    with pytest.raises(UserError, match='not in this installation'):
        PoseEstimator(backend=ReadsDots(), detector='default')
    with pytest.raises(UserError, match='not in this installation'):
        open_detector('default')


def test_the_chance_of_a_person_grows_with_all_that_speaks_for_one():
    rng = np.random.default_rng(0)
    scores, box_scores, boxes = rng.random((200, 17)), rng.random(200), rng.random((200, 4)) * 90
    boxes[:, 3] += boxes[:, 1]
    chances = person_chances(scores, box_scores, boxes)
    assert 0 < chances.min() < 0.1 < 0.9 < chances.max() < 1
    higher = np.add(boxes, [0, 0, 0, 20])
    for more in ((scores + 0.1, box_scores, boxes), (scores, box_scores + 0.1, boxes), (scores, box_scores, higher)):
        assert (person_chances(*more) > chances).mean() > 0.5 and (person_chances(*more) >= chances).all()
    assert person_chances(np.zeros((1, 17)), [1], [[0, 0, 99, 999]])[0] < 0.001
    assert person_chances(np.full((1, 17), 0.5), [0], [[0, 0, 9, 9]])[0] < 0.001
    assert person_chances(np.zeros((0, 17)), [], []).shape == (0,)


def test_box_scores_of_found_people_are_the_chance_that_somebody_is_there():
    image, _, boxes = photo(2)
    backend = ReadsDots()
    backend.score_map = {'peaks': [0, 1], 'chances': [0, 1]}
    estimator = PoseEstimator(backend=backend, detector=lambda image: (boxes, [0.3, 0.9]), second_look=False)
    found, given = estimator(image), estimator(image, boxes)
    order = [boxes.tolist().index(box) for box in found.boxes.tolist()]
    expected = person_chances(found.scores, np.array([0.3, 0.9])[order], found.boxes)
    np.testing.assert_allclose(found.box_scores, expected)
    assert sorted(order) == [0, 1] and (found.box_scores > 0.5).all() and (given.box_scores == 1).all()
    peaks = dots(detector=lambda image: (boxes, [0.3, 0.9]))(image)
    np.testing.assert_allclose(sorted(peaks.box_scores), [0.3, 0.9], rtol=1e-6)


def test_beside_somebody_less_is_asked_of_the_others():
    boxes, scores = np.float32([[0, 0, 60, 130], [200, 0, 260, 130]]), np.float32([[0.9] * 17, [0.42] * 17])
    chances = person_chances(scores, [0.8, 0.5], boxes)
    assert chances[0] > 0.43 > chances[1] > 0.25
    keypoints = np.random.default_rng(0).random((2, 17, 2), np.float32) * 60 + boxes[:, None, :2]
    both = PoseResult(keypoints, scores, boxes, np.float32([0.8, 0.5]), COCO, (400, 200))
    rest = take_people(both, np.array([1]))
    assert len(choose_people(both, Limits())) == 2 and len(choose_people(rest, Limits())) == 0
    assert len(choose_people(both, Limits(pose_threshold=0.4))) == 1
    assert len(choose_people(rest, Limits(pose_threshold=0.2))) == 1


def test_limits():
    image, _, _ = photo(4)
    small = (10, 10, 30, 33)
    large = (0, 0, 1400, 400)
    estimator = dots(detector=Everybody([small]), same_person=1)
    assert len(estimator(image)) == 4
    assert len(estimator(image, min_size=20, pose_threshold=0)) == 5
    assert len(estimator(image, max_people=3)) == 3
    assert len(estimator(image, pose_threshold=0.95)) == 0
    assert len(estimator(image, box_threshold=0.95)) == 0
    found = estimator(image, detector=Everybody([large]), largest=True, pose_threshold=0)
    np.testing.assert_array_equal(found.boxes, [large])
    rows = choose_boxes(np.array([[0, 0, 50, 50]] * 9), np.arange(9) / 9, Limits(max_people=2))
    assert rows.tolist() == [8, 7, 6, 5]  # the crops of a crowd are not all cut for two people


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'max_people': 0}, 'max_people'),
        ({'max_people': 1.5}, 'max_people'),
        ({'min_size': -1}, 'min_size'),
        ({'pose_threshold': 3}, 'pose_threshold'),
        ({'box_threshold': float('nan')}, 'box_threshold'),
        ({'same_person': None}, 'same_person'),
        ({'largest': 'no'}, 'largest'),
        ({'second_look': 0}, 'second_look'),
    ],
)
def test_wrong_limits_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        dots(**options)
    with pytest.raises(UserError, match=message):
        dots()(NOBODY, **options)


def test_the_help_has_the_limits_that_hold(capsys):
    with pytest.raises(SystemExit):
        main(['predict', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    first, others = Limits().least_scores(chances=True)
    assert f'default: {others} in a photo where somebody reaches {first},' in text
    assert f'of a shorter box (default: {Limits().min_size:g})' in text


def test_unknown_arguments_and_detectors_are_refused():
    with pytest.raises(TypeError, match='max_persons'):
        dots(max_persons=3)
    with pytest.raises(UserError, match='not a detector'):
        dots(detector='yolo')
    with pytest.raises(UserError, match='A detector is'):
        dots(detector=3)
    with pytest.raises(UserError, match='not a detector'):
        dots()(NOBODY, detector='yolo')


def test_a_detector_that_fails_on_one_photo_costs_the_others_nothing():
    def find(image):
        if image.shape[1] == 700:
            raise UserError('not this one')
        return Everybody()(image)

    batch = {'__call__': lambda self, image: find(image), 'find': lambda self, images: [find(i) for i in images]}
    photos = [Photo(photo(n)[0]) for n in (1, 2, 3)]
    for chosen in (find, type('Batch', (), batch)()):
        failed = []
        found = list(dots(detector=chosen).look(photos, skip=lambda place, error, f=failed: f.append(place)))
        assert failed == [1] and [(f.place, len(f.result)) for f in found] == [(0, 1), (2, 3)]


def test_photos_with_boxes_do_not_pile_up_behind_one_without():
    image, _, boxes = photo()
    detector = Everybody()
    taken = []

    def photos():
        for place in range(60):
            taken.append(place)
            yield Photo(image, None if place == 0 else boxes)

    for found in dots(detector=detector, batch_size=4).look(photos(), workers=0):
        assert taken[-1] - found.place < 20
        assert len(found.result) == 1
    assert len(taken) == 60 and detector.batches == [1]


def skeleton_poses(*rows):
    """Poses of COCO's keypoints: (x, y, size, sure keypoints) each."""
    base = np.random.default_rng(3).uniform(0, 1, (17, 2)) * (0.5, 1)
    keypoints = np.array([np.array([x, y]) + size * base for x, y, size, _ in rows])
    scores = np.array([np.where(np.arange(17) < sure, 0.8, 0.1) for *_, sure in rows])
    boxes = np.array([[x, y, x + size / 2, y + size] for x, y, size, _ in rows])
    return keypoints, scores, boxes


def test_one_person_never_gets_two_skeletons():
    keypoints, scores, boxes = skeleton_poses((50, 50, 200, 17), (50, 50, 200, 11), (300, 50, 200, 17))
    # the box of the upper half: eleven keypoints agree, the legs are guesses elsewhere
    keypoints[1, :11] += 2
    keypoints[1, 11:] += 80
    boxes[1, 3] = 150
    kept = distinct_people(Poses(keypoints, scores, boxes), np.array([0.7, 0.9, 0.5]), COCO.sigmas, 0.6)
    assert kept.tolist() == [0, 2]
    assert len(distinct_people(Poses(keypoints, scores, boxes), np.ones(3), COCO.sigmas, 1)) == 3


def test_the_last_digits_of_found_boxes_change_no_crop():
    image, _, boxes = photo(1)
    more, less = (dots(detector=lambda _, by=by: (boxes + by, [0.9]))(image) for by in (1e-5, -1e-5))
    np.testing.assert_array_equal(more.keypoints, less.keypoints)


def test_the_pose_of_two_looks_is_that_of_both():
    image, keypoints, boxes = photo(2)
    rough = np.add(boxes[:1], [-70, -25, 80, 40])
    estimator = dots(detector=lambda image: (rough, [0.9]))
    once, twice = estimator(image, second_look=False), estimator(image)
    assert estimator.backend.batches == [1, 1, 1]
    np.testing.assert_array_equal(once.boxes, rough.astype(np.float32))
    assert (twice.boxes[0, :2] > boxes[0, :2] - 30).all() and (twice.boxes[0, 2:] < boxes[0, 2:] + 30).all()
    assert np.abs(twice.keypoints - keypoints[:1]).mean() < 0.8 * np.abs(once.keypoints - keypoints[:1]).mean()

    first = np.zeros((3, 2)), np.array([0.6, 0.6, 0.2])
    second = np.array([[4.0, 0], [90, 0], [90, 0]]), np.full(3, 0.3)
    points, scores = merge_looks(first, second, np.array([0, 0, 100, 100]), None)
    # they agree: the mean, weighted by scores; they do not: the surer one
    np.testing.assert_allclose(points, [[4 / 3, 0], [0, 0], [90, 0]])
    np.testing.assert_allclose(scores, [0.45, 0.3, 0.1])


def test_of_a_crowd_five_are_looked_at_again():
    image, _, boxes = photo(12)
    estimator = dots(detector=lambda image: (boxes, np.linspace(0.5, 0.9, 12)))
    result = estimator(image)
    assert sum(estimator.backend.batches) == 12 + 5 and len(result) == 12
    once = dots(detector=None)(image, boxes, np.linspace(0.5, 0.9, 12))
    surest = np.argsort(-once.person_scores)
    assert likely_people(once, Limits(), chances=False).tolist() == surest.tolist()


def test_a_child_in_front_of_a_grown_up_stays():
    keypoints, scores, boxes = skeleton_poses((50, 50, 300, 17), (90, 200, 120, 17))
    assert len(distinct_people(Poses(keypoints, scores, boxes), np.ones(2), COCO.sigmas, 0.6)) == 2


@pytest.mark.parametrize('size', [(20, 20), (1200, 120), (120, 1200), (1, 1)])
def test_odd_photos_and_boxes_over_their_border(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)

    def everywhere(image):
        height, width = image.shape[:2]
        return [[-9, -9, width + 9, height + 9], [0, 0, 1, 1], [width - 1, 0, width + 50, height]], [0.9, 0.8, 0.7]

    result = human(everywhere)(image)
    assert len(result) == 0  # noise is nobody
    assert len(human(everywhere, pose_threshold=0, min_size=0, same_person=1)(image)) >= 1


def test_the_command_counts_photos_of_nobody(tmp_path, monkeypatch, capsys):
    backend = ReadsDots()
    backend.skeleton = COCO
    monkeypatch.setattr(estimator_module, 'open_backend', lambda *args, **options: backend)
    monkeypatch.setattr(detectors, 'open_detector', lambda *args: Everybody())
    for name, pixels in (('a', photo(2)[0]), ('b', NOBODY), ('c', photo(1)[0])):
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    command = ['predict', str(tmp_path / '*.png'), '--quiet', '--format', 'csv', '--format', 'coco']
    out = tmp_path / 'out'
    assert main([*command, '--out', str(out), '--detector', 'torchvision']) == 0
    assert f'3 photos, 3 people, 1 photo of nobody: {out}' in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [f'{n}_pose.{e}' for n in 'abc' for e in ('jpg', 'json')] + ['poses.csv', 'poses_coco.json']
    )
    assert main([*command, '--out', str(out), '--detector', 'torchvision', '--max-people', '1', '--largest']) == 0
    assert '3 photos, 2 people, 1 photo of nobody' in capsys.readouterr().out
    (tmp_path / 'boxes.json').write_text(json.dumps({'a.png': [[90, 30, 250, 350, 0.6]], 'b.png': [], 'c.png': []}))
    monkeypatch.undo()
    monkeypatch.setattr(estimator_module, 'open_backend', lambda *args, **options: backend)
    assert main([*command, '--out', str(out), '--detector', str(tmp_path / 'boxes.json')]) == 0
    assert '3 photos, 1 person, 2 photos of nobody' in capsys.readouterr().out
    assert main([*command, '--out', str(out), '--detector', 'none']) == 0
    assert '3 photos, 3 people: ' in capsys.readouterr().out
    assert main([*command, '--out', str(out), '--max-people', '0']) == 2
    assert 'max_people' in capsys.readouterr().err


def test_eval_of_whole_photos_counts_as_the_reference_does(tmp_path, monkeypatch, capsys):
    pytest.importorskip('pycocotools')

    data = dotted_set(tmp_path)
    labels = json.loads(data.read_text())
    labels['images'].append({'id': 9, 'file_name': '9.png', 'width': 350, 'height': 400})
    Image.fromarray(NOBODY).save(tmp_path / '9.png')
    data.write_text(json.dumps(labels))
    backend = ReadsDots()
    backend.skeleton = COCO
    backend.size = SIZE
    monkeypatch.setattr(estimator_module, 'open_backend', lambda *args, **options: backend)

    def detector(image):
        if image.std() == 0:
            return [], []
        # one person, the same one loosely, and nobody
        return [[40, 20, 240, 370], [50, 30, 250, 300], [500, 300, 640, 400]], [0.9, 0.8, 0.7]

    monkeypatch.setattr(detectors, 'open_detector', lambda *args: detector)
    command = ['eval', '--data', str(data), '--images', str(tmp_path), '--detector', 'torchvision', '--quiet']
    assert main([*command, '--out', str(tmp_path / 'out'), '--pose-threshold', '0']) == 0
    said = capsys.readouterr().out
    assert '| people found |' in said and '3 of 6 people found, 3 of 6 poses false, in 4 photos' in said
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert report['figures']['people found'] == 0.5 and report['figures']['false poses'] == 0.5
    assert report['switches']['boxes'] == 'detector torchvision' and report['switches']['pose_threshold'] == 0
    assert main([*command, '--protocol', 'pck']) == 2 and main([*command, '--boxes', 'x.json']) == 2

    # photos of nobody alone, and a detector that found nobody
    (tmp_path / 'nobody.json').write_text(json.dumps({**labels, 'annotations': []}))
    command[2] = str(tmp_path / 'nobody.json')
    assert main([*command, '--pose-threshold', '0', '--bootstrap', '5']) == 0
    assert '0 of 0 people found, 6 of 6 poses false, in 4 photos' in capsys.readouterr().out
    # without the option it is said what holds
    assert main(command) == 0
    assert 'pose_threshold=0.15,' in capsys.readouterr().out
    (tmp_path / 'empty.json').write_text('[]')
    by_boxes = ['eval', '--model', 'x', '--images', str(tmp_path), '--boxes', str(tmp_path / 'empty.json'), '--quiet']
    assert main([*by_boxes, '--data', str(data), '--out', str(tmp_path / 'none')]) == 0
    assert json.loads((tmp_path / 'none/report.json').read_text())['figures']['AP'] == 0


def test_the_shipped_count_agrees_with_the_reference(shared, tmp_path):
    pytest.importorskip('pycocotools')
    from widehrnet_zoo.formats.coco import read_labels
    from widehrnet_zoo.metrics.coco import CocoScore
    from widehrnet_zoo.metrics.everyone import EveryoneScore

    data = shared / 'everyday/val.json'
    random, results = np.random.default_rng(0), []
    for annotation in json.loads(data.read_text())['annotations']:
        points = np.reshape(annotation['keypoints'], (17, 3)).astype(float)
        points[:, :2] += random.normal(0, random.choice([0.02, 0.3, 1]), (17, 2)) * annotation['bbox'][3]
        points[:, 2] = random.uniform(0, 1, 17)
        entry = {'image_id': annotation['image_id'], 'category_id': 1, 'score': random.random()}
        results.append({**entry, 'keypoints': points.ravel().tolist()})
    (tmp_path / 'results.json').write_text(json.dumps(results))
    command = [sys.executable, str(shared / 'everyday/score_everyone.py'), str(data), str(tmp_path / 'results.json')]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    labels = read_labels(data)
    score = EveryoneScore(labels, results, COCO.sigmas)
    people, found, poses, false = score.counts.sum(0)
    average = CocoScore(labels, results, COCO.sigmas).figures()['AP']
    assert said.startswith(f'people found {found} of {people} ({found / people:.3f})')
    assert f'false poses {false} of {poses} ({false / poses:.3f}), end-to-end OKS AP {average:.3f}' in said


def test_a_second_look_is_at_the_mirrored_crop():
    image, _, boxes = photo(1)
    views = box_views(boxes, SIZE)
    mirrored = crop_people(image, mirror_views(views, SIZE), SIZE)
    np.testing.assert_array_equal(mirrored, crop_people(image, views, SIZE)[:, :, ::-1])

    class Sees(ReadsDots):
        """Finds its dots whichever way round the crop is: in a mirrored one the two of a pair have changed places."""

        def __init__(self, pairs):
            super().__init__()
            self.skeleton, self.crops = Skeleton('dots', DOTS.keypoints, pairs), []

        def __call__(self, images):
            self.crops.append(images)
            heatmaps = super().__call__(images)
            return heatmaps[:, self.skeleton.flip_order] if len(self.crops) == 2 else heatmaps

    plain, paired = Sees(()), Sees(((5, 6),))
    results = [
        PoseEstimator(backend=backend, detector=lambda image: (boxes, [0.9]), pose_threshold=0)(image)
        for backend in (plain, paired)
    ]
    np.testing.assert_allclose(paired.crops[1], plain.crops[1][..., ::-1], atol=1 / 255)
    np.testing.assert_allclose(results[0].keypoints, results[1].keypoints, atol=1.5)
