"""Video: clips go in, video and JSON lines come out."""

import json
import threading
import time

import numpy as np
import pytest
from clips import (
    COLOURS,
    OFFSETS,
    SKELETON,
    ReadsDots,
    encode,
    everybody,
    frames_of,
    lines_of,
    run,
    threads_of_video,
    walk,
)

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.boxes import BoxFile
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.inference.people import Limits
from widehrnet_zoo.video import predict_video
from widehrnet_zoo.video.clips import VideoReader
from widehrnet_zoo.video.follow import FollowConfig

av = pytest.importorskip('av')


def test_people_keep_their_numbers_and_their_keypoints_are_where_they_were_drawn(tmp_path):
    looks = []

    def detector(image):
        looks.append(1)
        return everybody(image)

    summary = run(encode(tmp_path / 'in.mp4'), tmp_path, detector=detector, follow=FollowConfig(detect_every=10))
    assert (summary.frames, summary.people, summary.problem) == (20, 2, None)
    assert len(looks) == 2  # frames 0 and 10; between, people are followed by their keypoints
    for entry in lines_of(tmp_path / 'out.jsonl'):
        frame = entry['frame']
        assert entry['time'] == pytest.approx(frame / 25, abs=1e-3)
        assert [p['id'] for p in entry['people']] == ([1] if frame < 10 else [1, 2])
        for person, centre in zip(entry['people'], walk(frame), strict=frame >= 10):
            found = [(k['x'], k['y']) for k in person['keypoints']]
            np.testing.assert_allclose(found, OFFSETS + centre, atol=1.5)
            assert [k['name'] for k in person['keypoints']] == list(SKELETON.keypoints)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in.mp4', 'out.jsonl', 'out.mp4']


def test_the_video_shows_the_source_with_the_people_drawn(tmp_path):
    pytest.importorskip('widehrnet_zoo.pose.drawing')
    run(encode(tmp_path / 'in.mp4'), tmp_path)
    before, _ = frames_of(tmp_path / 'in.mp4')
    after, reader = frames_of(tmp_path / 'out.mp4')
    assert len(after) == 20 and reader.num_frames == 20 and reader.problem is None
    difference = np.abs(after[5].image.astype(int) - before[5].image).sum(-1)
    x, y = walk(5)[0]
    assert difference[y - 30 : y + 31, x - 16 : x + 17].mean() > 10 * difference[150:, 150:].mean()


def test_uneven_time_stamps_are_kept(tmp_path):
    times = np.cumsum([0, 40, 40, 120, 33, 7, 500, 40]).tolist()
    run(encode(tmp_path / 'in.mp4', 8, times=times), tmp_path)
    expected = [f.time for f in frames_of(tmp_path / 'in.mp4')[0]]
    np.testing.assert_allclose(np.diff(expected), np.diff(times) / 1000, atol=1e-3)
    np.testing.assert_allclose([f.time for f in frames_of(tmp_path / 'out.mp4')[0]], expected, atol=1e-3)
    np.testing.assert_allclose([e['time'] for e in lines_of(tmp_path / 'out.jsonl')], expected, atol=1e-3)


def test_odd_sizes_grow_by_a_pixel_and_keypoints_stay(tmp_path):
    run(encode(tmp_path / 'in.mkv', 6, (239, 217)), tmp_path)
    frames, _ = frames_of(tmp_path / 'out.mp4')
    assert frames[0].image.shape == (218, 240, 3)
    entry = lines_of(tmp_path / 'out.jsonl')[3]
    assert entry['image_size'] == {'width': 239, 'height': 217}
    found = [(k['x'], k['y']) for k in entry['people'][0]['keypoints']]
    np.testing.assert_allclose(found, OFFSETS + walk(3)[0], atol=1.5)


@pytest.mark.parametrize('rotation', [90, -90, 180])
def test_a_turned_phone_gives_upright_frames(tmp_path, rotation):
    source = encode(tmp_path / 'in.mp4', 5, rotation=rotation)
    run(source, tmp_path, detector=None)
    with av.open(str(source)) as container:
        stored = next(container.decode(video=0))
        # the display matrix turns counterclockwise by `rotation`, as np.rot90 does
        assert stored.rotation == pytest.approx(rotation, abs=360) and (stored.rotation - rotation) % 360 == 0
        upright = np.rot90(stored.to_ndarray(format='rgb24'), rotation // 90)
    frames, _ = frames_of(tmp_path / 'out.mp4')
    assert frames[0].image.shape == upright.shape
    entry = lines_of(tmp_path / 'out.jsonl')[0]
    assert entry['image_size'] == {'width': upright.shape[1], 'height': upright.shape[0]}
    for point, colour in zip(entry['people'][0]['keypoints'], COLOURS, strict=True):
        assert np.abs(upright[round(point['y']), round(point['x'])].astype(int) - colour).max() < 40


def test_threads_give_what_one_thread_gives(tmp_path):
    source = encode(tmp_path / 'in.mp4', sound=True)
    drawn_in, drawn = set(), {'one': [], 'more': []}

    def draw(image, result):
        drawn_in.add(threading.current_thread())
        time.sleep(0.002)  # the frames before it pile up
        drawn[name].append(np.asarray(result.draw(image)))
        return drawn[name][-1]

    for name, threads in (('one', False), ('more', True)):
        drawn_in.clear()
        (tmp_path / name).mkdir()
        run(source, tmp_path / name, threads=threads, draw=draw)
        assert (threading.main_thread() in drawn_in) != threads and len(drawn_in) == 1
    assert (tmp_path / 'one' / 'out.jsonl').read_text() == (tmp_path / 'more' / 'out.jsonl').read_text()
    one, more = (frames_of(tmp_path / name / 'out.mp4')[0] for name in ('one', 'more'))
    assert len(one) == len(more) == 20
    assert [frame.pts for frame in one] == [frame.pts for frame in more]
    # before they are encoded, which libx264 does not do alike twice
    assert np.array_equal(drawn['one'], drawn['more'])
    assert threads_of_video() == []


@pytest.mark.parametrize('where', ['read', 'look', 'draw'])
def test_an_error_in_any_thread_comes_out_and_leaves_no_thread(tmp_path, where, monkeypatch):
    class Broken(Exception):
        pass

    def fail_at(number, function):
        calls = iter(range(100))

        def call(*args):
            if next(calls) == number:
                raise Broken(where)
            return function(*args)

        return call

    options = {}
    if where == 'read':
        monkeypatch.setattr(VideoReader, '_upright', fail_at(9, VideoReader._upright))
    elif where == 'look':
        options['on_frame'] = fail_at(9, lambda *args: None)
    else:
        options['draw'] = fail_at(9, lambda image, result: image)
    with pytest.raises(Broken, match=where):
        run(encode(tmp_path / 'in.mp4'), tmp_path, **options)
    assert threads_of_video() == []
    # nothing of the frames before is lost, and none after is there
    monkeypatch.undo()
    assert len(frames_of(tmp_path / 'out.part.mp4')[0]) == (10 if where == 'look' else 9)
    assert len(lines_of(tmp_path / 'out.jsonl.part')) >= 9


def test_what_the_detector_took_for_somebody_is_judged_as_in_photos(tmp_path):
    source = encode(tmp_path / 'in.mp4', 3)

    def unsure(image):
        boxes, _ = everybody(image)
        return boxes, [0.02] * len(boxes)

    # the root of 0.02 times keypoint scores of 0.9 is 0.13
    run(source, tmp_path, detector=unsure)
    assert [e['people'] for e in lines_of(tmp_path / 'out.jsonl')] == [[]] * 3
    run(source, tmp_path, detector=unsure, limits=Limits(pose_threshold=0.1))
    assert [len(e['people']) for e in lines_of(tmp_path / 'out.jsonl')] == [1] * 3


def test_without_a_detector_the_whole_frame_is_one_person(tmp_path):
    estimator = ReadsDots()
    source = encode(tmp_path / 'in.mp4', 6, where=lambda i: [(100 + 5 * i, 100)])
    summary = predict_video(source, estimator, keypoints=tmp_path / 'o.jsonl', progress=False, max_frames=4)
    assert summary.frames == 4 and summary.people == 1 and summary.out is None
    np.testing.assert_array_equal(estimator.boxes[0], [[0, 0, 240, 220]])
    # the keypoints' extent, a tenth larger on each side
    np.testing.assert_allclose(estimator.boxes[1], [[100 - 19.2, 100 - 36, 100 + 19.2, 100 + 36]], atol=3)


def test_the_estimators_own_detector_and_limits_hold_for_videos_and_nobody_is_invented(tmp_path):
    class Dots(PoseEstimator):
        def __init__(self, **options):
            super().__init__(backend=lambda crops: None, size=(32, 32), skeleton=SKELETON, **options)
            self.dots = ReadsDots()

        def __call__(self, image, boxes=None, *args, **options):
            return self.dots(image, boxes)

    def numbers(**options):
        options = {'keypoints': tmp_path / 'o.jsonl', 'progress': False, **options}
        predict_video(tmp_path / 'in.mp4', options.pop('estimator'), **options)
        return [[p['id'] for p in entry['people']] for entry in lines_of(tmp_path / 'o.jsonl')]

    encode(tmp_path / 'in.mp4', 6, where=lambda i: [(60, 100), (160, 100)] if i < 3 else [])
    assert numbers(estimator=Dots(detector=everybody)) == [[1, 2]] * 3 + [[]] * 3
    assert numbers(estimator=Dots(detector=everybody, max_people=1)) == [[1]] * 3 + [[]] * 3
    assert numbers(estimator=Dots(detector=everybody, min_size=500)) == [[]] * 6
    assert numbers(estimator=Dots(), detector=everybody, limits=Limits(largest=True)) == [[1]] * 3 + [[]] * 3
    assert len(numbers(estimator=Dots(detector=everybody), detector=None)[0]) == 1


def test_boxes_from_a_file_by_frame(tmp_path):
    boxes = tmp_path / 'boxes.json'
    boxes.write_text(json.dumps({'in.mp4': [[16, 32, 64, 108]], '12': [[150, 122, 198, 198]]}))
    run(encode(tmp_path / 'in.mp4'), tmp_path, detector=BoxFile(boxes))
    ids = [[p['id'] for p in entry['people']] for entry in lines_of(tmp_path / 'out.jsonl')]
    assert ids == [[1]] * 12 + [[1, 2]] * 8
    boxes.write_text(json.dumps({'other.mp4': [[16, 32, 64, 108]]}))
    with pytest.raises(UserError, match=r'no boxes for in\.mp4'):
        run(tmp_path / 'in.mp4', tmp_path, detector=BoxFile(boxes))


def test_the_command_does_videos_and_says_what_was_broken(tmp_path, capsys):
    from safetensors.torch import save_file
    from small_model import small

    from widehrnet_zoo.cli.main import main

    weights = tmp_path / 'random.safetensors'
    save_file(small().state_dict(), weights)
    whole, cut, text = (tmp_path / f'{name}.mkv' for name in ('whole', 'cut', 'text'))
    encode(whole, 4)
    encode(cut, 40)
    cut.write_bytes(cut.read_bytes()[:4000])
    text.write_text('no video')
    out = tmp_path / 'poses'
    options = ['--model', 'widehrnet_10', '--weights', str(weights), '--boxes', '10,20,70,120', '--quiet']
    assert main(['predict', str(whole), str(cut), str(text), '--out', str(out), *options, '--device', 'cpu']) == 1
    said = capsys.readouterr()
    assert len(lines_of(out / 'whole_pose.jsonl')) == 4 == len(frames_of(out / 'whole_pose.mkv')[0])
    assert 0 < len(lines_of(out / 'cut_pose.jsonl')) < 40
    assert 'text.mkv cannot be read as a video' in said.err and 'cut.mkv is not whole' in said.err
    assert 'whole.mkv' not in said.err and 'frames of 3 videos' in said.out
