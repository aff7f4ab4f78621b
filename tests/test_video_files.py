"""Files of video: their sound, those that are cut off or damaged, and what is left of a run that was."""

import logging

import numpy as np
import pytest
from clips import ReadsDots, encode, encode_with_sound, frames_of, lines_of, run

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.video import is_video, predict_video
from widehrnet_zoo.video.clips import VideoWriter
from widehrnet_zoo.video.clips import _open as open_clip
from widehrnet_zoo.video.whole import is_cut_off

av = pytest.importorskip('av')

FAST = {'movflags': 'faststart'}


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


@pytest.mark.parametrize(('version', 'options'), [('18.1.0', {'metadata_errors': 'replace'}), ('19.0.0', {})])
def test_pyav_19_is_not_told_of_errors_in_titles(monkeypatch, version, options):
    given = []
    monkeypatch.setattr(av, '__version__', version)
    monkeypatch.setattr(av, 'open', lambda path, **options: given.append(options))
    open_clip('a.mp4')
    assert given == [options]


def test_names_of_videos():
    assert not is_video('x.jpg')
    for name in ('a/B.MP4', 'x.mkv', 'x.flv', 'x.3gp', 'x.m2ts', 'x.ogv', 'x.wmv', 'x.h264', 'x.lrv'):
        assert is_video(name)
