"""Doors behind which native code reads the file: videos and exported graphs.

They are knocked at in a process of its own, as a crash there is a finding and must not end the tests.
"""

import contextlib
import functools
import io
import json
import logging
import multiprocessing
import re
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from doors import Hang, door, finite, later, put
from file_doors import result
from mutations import bytes_input, mutate_bytes
from weight_doors import estimates, small

from widehrnet_zoo.errors import UserError

WORDS = (
    '',
    '0',
    '-1',
    '1',
    '3',
    '64',
    '99999',
    '4294967296',
    '9223372036854775807',
    'nan',
    'f16',
    'i64',
    'Add',
    'Split',
)
"""What numbers and names in a graph are replaced by."""


@functools.cache
def worker() -> ProcessPoolExecutor:
    # not forked: the child would wait for the parent's threads, which it does not have
    return ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), logging.disable, (logging.CRITICAL,))


def inside(name: str, content: bytes, folder: Path) -> None:
    globals()[name].__wrapped__(content, folder)


def apart(enter: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
    """Enter in another process, which is replaced when it ends or hangs."""

    @functools.wraps(enter)
    def call(content: bytes, folder: Path) -> None:
        try:
            worker().submit(inside, enter.__name__, content, folder).result()
        except BrokenProcessPool:
            worker.cache_clear()
            raise AssertionError('the process crashed') from None
        except Hang:
            for process in list(worker()._processes.values()):
                process.kill()
            worker.cache_clear()
            raise

    return call


# ---------------------------------------------------------------------------------------------------------- videos


def videos() -> Callable[[Random], bytes]:
    import av

    random = np.random.default_rng(0)
    seeds = []
    for kind, codec, pixels in (
        ('mp4', 'libx264', 'yuv420p'),
        ('matroska', 'mpeg4', 'yuv420p'),
        ('avi', 'mjpeg', 'yuvj420p'),
        ('mov', 'png', 'rgb24'),
        ('mpegts', 'mpeg2video', 'yuv420p'),
        ('gif', 'gif', 'rgb8'),
    ):
        buffer = io.BytesIO()
        with contextlib.suppress(av.error.FFmpegError, ValueError), av.open(buffer, 'w', kind) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
            for _ in range(5):
                image = random.integers(0, 256, (4, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
            container.mux(stream.encode(None))
        seeds.append(buffer.getvalue())
    return bytes_input(*filter(None, seeds))


class Follows:
    """An estimator that costs nothing."""

    skeleton = result().skeleton

    def __call__(self, image: np.ndarray, boxes: Any) -> Any:
        from widehrnet_zoo.pose.results import PoseResult

        count = len(boxes)
        centres = np.repeat(np.asarray(boxes, float).reshape(count, 2, 2).mean(1)[:, None], 3, 1)
        size = (image.shape[1], image.shape[0])
        return PoseResult(centres, np.full((count, 3), 0.9), boxes, np.ones(count), self.skeleton, size)


@door('videos', later(videos), 60, slow=True)
@apart
def video(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.video import predict_video

    source, out, lines = put(folder, 'v.mp4', content), folder / 'out.mp4', folder / 'out.jsonl'
    try:
        done = predict_video(source, Follows(), out, lines, max_frames=50, progress=False)
    except UserError:
        assert not out.exists() and not lines.exists(), 'a refused file left something behind'
        raise
    assert source.read_bytes() == content
    times = []
    for line in lines.read_text().splitlines():
        frame = json.loads(line)
        times.append(frame['time'])
        for person in frame['people']:
            finite([[k['x'], k['y'], k['score']] for k in person['keypoints']])
    finite(times)
    assert len(times) == done.frames > 0 and times == sorted(times) and out.stat().st_size


# -------------------------------------------------------------------------------------------------- exported graphs


def exported(suffix: str) -> dict[str, bytes]:
    """The small network in a format, by names of its files."""
    import tempfile

    from widehrnet_zoo.export.export import export

    with tempfile.TemporaryDirectory() as folder:
        export(small(), Path(folder) / f'x{suffix}', size=(64, 64))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def estimate(path: Path) -> None:
    from widehrnet_zoo.inference.estimator import PoseEstimator

    estimator = PoseEstimator(str(path), device='cpu')
    if max(estimator.size) > 4096:
        raise UserError('allowed, and too large to run here')
    estimates(estimator)


def onnx_input() -> Callable[[Random], bytes]:
    import onnx

    seed = exported('.onnx')['x.onnx']

    def make(random: Random) -> bytes:
        if random.randrange(3) == 0:
            return mutate_bytes(random, seed)
        model = onnx.load_from_string(seed)
        graph = model.graph
        for _ in range(random.choice((1, 1, 2, 4))):
            node, weight = random.choice(graph.node), random.choice(graph.initializer)
            match random.randrange(9):
                case 0:
                    node.op_type = random.choice(('Add', 'Relu', 'Split', 'If', 'Loop', 'NonZero', 'Nothing', ''))
                case 1:
                    names = [*random.choice(graph.node).output, *random.choice(graph.node).input, 'none', '']
                    node.input[random.randrange(len(node.input))] = random.choice(names)
                case 2:
                    del graph.node[random.randrange(len(graph.node))]
                case 3:
                    weight.dims[:] = random.choice(([], [0], [-1], [2**40], [1, *weight.dims], weight.dims[::-1]))
                case 4:
                    weight.data_type = random.choice((0, 2, 6, 7, 9, 10, 11, 16, 99))
                case 5 if graph.input and graph.output:
                    shape = random.choice((graph.input[0], graph.output[0])).type.tensor_type.shape
                    for dim in shape.dim:
                        dim.dim_value = random.choice((0, 1, -1, 3, 64, 2**40))
                case 6 if node.attribute:
                    attribute = random.choice(node.attribute)
                    attribute.i = random.choice((0, -1, 7, 2**31, 2**62))
                    attribute.ints[:] = [random.choice((0, -1, 2, 2**31)) for _ in attribute.ints]
                case 7:
                    kinds = ('opset', 'input', 'output', 'metadata', 'external', *['elem'] * len(graph.input))
                    match random.choice(kinds):
                        case 'opset':
                            model.opset_import[0].version = random.choice((0, 1, 9, 99, -1))
                        case 'input':
                            del graph.input[:]
                        case 'output':
                            del graph.output[:]
                        case 'metadata':
                            del model.metadata_props[:]
                        case 'elem':
                            graph.input[0].type.tensor_type.elem_type = random.choice((0, 2, 7, 8, 10, 11))
                        case 'external':
                            weight.data_location = 1
                            weight.ClearField('raw_data')
                            weight.external_data.add(
                                key='location', value=random.choice(('../../etc/passwd', '/dev/zero'))
                            )
                case 8:
                    word = random.choice((b'\0\0\xc0\x7f', b'\0\0\x80\x7f', b'\xff\xff\x7f\x7f'))
                    weight.raw_data = word * (len(weight.raw_data) // 4)
        return model.SerializeToString()

    return make


@door('exported: ONNX', later(onnx_input), 15, slow=True)
@apart
def onnx(content: bytes, folder: Path) -> None:
    estimate(put(folder, 'x.onnx', content))


def openvino_input() -> Callable[[Random], bytes]:
    files = exported('.xml')

    def make(random: Random) -> bytes:
        graph, weights = files['x.xml'], files['x.bin']
        match random.randrange(4):
            case 0:
                graph = mutate_bytes(random, graph)
            case 1:
                weights = mutate_bytes(random, weights)
            case _:
                places = list(re.finditer(rb'(?<=[">])[^"<>]+(?=["<])', graph))
                for place in sorted(random.sample(places, random.choice((1, 1, 2, 5))), key=lambda m: -m.start()):
                    graph = graph[: place.start()] + random.choice(WORDS).encode() + graph[place.end() :]
        return struct.pack('<I', len(graph)) + graph + weights

    return make


@door('exported: OpenVINO', later(openvino_input), 15, slow=True)
@apart
def openvino(content: bytes, folder: Path) -> None:
    (length,) = struct.unpack_from('<I', content)
    put(folder, 'x.bin', content[4 + length :])
    estimate(put(folder, 'x.xml', content[4 : 4 + length]))


def zip_input(suffix: str) -> Callable[[Random], bytes]:
    """An archive with one entry damaged, dropped or emptied, its checksums right again."""
    (seed,) = exported(suffix).values()
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}

    def make(random: Random) -> bytes:
        if random.randrange(5) == 0:
            return mutate_bytes(random, seed)
        changed = dict(entries)
        # most of the many entries are weights
        name = random.choice(
            [n for n in entries if not re.search(r'/(constants|weights|data/weights)/', n)] or [*entries]
        )
        match random.randrange(6):
            case 0:
                del changed[name]
            case 1:
                changed[name] = b''
            case 2:
                changed[name] = random.choice(list(entries.values()))
            case _:
                changed[name] = mutate_bytes(random, changed[name])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, 'w') as archive:
            for entry, data in changed.items():
                archive.writestr(entry, data)
        return buffer.getvalue()

    return make


@door('exported: TorchScript', later(lambda: zip_input('.torchscript')), 10, slow=True)
@apart
def torchscript(content: bytes, folder: Path) -> None:
    estimate(put(folder, 'x.torchscript', content))


@door('exported: torch.export', later(lambda: zip_input('.pt2')), 10, slow=True)
@apart
def torch_export(content: bytes, folder: Path) -> None:
    estimate(put(folder, 'x.pt2', content))


def kernels_input() -> Callable[[Random], bytes]:
    (seed,) = exported('.kernels').values()
    (length,) = struct.unpack_from('<Q', seed)
    header, data = json.loads(seed[8 : 8 + length]), seed[8 + length :]

    def make(random: Random) -> bytes:
        if random.randrange(4) == 0:
            return mutate_bytes(random, seed)
        changed = json.loads(json.dumps(header))
        texts = changed['__metadata__']
        steps = json.loads(texts['program'])
        for _ in range(random.choice((1, 1, 2, 4))):
            step, array = random.choice(steps), changed[random.choice([n for n in changed if n != '__metadata__'])]
            number = random.choice((-1, 0, 1, 2, 7, 16, 64, 10**4, 2**31, 2**40, 2**63, 1.5, 'x', None))
            match random.randrange(7):
                case 0 if step[1]:
                    step[1][random.randrange(len(step[1]))] = number
                case 1:
                    step[3] = number
                case 2 if step[2]:
                    step[2][random.randrange(len(step[2]))] = random.choice(random.choice(steps)[2] or ['none'])
                case 3:
                    steps[steps.index(step)] = random.choice(steps)
                case 4 if len(steps) > 1:
                    steps.remove(step)
                case 5:
                    array[random.choice(('shape', 'data_offsets'))] = [number, random.choice((0, 64, len(data)))]
                case 6:
                    array['dtype'] = random.choice(('I32', 'F32', 'F64', 'BF16', ''))
        texts['program'] = json.dumps(steps)
        text = json.dumps(changed).encode()
        return struct.pack('<Q', len(text)) + text + data

    return make


@door('exported: kernels', later(kernels_input), 40, slow=True)
@apart
def kernels(content: bytes, folder: Path) -> None:
    estimate(put(folder, 'x.kernels', content))
