"""Clips drawn and encoded here, and an estimator that finds what they show."""

import json
import threading
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw

from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import Skeleton
from widehrnet_zoo.video import predict_video
from widehrnet_zoo.video.clips import VideoReader

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


def threads_of_video():
    return [t.name for t in threading.enumerate() if t.name.startswith(('read', 'draw'))]


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
