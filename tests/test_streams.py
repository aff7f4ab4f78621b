"""Cameras and streams: a server on this machine serves, breaks off, and goes on for ever."""

import io
import itertools
import logging
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clips import ReadsDots, encode, everybody, frames_of, lines_of, picture, run, threads_of_video

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.video import is_stream, predict_video, shown, stream_name, streams

av = pytest.importorskip('av')


def clip(frames=30, form='mpegts'):
    """Somebody who walks at 25 frames a second."""
    content = io.BytesIO()
    with av.open(content, 'w', format=form) as container:
        stream = container.add_stream('libx264' if form == 'mpegts' else 'mjpeg', rate=25)
        stream.width, stream.height, stream.pix_fmt = 240, 220, 'yuv420p' if form == 'mpegts' else 'yuvj420p'
        stream.options = {'g': '5', 'bf': '0', 'preset': 'ultrafast'} if form == 'mpegts' else {}
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(picture((240, 220), [(40 + 4 * i, 70)]))))
        container.mux(stream.encode(None))
    return content.getvalue()


@pytest.fixture
def serve():
    """Serves a function of the handler and the number of the request; gives the address and the list of requests."""
    servers = []

    def start(answer):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *args):
                pass

            def do_GET(self):
                asked.append(self.headers.get('Range'))
                self.close_connection = True
                answer(self, len(asked))

        servers.append(ThreadingHTTPServer(('127.0.0.1', 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{servers[-1].server_port}/door', asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def chunks(handler, content, end=True):
    handler.send_response(200)
    handler.send_header('Transfer-Encoding', 'chunked')
    handler.end_headers()
    handler.wfile.write(b'%x\r\n%b\r\n' % (len(content), content))
    if end:
        handler.wfile.write(b'0\r\n\r\n')


def for_ever(handler, number):
    """Pictures of a camera, as fast as they are taken."""
    handler.send_response(200)
    handler.send_header('Content-Type', 'multipart/x-mixed-replace;boundary=ffmpeg')
    handler.end_headers()
    pictures = clip(10, 'mpjpeg')
    try:
        while True:
            handler.wfile.write(pictures)
    except OSError:
        pass


def test_what_is_a_stream_and_how_it_is_called():
    for source in ('rtsp://host/door', 'HTTP://host/a.mjpg', 'udp://239.0.0.1:1234'):
        assert is_stream(source)
    for source in ('a.mp4', Path('b/c.mkv'), 'c:\\d.avi', '/dev/video_that_is_not_there', 's3://bucket/a'):
        assert not is_stream(source)
    secret = 'rtsp://me:pass%40word@10.0.0.7:554/door/1?token=abc#x'
    assert shown(secret) == 'rtsp://10.0.0.7:554/door/1' and shown('what?.mp4') == 'what?.mp4'
    assert stream_name(secret) == '10.0.0.7_554_door_1'
    assert shown('/dev/null') == '/dev/null' and stream_name('/dev/null') == 'null'


def test_a_stream_that_breaks_is_taken_up_again_so_many_times(tmp_path, serve, monkeypatch, caplog):
    monkeypatch.setattr(streams, 'WAITS', (0.01, 0.02, 0.03))
    content = clip()

    def answer(handler, number):
        if number <= 2:
            chunks(handler, content[: len(content) // 2] if number == 1 else content, end=number == 2)
        else:
            handler.send_error(404)

    address, asked = serve(answer)
    with caplog.at_level(logging.WARNING):
        summary = run(address, tmp_path, max_lag=None)
    assert len(asked) == 4  # and the two tries that were left
    assert f'{address} ended. Taken up again in 0.01 s (try 1 of 3).' in caplog.text
    assert '404' in summary.problem and '3 tries to take it up again did not help' in summary.problem
    lines = lines_of(tmp_path / 'out.jsonl')
    times = [entry['time'] for entry in lines]
    assert 35 < summary.frames == len(lines) < 60 and summary.skipped == 0
    assert times[0] == 0 and all(a < b for a, b in itertools.pairwise(times))
    assert sum(len(entry['people']) for entry in lines) >= 35
    assert len(frames_of(tmp_path / 'out.mp4')[0]) == summary.frames
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out.jsonl', 'out.mp4']
    assert threads_of_video() == []


def test_an_interruption_ends_a_stream_and_completes_its_files(tmp_path, serve):
    address, _ = serve(for_ever)
    written = []

    def stop(frame, result):
        # each line is there as soon as it is made
        written.append(len(lines_of(tmp_path / 'out.jsonl.part')))
        if frame == 11:
            raise KeyboardInterrupt

    summary = run(address, tmp_path, on_frame=stop)
    assert written == list(range(1, 13))
    assert (summary.frames, summary.problem) == (12, None)
    assert len(lines_of(tmp_path / 'out.jsonl')) == 12 == len(frames_of(tmp_path / 'out.mp4')[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out.jsonl', 'out.mp4']
    assert threads_of_video() == []


def test_lines_go_into_an_open_file(tmp_path, serve):
    address, _ = serve(for_ever)
    lines = io.StringIO()
    summary = predict_video(address, ReadsDots(), keypoints=lines, detector=everybody, max_frames=3, progress=False)
    assert (summary.frames, summary.keypoints) == (3, None)
    assert len(lines.getvalue().splitlines()) == 3 and not lines.closed


def test_frames_that_come_too_fast_are_left_out(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(streams, 'WAITS', ())
    content = clip()
    address, _ = serve(lambda handler, number: chunks(handler, content))
    slow = run(address, tmp_path, max_lag=0.2, on_frame=lambda *_: time.sleep(0.12))
    assert slow.skipped > 5 and slow.frames + slow.skipped == 30
    assert run(address, tmp_path, max_lag=None).frames == 30


def test_a_file_of_a_server_is_read_on_where_it_broke_off_and_ends(tmp_path, serve):
    content = clip()

    def answer(handler, number):
        start = int((handler.headers.get('Range') or 'bytes=0-')[6:].split('-')[0])
        handler.send_response(206)
        handler.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        handler.send_header('Content-Length', str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start:] if number > 1 else content[: len(content) // 2])

    address, asked = serve(answer)
    summary = run(address, tmp_path)
    assert (summary.frames, summary.problem) == (30, None)
    assert asked[0] == 'bytes=0-' and len(asked) >= 2


def test_what_cannot_be_opened_is_said_without_secrets(tmp_path):
    with pytest.raises(
        UserError, match=r'http://127\.0\.0\.1:1/x cannot be read as a video: Connection refused'
    ) as error:
        predict_video('http://me:secret@127.0.0.1:1/x?key=secret', ReadsDots(), tmp_path / 'o.mp4', progress=False)
    assert 'secret' not in str(error.value)
    with pytest.raises(UserError, match='/dev/null cannot be read as a video'):
        predict_video('/dev/null', ReadsDots(), progress=False)
    assert not list(tmp_path.iterdir())


def test_the_command_takes_one_stream_and_no_mixed_lines(tmp_path, capsys):
    from widehrnet_zoo.cli.main import main

    assert main(['predict', 'rtsp://a/b', 'rtsp://me:pass@c/d', '--out', str(tmp_path / 'out')]) == 2
    assert 'goes on until it is stopped' in capsys.readouterr().err
    encode(tmp_path / 'a.mp4', 2)
    assert main(['predict', str(tmp_path / 'a.mp4'), 'rtsp://me:pass@c/d', '--json']) == 2
    said = capsys.readouterr().err
    assert 'its lines are not mixed' in said and 'pass' not in said


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_lines_come_before(tmp_path, serve):
    import json

    from safetensors.torch import save_file

    from widehrnet_zoo.models.registry import create_model

    save_file(create_model('widehrnet_10').state_dict(), tmp_path / 'random.safetensors')
    address, _ = serve(for_ever)
    options = ['--model', 'widehrnet_10', '--weights', str(tmp_path / 'random.safetensors'), '--boxes', '10,20,70,120']
    command = [sys.executable, '-m', 'widehrnet_zoo', 'predict', address, '--json', '--out', str(tmp_path / 'out')]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([*command, *options, '--quiet'], **pipes) as process:
        try:
            frames = [json.loads(process.stdout.readline())['frame'] for _ in range(3)]
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert frames == [0, 1, 2] and process.returncode == 0
    count = 3 + len(rest.splitlines())
    assert f'{count} frames of 1 video' in said
    (video,) = (tmp_path / 'out').iterdir()
    assert video.name.endswith('_door_pose.mp4') and len(frames_of(video)[0]) == count
