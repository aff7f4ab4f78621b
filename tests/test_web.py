"""The page that runs in the browser: its graph, its folder, and the page itself in Chromium."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from small_model import SMALL, trained_like
from test_demo import CHROMIUM, SWITCHES

from widehrnet_zoo import PoseEstimator, UserError, create_model
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.deployment.network import deploy
from widehrnet_zoo.detection import LIGHT_FINDER, PersonFinder, finder_ships
from widehrnet_zoo.detection.finder import input_shape, letterbox
from widehrnet_zoo.kernels.record import record
from widehrnet_zoo.models.opening import open_network
from widehrnet_zoo.pose.box_maps import NUM_MAPS, bin_coordinates, find_boxes
from widehrnet_zoo.pose.crops import crop_people, normalise
from widehrnet_zoo.pose.decoding import decode_heatmaps
from widehrnet_zoo.web import serve, write_site
from widehrnet_zoo.web.runtime import VERSION, runtime_config
from widehrnet_zoo.web.site import PAGE, _write_finder, _write_model, page_program

RUNTIME = os.environ.get('WIDEHRNET_ORT_WEB')
SAMPLE = Path(PAGE).parents[1] / 'samples' / 'portraits.jpg'


class Kernels:
    """The page's kernels, run by wasmtime; arrays go in as pointers."""

    def __init__(self):
        wasmtime = pytest.importorskip('wasmtime')
        store = wasmtime.Store()
        module = wasmtime.Module.from_file(store.engine, str(PAGE / 'kernels.wasm'))
        exports = wasmtime.Instance(store, module, []).exports(store)
        self.call = lambda name, *given: exports[name](store, *given)
        self.write = lambda at, content: exports['memory'].write(store, content, at)
        self.read = lambda at, size: exports['memory'].read(store, at, at + size)
        self.call('_initialize')

    def put(self, value):
        content = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
        at = self.call('allocate', len(content))
        self.write(at, content)
        return at

    def get(self, at, *shape):
        return np.frombuffer(self.read(at, 4 * int(np.prod(shape))), np.float32).reshape(shape)

    def room(self, *shape):
        return self.put(np.full(shape, np.nan, np.float32))


@pytest.fixture(scope='module')
def kernels():
    return Kernels()


def test_the_networks_of_the_page_give_the_heatmaps_of_pytorch(kernels):
    model = trained_like(create_model('widehrnet_10_attn', **SMALL))
    content = page_program(record(deploy(model)))
    network = kernels.call('open_network', kernels.put(content), len(content))
    for height, width in ((64, 96), (96, 32)):
        given = np.random.default_rng(0).standard_normal((2, 3, height, width)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(given)).numpy()
        maps = kernels.room(*expected.shape)
        kernels.call('run', network, kernels.put(given), 2, height, width, maps, 1)
        np.testing.assert_allclose(kernels.get(maps, *expected.shape), expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(Exception, match='unreachable'):
        kernels.call('open_network', kernels.put(content[:-4]), len(content) - 4)


def test_photos_are_cut_and_fitted_as_by_the_package(kernels):
    photo = np.asarray(Image.open(SAMPLE).convert('RGB'))
    height, width = photo.shape[:2]
    picture = kernels.put(np.asarray(Image.open(SAMPLE).convert('RGBA')))
    for affine in ((1.7137, 250.331, 1.7137, 30.213), (-0.4139, width + 9.617, 0.4139, -20.709)):
        image = kernels.room(3, 64, 48)
        kernels.call('crop_picture', picture, width, height, *affine, 64, 48, image)
        step_x, start_x, step_y, start_y = affine
        (expected,) = crop_people(photo, [[[step_x, 0, start_x], [0, step_y, start_y]]], (64, 48))
        apart = np.abs(kernels.get(image, 3, 64, 48) - expected.transpose(2, 0, 1))
        # where a sum lies on the border of two whole numbers, rounding chooses
        assert apart.max() <= 1 and (apart > 0).mean() < 5e-3
    image = kernels.room(3, 224, 448)
    kernels.call('fit_picture', picture, width, height, 224, 448, image)
    expected, _ = letterbox(photo, (224, 448))
    np.testing.assert_array_equal(kernels.get(image, 3, 224, 448), expected.transpose(2, 0, 1))
    mean, std = np.array([[0.4, 0.5, 0.6], [0.2, 0.3, 0.4]], np.float32)
    kernels.call('normalise', image, 1, 224 * 448, *map(float, mean), *map(float, std))
    found = kernels.get(image, 1, 3, 224, 448)
    np.testing.assert_allclose(found, normalise(expected[None], mean, std), rtol=1e-5, atol=1e-5)


def peaks(count, height, width, seed=0):
    """Gaussians anywhere, half of them at the border, with a little noise."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 1, (count, 2)) * (width - 1, height - 1)
    centres[::2] = centres[::2].clip(2, 5) - random.uniform(0, 2.4, (len(centres[::2]), 2))
    y, x = np.mgrid[:height, :width]
    square = (x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2
    maps = random.uniform(0.2, 1, (count, 1, 1)) * np.exp(-square / 8) + random.normal(0, 0.003, square.shape)
    return maps[None].astype(np.float32)


def test_the_decoder_of_the_page_gives_what_dark_gives_at_the_border_too(kernels):
    for height, width in ((64, 48), (32, 24)):
        heatmaps = peaks(200, height, width)
        rows = kernels.room(200, 3)
        kernels.call('find_keypoints', kernels.put(heatmaps), 200, height, width, rows)
        found = kernels.get(rows, 200, 3)
        points, heights = decode_heatmaps(heatmaps, 'dark')
        np.testing.assert_allclose(found[:, 2], heights[0])
        np.testing.assert_allclose(found[:, :2], points[0], atol=2e-3)


def test_the_boxes_of_the_page_are_those_of_the_person_finder(kernels):
    random = np.random.default_rng(0)
    maps = random.normal(0, 1, (1, NUM_MAPS, 24, 40)).astype(np.float32)
    maps[:, 0] -= 2
    maps[:, 1:] += np.repeat(random.normal(0, 3, (1, NUM_MAPS - 1, 6, 10)), 4, 2).repeat(4, 3)
    boxes, scores, _ = find_boxes(maps, 0.11)
    # an input of 96x160 holds 480 x 270 scaled by a third, between bars of 3 pixels
    boxes = ((boxes - [0, 3, 0, 3]) * 3).clip(0, [480, 270, 480, 270])
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    assert 20 < kept.sum() < 900
    rows = kernels.room(1000, 5)
    count = kernels.call('find_people', kernels.put(maps), 480, 270, 96, 160, 0.11, rows)
    found = kernels.get(rows, count, 5)
    np.testing.assert_allclose(found, np.column_stack((boxes, scores))[kept], rtol=1e-4, atol=2e-2)


def test_a_finder_is_no_pose_model_and_what_is_in_the_way_stays(tmp_path):
    with pytest.raises(UserError, match='finds people, not keypoints'):
        _write_model(open_network(create_model(LIGHT_FINDER)), 'finder', tmp_path, {'models': []})
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    with pytest.raises(UserError, match='not written by this command'):
        write_site(out=tmp_path / 'mine', finder='any')
    with pytest.raises(UserError, match=r'thesis\.txt is a file'):
        write_site(out=tmp_path / 'mine' / 'thesis.txt' / 'site', finder='any')
    with pytest.raises(UserError, match=r'onnxruntime-web .*npm pack'):
        write_site(out=tmp_path / 'site', finder='any', runtime=tmp_path / 'mine')
    assert [p.name for p in tmp_path.rglob('*')] == ['mine', 'thesis.txt']


def test_options_of_a_page_are_refused_for_other_formats(capsys):
    assert main(['export', 'widehrnet_10', '--format', 'onnx', '--runtime', 'folder']) == 2
    assert '--runtime is for --format web' in capsys.readouterr().err
    assert main(['export', 'widehrnet_10', '--format', 'web', '--precision', 'int8']) == 2
    assert 'in f32' in capsys.readouterr().err


def test_the_script_is_small_and_names_no_other_address():
    text = ''.join(file.read_text(encoding='utf-8') for file in sorted(PAGE.glob('*.js')))
    lines = [line.strip() for line in text.splitlines()]
    assert len([line for line in lines if line and not line.startswith(('//', '/*', '*'))]) < 400
    assert not re.search(r'https?://', text)


@pytest.fixture(scope='module')
def finder(tmp_path_factory):
    """One that takes the whole picture for a person, whatever ships."""
    from safetensors.torch import save_file

    model = trained_like(create_model(LIGHT_FINDER))
    head = model.get_classifier()
    with torch.no_grad():
        head.weight.mul_(0.01 / head.weight.abs().sum((1, 2, 3)).max())
        head.bias.zero_()
        head.bias[0] = 2.0
        places = bin_coordinates(torch.full((4,), 450.0))
        head.bias[1:] = (-((torch.arange(16) - places[:, None]) ** 2)).flatten()
    file = tmp_path_factory.mktemp('finder') / 'finder.safetensors'
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file


@pytest.fixture(scope='module')
def site(finder, tmp_path_factory):
    for module in ('onnx', 'onnxruntime'):
        pytest.importorskip(module)
    out = tmp_path_factory.mktemp('web') / 'site'
    return write_site(['widehrnet_10_attn'], out, finder=finder, runtime=RUNTIME)


@pytest.mark.slow
def test_the_folder_is_whole_and_can_be_written_again(site, finder):
    names = {str(p.relative_to(site)) for p in site.rglob('*') if p.is_file() and p.parent.name != 'runtime'}
    networks = {f'{name}.{end}' for name in ('finder', 'widehrnet_10_attn') for end in ('bin', 'onnx')}
    assert names == {p.name for p in PAGE.iterdir()} | networks | {'LICENSE.txt', 'sample.jpg', 'site.json'}
    config = json.loads((site / 'site.json').read_text())
    assert config['models'][0]['sigmas'] and config['follow']['detect_every'] == 15
    licence = (site / 'LICENSE.txt').read_text()
    assert 'Apache License' in licence and 'Microsoft' in licence
    (site / 'finder.bin').write_bytes(b'')
    write_site(['widehrnet_18_attn'], site, finder=finder, runtime=RUNTIME)
    assert (site / 'finder.bin').stat().st_size > 1e6
    write_site(['widehrnet_10_attn'], site, finder=finder, runtime=RUNTIME)


@pytest.fixture(scope='module')
def address(site):
    with serve(site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}/'
        server.shutdown()
        thread.join()


WATCH = """
window.seen = [];
document.addEventListener('people', ({ detail }) => {
  const pen = document.querySelector('#view').getContext('2d');
  const colour = ({ points, scores }) => {
    const [x, y] = points[scores.indexOf(Math.max(...scores))];
    return [...pen.getImageData(Math.round(x), Math.round(y), 1, 1).data].join();
  };
  const people = detail.people.map((person) => ({ ...person, colour: colour(person) }));
  window.seen.push({ people, size: [detail.picture.width, detail.picture.height] });
});
// on a slow machine a video that plays slowly has few frames left out
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  if (!this.srcObject) this.playbackRate = 0.1;
  return play.call(this);
};
"""


@pytest.fixture
def open_page(address):
    """Opens the page; at the end, no request may have gone to another machine."""
    playwright = pytest.importorskip('playwright.sync_api')
    if CHROMIUM is None:
        pytest.skip('no Chromium on this machine')
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browsers = []

        def open_(*switches, search='?engine=wasm', threads=2):
            fake = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
            browsers.append(driver.chromium.launch(executable_path=CHROMIUM, args=[*SWITCHES, *fake, *switches]))
            page = browsers[-1].new_page()
            page.set_default_timeout(180_000)
            page.on('request', lambda request: asked.append(request.url))
            page.on('pageerror', lambda error: asked.append(f'error: {error}'))
            page.add_init_script(WATCH)
            page.add_init_script(f"Object.defineProperty(navigator, 'hardwareConcurrency', {{ value: {threads} }})")
            page.goto(address + search)
            says(page, 'Ready')
            return page

        open_.allowed = []
        yield open_
        for browser in browsers:
            browser.close()
    own = (address, 'blob:', 'data:', *open_.allowed)
    assert asked and [url for url in asked if not url.startswith(own)] == []


def says(page, words):
    page.wait_for_function(f'document.querySelector("#status").textContent.includes({words!r})')
    return page.inner_text('#status')


@pytest.mark.slow
def test_the_runtime_for_a_gpu_is_checked_against_its_hashes_and_finds_the_same(open_page, site, tmp_path):
    config = json.loads((site / 'site.json').read_text())
    if RUNTIME is None or config['runtime']['version'] != VERSION:
        pytest.skip(f'WIDEHRNET_ORT_WEB does not name an unpacked npm package onnxruntime-web {VERSION}')
    pages = [open_page(), open_page(search='?engine=webgpu')]
    found = []
    for page, words in zip(pages, ('WebAssembly', 'WebGPU'), strict=True):
        page.click('#sample')
        says(page, 'found.')
        assert words in page.inner_text('#numbers')
        found.append(page.evaluate('window.seen.at(-1).people.map(({ points }) => points)'))
    # without a GPU the runtime computes on the processor
    np.testing.assert_allclose(*found, atol=0.5)
    config['runtime'] = runtime_config(None, tmp_path)
    open_page.allowed.append('https://cdn.jsdelivr.net/')

    def answer(spoil):
        def fulfill(route):
            content = (site / 'runtime' / route.request.url.rpartition('/')[2]).read_bytes() + spoil
            route.fulfill(body=content, headers={'Access-Control-Allow-Origin': '*'})

        return fulfill

    page.route('**/site.json', lambda route: route.fulfill(json=config))
    for spoil, words in ((b'', 'Ready'), (b' ', 'It failed')):
        page.unroute('https://cdn.jsdelivr.net/**')
        page.route('https://cdn.jsdelivr.net/**', answer(spoil))
        page.reload()
        says(page, words)


@pytest.mark.slow
@pytest.mark.parametrize('threads', [1, 2, 4])
def test_a_photo_gives_the_joints_of_the_estimator(open_page, finder, threads):
    page = open_page(threads=threads)
    page.set_input_files('#file', SAMPLE)
    says(page, 'found.')
    found = page.evaluate('window.seen.at(-1).people')
    detector = PersonFinder(LIGHT_FINDER, finder, device='cpu', flip_test=False)
    expected = PoseEstimator('widehrnet_10_attn', device='cpu', detector=detector)(SAMPLE)
    assert len(found) == len(expected) > 0
    for person, keypoints, scores in zip(found, expected.keypoints, expected.scores, strict=True):
        apart = np.hypot(*(np.array(person['points']) - keypoints).T)
        assert apart[scores > 0.2].max() < 1.5
        np.testing.assert_allclose(person['scores'], scores, atol=0.03)
    numbers = page.inner_text('#numbers')
    assert re.match(rf'{len(found)} (person|people), confidence \d+ %', numbers) and f'threads: {threads}' in numbers
    assert 'confidence' in page.get_attribute('#view', 'aria-label')
    # the keyboard reaches everything
    page.focus('#camera')
    reached = []
    for _ in range(6):
        reached.append(page.evaluate('document.activeElement.id'))
        page.keyboard.press('Tab')
    assert reached[0] == 'camera' and {'file', 'sample', 'mirror', 'model'} <= set(reached)
    pixels = '[...document.querySelector("#view").getContext("2d").getImageData(9, 9, 60, 9).data]'
    before = page.evaluate(pixels)
    page.check('#mirror')
    assert page.evaluate(pixels) != before


@pytest.fixture
def finder_that_ships(tmp_path):
    """What gives it to a page, instead of that of the tests."""
    if not finder_ships(LIGHT_FINDER):
        pytest.skip('the person finder is not in this installation')
    _write_finder(None, tmp_path)

    def give(page):
        page.route('**/finder.bin', lambda route: route.fulfill(path=tmp_path / 'finder.bin'))
        page.reload()
        says(page, 'Ready')

    return give


LOOKS = """async (shares) => {
  const { openFinder, openRuntime } = await import('./nets.js');
  const site = await (await fetch('site.json')).json();
  const find = await openFinder(await openRuntime(site.runtime, () => {}), site.finder);
  const picture = await createImageBitmap(await (await fetch('sample.jpg')).blob());
  const pen = new OffscreenCanvas(picture.width, picture.height).getContext('2d');
  pen.drawImage(picture, 0, 0);
  const image = pen.getImageData(0, 0, picture.width, picture.height);
  const looks = [];
  for (const share of shares) looks.push((await find(image, share)).map(({ box, score }) => [...box, score]));
  return looks;
}"""


@pytest.mark.slow
def test_a_photo_and_a_frame_of_a_video_have_the_boxes_of_the_person_finder(open_page, finder_that_ships):
    page = open_page()
    finder_that_ships(page)
    found = page.evaluate(LOOKS, [1, 0.5, 0.001])
    width, height = Image.open(SAMPLE).size
    for look, cells in zip(found, (100, 50, 1), strict=True):
        size = input_shape(width, height, (32 * cells, 32))
        boxes, scores = PersonFinder(LIGHT_FINDER, device='cpu', size=size)(SAMPLE)
        assert len(look) == len(scores) and (cells == 1 or len(scores))
        rows = np.reshape(look, (-1, 5))
        np.testing.assert_allclose(rows[:, 4], scores, atol=5e-3)
        # pixels of a photo of 949; two decoders of JPEG and two ways to make it smaller differ a little
        np.testing.assert_allclose(rows[:, :4], boxes, atol=10)


@pytest.mark.slow
def test_a_group_is_that_of_the_estimator_of_whom_five_are_looked_at_twice(open_page, finder_that_ships, tmp_path):
    pair, one = (Image.open(SAMPLE.with_name(name)).convert('RGB') for name in ('portraits.jpg', 'astronaut.jpg'))
    group = Image.new('RGB', (1100, 900))
    mirrored = [ImageOps.mirror(photo) for photo in (pair, one)]
    places = (620, (0, 0)), (480, (620, 0)), (400, (0, 420)), (300, (500, 420))
    for photo, (width, place) in zip((pair, mirrored[0], one, mirrored[1]), places, strict=True):
        group.paste(photo.resize((width, width * photo.height // photo.width)), place)
    group.save(tmp_path / 'group.png')
    detector = PersonFinder(LIGHT_FINDER, device='cpu')
    expected = PoseEstimator('widehrnet_10_attn', device='cpu', detector=detector)(tmp_path / 'group.png')
    page = open_page()
    finder_that_ships(page)
    page.set_input_files('#file', tmp_path / 'group.png')
    says(page, 'found.')
    found = page.evaluate('window.seen.at(-1).people')
    assert len(found) == len(expected) == 6
    points = np.array([person['points'] for person in found])
    furthest = []
    for keypoints, scores in zip(expected.keypoints, expected.scores, strict=True):
        apart = np.hypot(*(points - keypoints).transpose(2, 0, 1))
        row = np.median(apart, -1).argmin()
        np.testing.assert_allclose(found[row]['scores'], scores, atol=0.05)
        furthest.append(apart[row][scores > 0.2].max())
    # where a box lies between two steps of the grid, rounding chooses
    assert np.median(furthest) < 0.1 and max(furthest) < 2.5, furthest


@pytest.mark.slow
def test_a_model_that_loads_late_does_not_replace_the_one_chosen_since(open_page, site):
    page = open_page()
    config = json.loads((site / 'site.json').read_text())
    config['models'].append({**config['models'][0], 'name': 'late', 'padding': 3})
    page.route('**/site.json', lambda route: route.fulfill(json=config))
    held = []
    page.route('**/late.bin', lambda route: held.append(route))
    page.reload()
    says(page, 'Ready')
    with page.expect_request('**/late.bin'):
        page.select_option('#model', 'late')
    page.select_option('#model', config['models'][0]['name'])
    page.click('#sample')
    says(page, 'found.')
    with page.expect_response('**/late.bin'):
        held[0].fulfill(path=site / f'{config["models"][0]["name"]}.bin')
    page.wait_for_timeout(1000)  # it would look at the photo again
    assert page.evaluate('window.seen.length') == 2
    assert 'found.' in page.inner_text('#status')


@pytest.mark.slow
def test_a_damaged_network_gets_a_sentence(open_page, site):
    page = open_page()
    content = (site / 'finder.bin').read_bytes()
    page.route('**/finder.bin', lambda route: route.fulfill(body=content[:-4]))
    page.reload()
    assert says(page, 'It failed') == 'It failed: finder.bin is damaged: write the page anew.'


@pytest.mark.slow
def test_a_text_file_gets_a_sentence(open_page, tmp_path):
    page = open_page()
    (tmp_path / 'notes.txt').write_text('this is no photo\n' * 9)
    page.set_input_files('#file', tmp_path / 'notes.txt')
    assert says(page, 'notes.txt') == 'notes.txt is neither a photo nor a video that this browser can read.'
    page.click('#sample')
    assert 'found.' in says(page, 'found.')


def film(path, codec, frames=40, both=False):
    """The sample photo, slowly moving to the left; its left person large, or both of them."""
    av = pytest.importorskip('av')
    photo = Image.open(SAMPLE).convert('RGB')
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 640, 360 if both else 480
        stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        view = (909, 511) if both else (682, 511)
        for i in range(frames):
            image = np.asarray(photo.crop((i, 0, i + view[0], view[1])).resize((stream.width, stream.height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        container.mux(stream.encode(None))
    return path


def follow(seen, number):
    """Of the person with a number: the share of frames that show them, their largest step, and their colour."""
    people = [person for frame in seen for person in frame['people'] if person['number'] == number]
    noses = np.array([person['points'][0] for person in people])
    # where another's outline lies over it, a pixel is of another colour
    colour = Counter(person['colour'] for person in people).most_common(1)[0][0]
    return len(people) / len(seen), np.hypot(*np.diff(noses, axis=0).T).max(initial=0), colour


@pytest.mark.slow
def test_a_video_has_skeletons_in_every_frame_and_two_people_keep_their_colours(open_page, finder_that_ships, tmp_path):
    page = open_page()
    finder_that_ships(page)
    page.set_input_files('#file', film(tmp_path / 'film.webm', 'libvpx', both=True))
    says(page, 'has ended')
    seen = page.evaluate('window.seen')
    assert len(seen) >= 10 and all(s['size'] == [640, 360] for s in seen)
    assert all(s['people'] for s in seen)
    surest = sorted(seen[0]['people'], key=lambda person: -np.mean(person['scores']))[:2]
    tracks = [follow(seen, person['number']) for person in surest]
    for share, step, _ in tracks:
        assert share > 0.9 and step < 60, tracks
    assert tracks[0][2] != tracks[1][2]


@pytest.mark.slow
def test_the_camera_works_and_can_be_stopped(open_page, tmp_path):
    page = open_page(f'--use-file-for-fake-video-capture={film(tmp_path / "camera.mjpeg", "mjpeg")}')
    page.click('#camera')
    page.wait_for_function('window.seen.filter(({ people }) => people.length).length >= 5')
    assert 'frames per second' in page.inner_text('#numbers') and page.is_checked('#mirror')
    assert 'The camera is on.' in page.inner_text('#status')
    page.click('#stop')
    says(page, 'Stopped.')
    page.wait_for_timeout(1000)  # a frame that was on its way
    count = page.evaluate('window.seen.length')
    page.wait_for_timeout(2000)
    assert page.evaluate('window.seen.length') == count and page.is_disabled('#stop')


@pytest.mark.slow
def test_the_script_is_typed_and_linted():
    compiler, linter = shutil.which('tsc'), shutil.which('eslint')
    if compiler is None or linter is None:
        pytest.skip('no tsc and eslint (npm install -g typescript eslint) on this machine')
    options = ['--noEmit', '--checkJs', '--strict', '--target', 'es2022', '--module', 'es2022', '--lib']
    done = subprocess.run([compiler, *options, 'es2022,dom,dom.iterable', *PAGE.glob('*.js')], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
    rules = Path(__file__).resolve().parents[1] / 'scripts' / 'ci' / 'eslint.config.mjs'
    done = subprocess.run([linter, '-c', rules, PAGE], cwd=rules.parents[2], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
