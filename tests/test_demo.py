import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import widehrnet_zoo
from widehrnet_zoo import SKELETONS, PoseResult, UserError, create_model
from widehrnet_zoo.cli.main import build_parser
from widehrnet_zoo.demo import DemoModels, TimedEstimator, find_keypoints, keypoint_rows, launch
from widehrnet_zoo.demo.boxes import Held, click, draw_view, view_size
from widehrnet_zoo.demo.live import LivePage
from widehrnet_zoo.demo.page import SAMPLES, _Doing, build_page
from widehrnet_zoo.demo.pose import read_boxes, save_findings

PACKAGE = Path(widehrnet_zoo.__file__).parent
ASTRONAUT = SAMPLES / 'astronaut.jpg'
CHROMIUM = next(
    (path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))), None
)
SWITCHES = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


@pytest.fixture(scope='module')
def network(enliven):
    torch.manual_seed(0)
    return enliven(create_model('widehrnet_10'))


@pytest.fixture
def estimator(network):
    return TimedEstimator(network, size=(64, 64), detector=None)


@pytest.fixture
def photo():
    return np.asarray(Image.open(ASTRONAUT).convert('RGB'))


@pytest.fixture
def doing(network):
    said: list[str] = []
    gradio = types.SimpleNamespace(skip=lambda: 'as it was', update=dict, Warning=said.append, said=said)
    models = DemoModels({'small': lambda: TimedEstimator(network, size=(64, 64), detector=None)})
    return _Doing(gradio, models, max_pixels=512 * 512)


def test_a_photo_and_boxes_give_what_the_estimator_gives_and_times_that_add_up(estimator, photo):
    boxes = [[100, 20, 400, 500], [0, 0, 90, 200]]
    findings = find_keypoints(estimator, photo, boxes, flip_test=True, name='astronaut.jpg')
    expected = estimator(photo, boxes, flip_test=True)
    np.testing.assert_array_equal(findings.result.keypoints, expected.keypoints)
    assert findings.result.path == 'astronaut.jpg'
    times = findings.milliseconds
    assert list(times) == ['crop', 'network', 'decode', 'total']
    assert min(times.values()) > 0
    assert times['crop'] + times['network'] + times['decode'] == pytest.approx(times['total'])


def test_the_table_has_a_row_for_each_keypoint_in_words():
    points = np.array([[[1.26, 2.0], [3.0, 4.0]]], np.float32)
    kite = widehrnet_zoo.Skeleton('kite', ('top', 'left_corner'))
    result = PoseResult(points, np.array([[0.987, 0.5]]), np.ones((1, 4)), np.ones(1), kite, (9, 9))
    assert keypoint_rows(result) == [[1, 'top', 1.3, 2.0, 0.99], [1, 'left corner', 3.0, 4.0, 0.5]]


def test_the_downloads_are_the_full_picture_and_the_result(estimator, photo, tmp_path):
    findings = find_keypoints(estimator, photo, name='a' * 200 + '.png')
    picture, data = save_findings(findings, photo, tmp_path, 0.2)
    assert Image.open(picture).size == (512, 512)
    back = PoseResult.from_dict(json.loads(data.read_text()))
    np.testing.assert_array_equal(back.keypoints, findings.result.keypoints)


def test_typed_boxes_are_read_or_refused_in_a_sentence():
    rows = [['10', 20, '30.5', 40], ['', None, '', ''], [50, 60, 5, 6], [7, 8, 9, '']]
    np.testing.assert_array_equal(read_boxes(rows, (99, 99)), [[10, 20, 30.5, 40], [5, 6, 50, 60]])
    assert read_boxes([['', '', '', '']], (99, 99)) is None
    assert read_boxes(None, (99, 99)) is None
    for row, words in (
        (['a', 1, 2, 3], r'Box 1 is \(a, 1, 2, 3\)'),
        ([1, 2, 3], 'four numbers'),
        (['nan', 1, 2, 3], 'finite'),
        (['1e400', 1, 2, 3], 'finite'),
        ([1, 1, 1, 9], 'no area'),
        ([200, 200, 300, 300], 'outside'),
    ):
        with pytest.raises(UserError, match=words):
            read_boxes([row], (99, 99))
    with pytest.raises(UserError, match='33 boxes'):
        read_boxes([[1, 1, 9, 9]] * 33, (99, 99))


def test_two_clicks_make_a_box_whatever_corner_comes_first():
    for (a, b), (c, d) in (((10, 20), (60, 90)), ((60, 20), (10, 90)), ((60, 90), (10, 20))):
        boxes, held = click([], None, a, b, (100, 100))
        assert (boxes, held) == ([], Held(a, b))
        assert click(boxes, held, c, d, (100, 100)) == ([(10, 20, 60, 90)], None)


def test_clicks_move_a_corner_or_a_whole_box_and_stay_inside_the_photo():
    boxes = [(10.0, 20.0, 60.0, 90.0), (70.0, 70.0, 95.0, 95.0)]
    _, held = click(boxes, None, 59, 21, (100, 100))
    assert held == Held(10, 90, 0)
    assert click(boxes, held, 80, 5, (100, 100))[0] == [(10, 5, 80, 90), boxes[1]]
    assert click(boxes, held, 500, -3, (100, 100))[0] == [(10, 0, 100, 90), boxes[1]]
    _, held = click(boxes, None, 82, 83, (100, 100))
    assert held == Held(82.5, 82.5, 1, whole=True)
    assert click(boxes, held, 72.5, 62.5, (100, 100))[0] == [boxes[0], (60, 50, 85, 75)]
    assert click(boxes, held, 100, 100, (100, 100))[0] == [boxes[0], (75, 75, 100, 100)]


def test_a_first_corner_beside_another_box_begins_a_box_of_its_own():
    boxes = [(10.0, 20.0, 60.0, 90.0)]
    for x, y in ((62, 20), (60, 92.5), (7, 17), (35, 20), (37.5, 55)):
        assert click(boxes, None, x, y, (100, 100)) == (boxes, Held(x, y))
    view = np.asarray(draw_view(np.zeros((1000, 1000, 3), np.uint8), None, [(200.0, 300.0, 600.0, 800.0)]))
    assert view[310, 610].min() == 255  # what can be clicked on is what is drawn


def test_a_second_click_in_the_same_place_lets_go():
    boxes, held = click([], None, 50, 50, (100, 100))
    assert click(boxes, held, 50.4, 80, (100, 100)) == ([], None)


def test_the_view_is_small_and_shows_boxes_where_they_are():
    image = np.zeros((700, 2800, 3), np.uint8)
    view = draw_view(image, None, [(400.0, 100.0, 1200.0, 600.0)])
    assert view.size == view_size(2800, 700) == (1400, 350)
    pixels = np.asarray(view)
    for x, y in ((200, 50), (600, 300), (400, 50), (400, 175)):
        assert pixels[y, x].min() == 255, (x, y)
    assert pixels[100, 300].max() == 0


def test_the_finder_is_opened_before_the_clock_starts(network):
    seen = []
    finder = TimedEstimator(network, size=(64, 64), detector=lambda image: seen.append(image) or (np.zeros((0, 4)), []))
    finder.warm_up()
    assert len(seen) == 1 and finder.seconds == {'network': 0.0, 'forward': 0.0}

    def out_of_reach(image):
        raise UserError('offline')

    TimedEstimator(network, size=(64, 64), detector=out_of_reach).warm_up()  # boxes of one's own need no finder


def test_models_open_when_chosen_and_only_two_stay_open(network):
    opened = []

    def source(name):
        return lambda: opened.append(name) or TimedEstimator(network, size=(64, 64), detector=None)

    models = DemoModels({name: source(name) for name in 'abc'})
    assert opened == []
    for name in 'abaca':
        models.get(name)
    assert opened == ['a', 'b', 'c']
    models.get('b')
    assert opened == ['a', 'b', 'c', 'b']
    with pytest.raises(UserError, match='choose a, b, c'):
        models.get('d')
    with pytest.raises(UserError, match='name a model'):
        DemoModels({})


def test_models_are_named_by_arguments_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('WIDEHRNET_DEMO_MODELS', 'hf-hub:me/mine, ,widehrnet_10')
    models = DemoModels.find([str(tmp_path)])
    assert models.names[:3] == [str(tmp_path), 'hf-hub:me/mine', 'widehrnet_10']
    assert models.for_camera == str(tmp_path)
    with pytest.raises(UserError, match='no file or folder'):
        DemoModels.find([str(tmp_path / 'none')])
    monkeypatch.delenv('WIDEHRNET_DEMO_MODELS')
    models = DemoModels.find()
    assert models.names[0].startswith('widehrnet_18_attn.')
    assert models.for_camera in models.names and models.for_camera.startswith('widehrnet_10_attn.')


def test_a_new_photo_is_shown_with_its_keypoints_and_no_boxes(doing):
    view, status, table, picture, data, boxes, held = doing.open(str(ASTRONAUT), 'small', [[1, 2, 3, 4]], False, 0.2)
    assert view.size == (512, 512)
    assert re.fullmatch(
        r'1 person, 512 x 512 pixels\. crop [\d.]+ ms, network [\d.]+ ms, decode [\d.]+ ms, total [\d.]+ ms\.', status
    )
    assert [row[1] for row in table][:2] == ['nose', 'left eye']
    assert len(table) == 17
    assert Path(picture['value']).name == 'astronaut.pose.jpg'
    assert json.loads(Path(data['value']).read_text())['path'] == 'astronaut.jpg'
    assert (boxes, held) == ([], None)


def test_a_table_that_is_being_typed_in_is_left_alone(doing):
    values = doing.find(str(ASTRONAUT), 'small', [['', '', '', ''], [100, 20, 400, 500], [1, 2, '', '']], False, 0.2)
    assert values[5] == 'as it was'
    assert values[2] == keypoint_rows(doing.models.get('small')(ASTRONAUT, [[100, 20, 400, 500]]))


def test_two_clicks_on_the_view_find_keypoints_in_the_new_box(doing):
    first = doing.click(str(ASTRONAUT), 'small', [], False, 0.2, None, [50, 20])
    assert 'opposite corner' in first[1]
    assert first[2:6] == ('as it was',) * 4
    second = doing.click(str(ASTRONAUT), 'small', [], False, 0.2, first[6], [449, 499])
    assert second[5] == [[50.5, 20.5, 449.5, 499.5]]
    expected = doing.models.get('small')(ASTRONAUT, [[50.5, 20.5, 449.5, 499.5]])
    assert second[2] == keypoint_rows(expected)


@pytest.mark.parametrize('kind', ['text', 'cut', 'large', 'empty', 'gone'])
def test_a_bad_file_gets_a_sentence_without_the_servers_paths_and_clears_the_page(kind, doing, tmp_path):
    file = tmp_path / 'holiday.jpg'
    if kind == 'large':
        Image.new('RGB', (513, 512)).save(file)
    elif kind != 'gone':
        content = {'text': b'this is no photo\n' * 9, 'cut': ASTRONAUT.read_bytes()[:3000], 'empty': b''}[kind]
        file.write_bytes(content)
    view, status, table, picture, data, *_ = doing.open(str(file), 'small', [], False, 0.2)
    assert view is None
    assert table == []
    assert picture == data == {'value': None, 'interactive': False}
    assert 'holiday.jpg' in status
    assert str(tmp_path) not in status
    assert '\n' not in status
    assert doing.gradio.said == [status]


class SeesOne:
    """An estimator that sees the same pose in every box."""

    skeleton = SKELETONS['coco']

    def warm_up(self):
        pass

    def __call__(self, image, boxes):
        points = np.linspace((100, 100), (300, 400), 17)[None].repeat(len(boxes), 0)
        return PoseResult(points, np.full((len(boxes), 17), 0.9), boxes, np.ones(len(boxes)), self.skeleton, (512, 512))


def test_frames_of_a_camera_are_followed_as_in_videos_and_their_rate_is_said(photo):
    now = [0.0]
    page = LivePage(DemoModels({'one': SeesOne, 'other': SeesOne}), lambda: now[0])
    assert page.look(None, 'one', 0.2, None) == (None, 'Start the camera.', None)
    live = None
    for frame in range(4):
        now[0] += 0.1
        shown, said, live = page.look(photo, 'one', 0.2, live)
        assert shown.shape == photo.shape and (shown != photo).any()
        assert said == ('1 person (number 1), 10.0 frames per second.' if frame else '1 person (number 1).')
    # another model, and a camera that was stopped, begin anew
    for pause, model in ((0.1, 'other'), (9.0, 'one')):
        now[0] += pause
        _, said, new = page.look(photo, model, 0.2, live)
        assert new is not live and said == '1 person (number 1).'
    # and so does a telephone that is turned
    now[0] += 0.1
    assert page.look(photo.transpose(1, 0, 2)[:, 9:], 'one', 0.2, new)[1] == '1 person (number 1).'
    assert page.look(photo, 'none', 0.2, live)[1:] == ("There is no model 'none' here: choose one, other.", None)


def test_an_empty_page_and_wrong_boxes_are_said(doing):
    assert doing.find(None, 'small', [], False, 0.2)[0] is None
    assert 'outside' in doing.find(str(ASTRONAUT), 'small', [[900, 900, 950, 950]], False, 0.2)[1]
    assert 'no model' in doing.find(str(ASTRONAUT), 'other', [], False, 0.2)[1]


def test_the_command_listens_on_this_machine_only_unless_told(capsys):
    args = build_parser().parse_args(['demo'])
    assert args.host == '127.0.0.1'
    for wrong in (['--max-mb', '0'], ['--max-megapixels', 'nan'], ['--port', '70000']):
        with pytest.raises(UserError, match=wrong[0]):
            args = build_parser().parse_args(['demo', *wrong])
            args.run(args)


def test_the_space_says_what_hugging_face_needs():
    text = (PACKAGE / 'demo/space/README.md').read_text()
    front = dict(line.split(': ', 1) for line in text.split('---\n')[1].splitlines())
    assert front['sdk'] == 'gradio'
    assert front['license'] == 'apache-2.0'
    assert (PACKAGE / 'demo/space' / front['app_file']).is_file()
    assert len(front['short_description']) <= 60
    for colour in ('colorFrom', 'colorTo'):
        assert front[colour] in ('red', 'yellow', 'green', 'blue', 'indigo', 'purple', 'pink', 'gray')


def test_after_a_click_on_the_example_photos_are_still_opened_by_ours():
    pytest.importorskip('gradio')
    from gradio.state_holder import SessionState

    page = build_page(DemoModels({'small': TimedEstimator}))
    example = next(f for f in page.fns.values() if page.blocks[f.targets[0][0]].get_block_name() == 'dataset')
    photo, session = example.outputs[0], SessionState(page)
    shown = asyncio.run(page.process_api(example, [0] * len(example.inputs), session))['data'][0]
    np.testing.assert_array_equal(Image.open(shown['path']), Image.open(ASTRONAUT))
    assert session[photo._id].preprocess(types.SimpleNamespace(path='a.heic')) == 'a.heic'


@pytest.fixture(scope='module')
def page(network):
    pytest.importorskip('gradio')
    models = DemoModels({'small': lambda: TimedEstimator(network, size=(64, 64), detector=None)})
    page = launch(models, host='127.0.0.1', port=free_port(), max_upload=100_000, wait=False)
    yield page
    page.close(verbose=False)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return taken.getsockname()[1]


def post(url: str, content: bytes, kind: str) -> bytes:
    request = urllib.request.Request(url, content, {'Content-Type': kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def upload(page, content: bytes) -> bytes:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + content + b'\r\n--x--\r\n'
    return post(f'{page.local_url}gradio_api/upload', body, 'multipart/form-data; boundary=x')


@pytest.mark.slow
def test_uploads_and_the_queue_are_bounded_and_other_files_stay_closed(page):
    assert json.loads(upload(page, bytes(50_000)))
    with pytest.raises(urllib.error.HTTPError) as refused:
        upload(page, bytes(200_000))
    assert refused.value.code == 413
    assert page._queue.max_size == 16
    assert {f.concurrency_id for f in page.fns.values() if f.fn and f.queue} >= {'pose'}
    assert all(f.concurrency_limit == 1 for f in page.fns.values() if f.concurrency_id == 'pose')
    secret = {'path': '/etc/hosts', 'meta': {'_type': 'gradio.FileData'}}
    boxes = {'headers': ['x1', 'y1', 'x2', 'y2'], 'data': [], 'metadata': None}
    asked = {'data': [secret, 'small', boxes, False, 0.2], 'fn_index': 0, 'session_hash': 'test'}
    post(f'{page.local_url}gradio_api/queue/join', json.dumps(asked).encode(), 'application/json')
    with urllib.request.urlopen(f'{page.local_url}gradio_api/queue/data?session_hash=test', timeout=60) as stream:
        said = next(line for line in stream if b'process_completed' in line)
    assert json.loads(said[6:])['success'] is False


@pytest.mark.slow
def test_the_space_runs_as_it_is_and_reaches_no_other_machine(network, tmp_path):
    pytest.importorskip('gradio')
    from widehrnet_zoo.hub.saving import save_pretrained

    model = save_pretrained(network, tmp_path / 'model', size=(64, 64))
    shutil.copytree(PACKAGE / 'demo/space', tmp_path / 'space')
    (tmp_path / 'sitecustomize.py').write_text(
        'import sys\n'
        'def note(event, args):\n'
        '    if event in ("socket.getaddrinfo", "socket.connect"):\n'
        '        with open(sys.argv[0] + ".net", "a") as file:\n'
        '            print(event, args[0] if event.endswith("info") else args[1], file=file)\n'
        'sys.addaudithook(note)\n'
    )
    port = free_port()
    environment = {**os.environ, 'WIDEHRNET_DEMO_MODELS': str(model), 'GRADIO_SERVER_PORT': str(port)}
    environment |= {'PYTHONPATH': f'{tmp_path}{os.pathsep}{PACKAGE.parent}', 'GRADIO_SERVER_NAME': '0.0.0.0'}
    environment.pop('GRADIO_ANALYTICS_ENABLED', None)
    app = tmp_path / 'space/app.py'
    with open(tmp_path / 'log', 'w') as log:
        server = subprocess.Popen([sys.executable, str(app)], cwd=app.parent, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240
        while 'Ctrl-C' not in (tmp_path / 'log').read_text():
            assert server.poll() is None, (tmp_path / 'log').read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=60) as answer:
            assert b'WideHRNet' in answer.read()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    calls = Path(f'{app}.net').read_text().splitlines()
    assert calls
    assert [c for c in calls if not re.search(r'127\.0\.0\.1|localhost|0\.0\.0\.0|None|::', c)] == []


@contextlib.contextmanager
def tab_of(page, *switches):
    """A tab with the page, which asks no other machine for anything."""
    playwright = pytest.importorskip('playwright.sync_api')
    if CHROMIUM is None:
        pytest.skip('no Chromium on this machine')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*SWITCHES, *switches])
        tab = browser.new_page(viewport={'width': 1280, 'height': 1300}, accept_downloads=True)
        tab.set_default_timeout(120_000)
        asked: list[str] = []
        tab.on('request', lambda request: asked.append(request.url))
        tab.goto(page.local_url)
        yield tab
        browser.close()
    assert [url for url in asked if not url.startswith((page.local_url, 'data:', 'blob:'))] == []


@pytest.mark.slow
def test_in_a_browser_a_photo_goes_in_and_joints_come_out(page, tmp_path):
    with tab_of(page) as tab:

        def status_says(words: str) -> str:
            tab.wait_for_function(f"document.querySelector('#status')?.innerText.includes({words!r})")
            return tab.inner_text('#status')

        status_says('Drop a photo')
        tab.locator('[data-testid=image] >> nth=0').or_(tab.locator('.gallery-item')).last.click()
        status_says('network')
        tab.click('#photo button[aria-label="Clear"], #photo button[aria-label="Remove Image"]')
        status_says('Drop a photo')
        tab.set_input_files('#photo input[type=file]', ASTRONAUT)
        assert '1 person, 512 x 512' in status_says('network')
        tab.wait_for_selector('#view img')
        assert 'left shoulder' in tab.inner_text('#table')

        for x, y, words in ((0.1, 0.05, 'opposite corner'), (0.9, 0.95, 'network')):
            # a click on a picture that is still being loaded has no place in it
            tab.wait_for_function("document.querySelector('#view img')?.naturalWidth === 512")
            place = tab.locator('#view img').bounding_box()
            position = {'x': x * place['width'], 'y': y * place['height']}
            tab.locator('#view img').click(position=position)
            status_says(words)
        with tab.expect_download() as download:
            tab.click('#data')
        result = PoseResult.from_dict(json.loads(Path(download.value.path()).read_text()))
        np.testing.assert_allclose(result.boxes, [[51, 26, 461, 486]], atol=2)
        assert result.skeleton == SKELETONS['coco']
        with tab.expect_download() as download:
            tab.click('#picture')
        drawn = np.asarray(Image.open(download.value.path())).astype(int)
        x, y = result.keypoints[0, result.scores[0].argmax()].round().astype(int).clip(0, 511)
        plain = np.asarray(Image.open(ASTRONAUT)).astype(int)
        assert np.abs(drawn - plain)[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].max() > 40
        shown = Image.open(io.BytesIO(tab.locator('#view img').screenshot())).convert('RGB').resize((512, 512))
        assert np.abs(np.asarray(shown).astype(int) - drawn).mean() < 12

        (tmp_path / 'notes.jpg').write_text('this is no photo\n' * 9)
        tab.click('#photo button[aria-label="Clear"], #photo button[aria-label="Remove Image"]')
        status_says('Drop a photo')
        tab.set_input_files('#photo input[type=file]', tmp_path / 'notes.jpg')
        assert 'notes.jpg is not an image' in status_says('notes.jpg')
        assert 'Traceback' not in tab.inner_text('body')
        assert tab.locator('#view img').count() == 0

        def top(part: str) -> float:
            return tab.locator(part).bounding_box()['y']

        assert top('#result') == top('#source') < top('#settings')
        tab.set_viewport_size({'width': 390, 'height': 844})
        assert top('#source') < top('#result') < top('#settings')


@pytest.mark.slow
def test_in_a_browser_the_camera_gives_skeletons(page, tmp_path):
    av = pytest.importorskip('av')
    photo = Image.open(ASTRONAUT).convert('RGB')
    with av.open(str(tmp_path / 'camera.mjpeg'), 'w') as container:
        stream = container.add_stream('mjpeg', rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, 'yuvj420p'
        for i in range(20):
            image = np.asarray(photo.crop((i, 0, i + 492, 369)).resize((640, 480)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        container.mux(stream.encode(None))
    fake = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
    fake.append(f'--use-file-for-fake-video-capture={tmp_path / "camera.mjpeg"}')
    with tab_of(page, *fake) as tab:
        tab.get_by_role('tab', name='Live').click()
        tab.locator('#camera button', has_text='Access').or_(tab.locator('#camera [title*="webcam" i]')).first.click()
        tab.locator('#camera [title="start recording"]').click()
        tab.wait_for_function("document.querySelector('#live-status')?.innerText.includes('frames per second')")
        assert re.search(r'\d+ (person|people).*, [\d.]+ frames per second\.', tab.inner_text('#live-status'))
        tab.wait_for_function("document.querySelector('#live-view img')?.naturalWidth === 480")
        if 'WIDEHRNET_SCREENSHOTS' in os.environ:
            tab.screenshot(path=Path(os.environ['WIDEHRNET_SCREENSHOTS']) / 'live.png')
