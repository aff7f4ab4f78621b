"""Video: clips drawn and encoded here go in, video and JSON lines come out."""

import json
import logging
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.boxes import BoxFile
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.inference.people import Limits
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import Skeleton
from widehrnet_zoo.video import OneEuro, SmoothConfig, is_video, predict_video
from widehrnet_zoo.video.clips import VideoReader, VideoWriter
from widehrnet_zoo.video.follow import FollowConfig, Follower
from widehrnet_zoo.video.whole import is_cut_off

av = pytest.importorskip('av')

COLOURS = np.array([[230, 30, 30], [30, 200, 30], [40, 40, 240], [230, 230, 30]], np.uint8)
OFFSETS = np.array([[0, -30], [-16, 0], [16, 0], [0, 30]])
SKELETON = Skeleton('dots', ('top', 'left_side', 'right_side', 'bottom'), ((1, 2),), ((0, 1), (0, 2), (1, 3), (2, 3)))


class ReadsDots:
    """Where the dots of each colour are in the padded box: an honest estimator for pictures of dots."""

    skeleton = SKELETON

    def __init__(self):
        self.boxes = []

    def __call__(self, image, boxes):
        self.boxes.append(np.array(boxes))
        points, scores = np.zeros((len(boxes), 4, 2)), np.zeros((len(boxes), 4))
        for row, (x1, y1, x2, y2) in enumerate(boxes):
            mx, my = (x2 - x1) / 8, (y2 - y1) / 8
            left, top = max(int(x1 - mx), 0), max(int(y1 - my), 0)
            part = image[top : int(y2 + my) + 1, left : int(x2 + mx) + 1].astype(int)
            for k, colour in enumerate(COLOURS):
                ys, xs = np.nonzero(np.abs(part - colour).sum(-1) < 120)
                if len(xs) > 20:
                    points[row, k], scores[row, k] = (xs.mean() + left, ys.mean() + top), 0.9
        return PoseResult(points, scores, boxes, np.ones(len(boxes)), SKELETON, (image.shape[1], image.shape[0]))


def picture(size, centres):
    image = Image.new('RGB', size, (128, 128, 128))
    draw = ImageDraw.Draw(image)
    for centre in centres:
        for (dx, dy), colour in zip(OFFSETS, COLOURS, strict=True):
            x, y = centre[0] + dx, centre[1] + dy
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=tuple(int(c) for c in colour))
    return image


def walk(frame):
    """Two people who walk past each other's height, the second one appearing at frame 8."""
    first = (40 + 4 * frame, 70)
    return [first] if frame < 8 else [first, (210 - 3 * frame, 160)]


def encode(path, frames=20, size=(240, 220), times=None, sound=False, rotation=None, where=walk, codec='libx264'):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = 'yuv420p' if size[0] % 2 == size[1] % 2 == 0 else 'yuv444p'
        stream.options = {'crf': '12', 'g': '5', 'preset': 'ultrafast'} if codec == 'libx264' else {}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            if not hasattr(stream, 'set_display_rotation'):
                pytest.skip('PyAV before 17 writes no rotation')
            stream.set_display_rotation(rotation)
        audio = container.add_stream('aac', rate=16000, layout='mono') if sound else None
        for i in range(frames):
            frame = av.VideoFrame.from_image(picture(size, where(i)))
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if audio is not None:
                tone = (8000 * np.sin(np.arange(640) / 5)).astype(np.int16)[None]
                samples = av.AudioFrame.from_ndarray(tone, 's16', 'mono')
                samples.sample_rate, samples.pts, samples.time_base = 16000, i * 640, Fraction(1, 16000)
                container.mux(audio.encode(samples))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def everybody(image):
    """Boxes around each cluster of dots, from the pixels alone: the top dots are red."""
    ys, xs = np.nonzero(np.abs(image.astype(int) - COLOURS[0]).sum(-1) < 120)
    boxes = []
    while len(xs):
        near = (np.abs(xs - xs[0]) < 14) & (np.abs(ys - ys[0]) < 14)
        x, y = xs[near].mean(), ys[near].mean()
        boxes.append([x - 24, y - 8, x + 24, y + 68])
        xs, ys = xs[~near], ys[~near]
    return boxes, [1.0] * len(boxes)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path):
    with VideoReader(path) as reader:
        return list(reader), reader


def run(source, folder, **options):
    options = {'detector': everybody, 'smooth': None, 'progress': False, **options}
    return predict_video(source, ReadsDots(), folder / 'out.mp4', folder / 'out.jsonl', **options)


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


def test_the_sound_is_carried_over(tmp_path):
    run(encode(tmp_path / 'in.mp4', sound=True), tmp_path)

    def sound(path):
        with av.open(str(path)) as container:
            return np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], 1)

    np.testing.assert_array_equal(sound(tmp_path / 'out.mp4'), sound(tmp_path / 'in.mp4'))


def test_a_cut_off_file_gives_what_could_be_read(tmp_path):
    source = encode(tmp_path / 'in.mkv', 40)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * 0.6)])
    summary = run(source, tmp_path)
    assert 10 < summary.frames < 40
    assert 'not whole' in summary.problem and str(summary.frames) in summary.problem
    assert len(lines_of(tmp_path / 'out.jsonl')) == summary.frames == len(frames_of(tmp_path / 'out.mp4')[0])


def encode_with_sound(path, codec, audio, frames=20, late=0, longer=0, rate=44100, options=None):
    """A small video and its sound, the picture `late` frames later and the sound `longer` frames longer."""
    with av.open(str(path), 'w', options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        sound = container.add_stream(audio, rate=rate, layout='stereo') if audio else None
        packets = []
        for i in range(frames):
            noise = np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, 'rgb24')
            frame.pts, frame.time_base = i + late, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if sound:
            step = sound.codec_context.frame_size or 1024
            resampler = av.AudioResampler(format=sound.format, layout='stereo', rate=rate)
            for start in range(0, rate * (frames + longer) // 25, step):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * step), np.int16), 's16', 'stereo')
                samples.sample_rate = rate
                for part in resampler.resample(samples):
                    part.pts = start
                    packets += sound.encode(part)
            packets += sound.encode(None)
        container.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


FAST = {'movflags': 'faststart'}


@pytest.mark.parametrize(
    ('name', 'codec', 'audio', 'how'),
    [
        ('mp3.avi', 'mpeg4', 'libmp3lame', {}),  # the header counts a frame more than there are
        ('longer.avi', 'mpeg4', 'libmp3lame', {'longer': 75}),
        ('late.mkv', 'libx264', 'aac', {'late': 75}),
        ('longer.mkv', 'libx264', 'libmp3lame', {'longer': 75}),
        ('late.mp4', 'libx264', 'aac', {'late': 75, 'options': FAST}),
        ('fast.mp4', 'libx264', 'aac', {'options': FAST}),
        ('longer.mov', 'libx264', 'aac', {'longer': 75, 'options': FAST}),
        ('a.flv', 'flv1', 'libmp3lame', {}),
        ('a.wmv', 'wmv2', None, {}),
    ],
)
def test_whole_videos_are_called_whole_and_cut_ones_not(tmp_path, name, codec, audio, how):
    source = encode_with_sound(tmp_path / name, codec, audio, **how)
    frames, reader = frames_of(source)
    assert (len(frames), reader.problem) == (20, None)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * 0.35)])
    frames, reader = frames_of(source)
    assert len(frames) < 20 and 'not whole' in reader.problem and f' {len(frames)} frames could' in reader.problem


def test_a_stream_without_an_end_is_cut_off(tmp_path):
    first, last = (b'OggS\0' + bytes([flags]) + bytes(100) for flags in (2, 4))
    (tmp_path / 'a.ogv').write_bytes(first + last)
    assert not is_cut_off(tmp_path / 'a.ogv')
    (tmp_path / 'a.ogv').write_bytes(first)
    assert is_cut_off(tmp_path / 'a.ogv')
    # what holds no sizes cannot say
    (tmp_path / 'a.ts').write_bytes(b'G' + bytes(1000))
    assert not is_cut_off(tmp_path / 'a.ts')


@pytest.mark.parametrize(
    ('name', 'codec', 'audio', 'out', 'kept'),
    [
        ('pcm.avi', 'mjpeg', 'pcm_s16le', '.mp4', False),
        ('pcm.mkv', 'libx264', 'pcm_u8', '.mp4', False),
        ('opus.mkv', 'libx264', 'libopus', '.mov', False),
        ('opus.mkv', 'libx264', 'libopus', '.mp4', True),
        ('pcm.mkv', 'libx264', 'pcm_s16le', '.mkv', True),
    ],
)
def test_sound_that_does_not_fit_is_left_out_with_a_word(tmp_path, caplog, name, codec, audio, out, kept):
    source = encode_with_sound(tmp_path / name, codec, audio, frames=6, rate=48000)
    target = tmp_path / f'out{out}'
    predict_video(source, ReadsDots(), target, progress=False)
    assert len(frames_of(target)[0]) == 6
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == kept
    assert kept or f'out{out} cannot hold the sound of' in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, target.name])


def test_a_video_that_cannot_be_written_is_said_and_leaves_its_part(tmp_path, caplog, monkeypatch):
    def refuse(self, sound):
        raise av.error.FFmpegError(28, 'No space left on device')

    monkeypatch.setattr(VideoWriter, '_join', refuse)
    with pytest.raises(UserError, match=r'out\.mp4 cannot be written: No space left'), caplog.at_level(logging.WARNING):
        run(encode(tmp_path / 'in.mp4', 3), tmp_path)
    assert len(frames_of(tmp_path / 'out.part.mp4')[0]) == 3 and 'out.part.mp4' in caplog.text
    assert len(lines_of(tmp_path / 'out.jsonl')) == 3


def test_a_damaged_middle_is_left_out(tmp_path):
    source = encode(tmp_path / 'in.mp4', 40, codec='mpeg4')
    content = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    start, size = packets[20]
    content[start : start + size] = b'\xff' * size
    source.write_bytes(content)
    summary = run(source, tmp_path)
    assert summary.frames >= 35 and summary.problem is not None
    assert lines_of(tmp_path / 'out.jsonl')[-1]['frame'] == summary.frames - 1


def test_an_interruption_leaves_readable_parts(tmp_path, caplog):
    def stop(frame, result):
        if frame == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        run(encode(tmp_path / 'in.mp4'), tmp_path, on_frame=stop)
    assert 'out.part.mp4' in caplog.text and 'out.jsonl.part' in caplog.text
    assert len(lines_of(tmp_path / 'out.jsonl.part')) == 13
    assert len(frames_of(tmp_path / 'out.part.mp4')[0]) == 13
    assert not (tmp_path / 'out.mp4').exists() and not (tmp_path / 'out.jsonl').exists()


def threads_of_video():
    return [t.name for t in threading.enumerate() if t.name.startswith(('read', 'draw'))]


def test_threads_give_what_one_thread_gives(tmp_path):
    source = encode(tmp_path / 'in.mp4', sound=True)
    drawn_in = set()

    def draw(image, result):
        drawn_in.add(threading.current_thread())
        time.sleep(0.002)  # the frames before it pile up
        return result.draw(image)

    for name, threads in (('one', False), ('more', True)):
        drawn_in.clear()
        (tmp_path / name).mkdir()
        run(source, tmp_path / name, threads=threads, draw=draw)
        assert (threading.main_thread() in drawn_in) != threads and len(drawn_in) == 1
    assert (tmp_path / 'one' / 'out.jsonl').read_text() == (tmp_path / 'more' / 'out.jsonl').read_text()
    one, more = (frames_of(tmp_path / name / 'out.mp4')[0] for name in ('one', 'more'))
    assert len(one) == len(more) == 20
    for a, b in zip(one, more, strict=True):
        assert a.pts == b.pts and np.array_equal(a.image, b.image)
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


def test_a_killed_run_leaves_a_part_that_plays(tmp_path):
    def copy(frame, result):
        if frame == 149:
            (tmp_path / 'killed.mp4').write_bytes((tmp_path / 'out.part.mp4').read_bytes())

    run(encode(tmp_path / 'in.mp4', 150, where=lambda i: [(100, 100)]), tmp_path, on_frame=copy)
    # at most a second's fragment and what the encoder holds back is lost
    assert 100 <= len(frames_of(tmp_path / 'killed.mp4')[0]) < 150


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(UserError, match='no file'):
        run(tmp_path / 'nothing.mp4', tmp_path)
    (tmp_path / 'text.mp4').write_text('This is no video. ' * 100)
    with pytest.raises(UserError, match=r'text\.mp4 cannot be read as a video'):
        run(tmp_path / 'text.mp4', tmp_path)
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=16000, layout='mono')
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), 's16', 'mono')
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match='no video in it'):
        run(tmp_path / 'sound.mp4', tmp_path)
    source = encode(tmp_path / 'in.mp4', 3)
    with pytest.raises(UserError, match='written as'):
        predict_video(source, ReadsDots(), tmp_path / 'out.gif')
    with pytest.raises(UserError, match='over its source'):
        predict_video(source, ReadsDots(), source)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match='cannot be read as a video'):
        run(source, tmp_path)
    assert not list(tmp_path.glob('out*'))


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

    from widehrnet_zoo.cli.main import main
    from widehrnet_zoo.models.registry import create_model

    weights = tmp_path / 'random.safetensors'
    save_file(create_model('widehrnet_10', num_classes=17).state_dict(), weights)
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


def test_names_of_videos():
    assert not is_video('x.jpg')
    for name in ('a/B.MP4', 'x.mkv', 'x.flv', 'x.3gp', 'x.m2ts', 'x.ogv', 'x.wmv', 'x.h264', 'x.lrv'):
        assert is_video(name)


def pose(x, y, score=0.9):
    return OFFSETS + np.array([x, y]), np.full(4, score)


def seen(follower, *people):
    keypoints, scores = (np.array(v) for v in zip(*people, strict=True))
    return follower.update(keypoints, scores, (640, 480)).tolist()


def test_somebody_unseen_is_given_up_after_a_while_and_comes_back_under_a_new_number():
    follower = Follower(config=FollowConfig(patience=2))
    follower.meet([[80, 60, 120, 140]])
    assert seen(follower, pose(100, 100)) == [0]
    box = follower.boxes
    for _ in range(2):
        assert seen(follower, pose(300, 300, 0.1)) == [] and not follower.due(7)
        np.testing.assert_array_equal(follower.boxes, box)
    assert seen(follower, pose(300, 300, 0.1)) == [] and follower.due(7)
    follower.meet([[80, 60, 120, 140]])
    assert follower.numbers == [2]


def test_two_who_land_on_one_person_become_one_and_the_older_stays():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    follower.meet([[180, 60, 220, 140], [78, 62, 121, 139]])
    assert follower.numbers == [1, 2]
    assert seen(follower, pose(101, 100), pose(102, 101)) == [0]
    assert follower.numbers == [1]


def test_somebody_who_was_unseen_for_a_moment_keeps_their_number_beside_a_newcomer():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    seen(follower, pose(100, 100, 0.1))
    # the detector finds them again, and a second box of them
    follower.meet([[80, 60, 120, 140], [80, 60, 120, 70]])
    assert follower.numbers == [1, 2]
    assert seen(follower, pose(100, 100), pose(100, 100)) == [0] and follower.numbers == [1]
    seen(follower, pose(100, 100, 0.1))
    follower.meet([[80, 60, 120, 140], [80, 60, 120, 70]])
    seen(follower, pose(100, 100, 0.1), pose(100, 100))
    follower.meet([[80, 60, 120, 140]])
    assert seen(follower, pose(100, 100), pose(100, 100)) == [0] and follower.numbers == [1]


def test_a_box_does_not_collapse_when_keypoints_drop_out():
    follower = Follower()
    follower.meet([[80, 60, 120, 140]])
    seen(follower, pose(100, 100))
    width, height = follower.boxes[0, 2:] - follower.boxes[0, :2]
    keypoints, scores = pose(100, 100)
    scores[[0, 3]] = 0.1
    assert seen(follower, (keypoints, scores)) == [0]
    np.testing.assert_allclose(follower.boxes[0, 2:] - follower.boxes[0, :2], (width, 0.8 * height))


def test_the_filter_by_hand():
    # a still start, then one step of 1 at 10 Hz: speed 10, smoothed by a(1 Hz); its cutoff is 1 + 2 * that speed
    smooth = OneEuro(SmoothConfig(min_cutoff=1.0, beta=2.0, derivative_cutoff=1.0))
    assert smooth([[0.0, 0.0]], 0.0).tolist() == [[0, 0]]
    weight = 1 / (1 + 1 / (2 * np.pi * 0.1))
    cutoff = 1 + 2 * weight * 10
    expected = 1 / (1 + 1 / (2 * np.pi * cutoff * 0.1))
    np.testing.assert_allclose(smooth([[1.0, 0.0]], 0.1), [[expected, 0]], rtol=1e-12)
    np.testing.assert_allclose(smooth([[9.0, 9.0]], 0.1), [[expected, 0]], rtol=1e-12)


def test_smoothing_calms_a_still_person_and_keeps_up_with_a_moving_one():
    random = np.random.default_rng(0)
    times = np.arange(200) / 25
    noise = random.normal(0, 2, (200, 1, 2))
    smooth = OneEuro()
    still = np.array([smooth(100 + n, t, 400) for n, t in zip(noise, times, strict=True)])
    assert still[50:].std() < 0.5 * noise[50:].std()
    assert np.diff(still[50:], axis=0).std() < 0.25 * np.diff(noise[50:], axis=0).std()
    smooth = OneEuro()
    # a hand that crosses half the person's diagonal in a second
    path = 100 + times[:, None, None] * 200
    moving = np.array([smooth(p, t, 400) for p, t in zip(path, times, strict=True)])
    assert np.abs(moving - path)[50:].max() < 4
