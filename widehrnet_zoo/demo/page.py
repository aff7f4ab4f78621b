"""The page, made with Gradio."""

import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from ..pose.images import read_image
from .boxes import Box, Held, click, draw_view, view_size
from .live import EMPTY, LivePage
from .models import DemoModels
from .pose import find_keypoints, keypoint_rows, read_boxes, save_findings

SAMPLES = Path(__file__).parents[1] / 'samples'
EXAMPLE = SAMPLES / 'astronaut.jpg'

MAX_PIXELS = 50_000_000
"""Largest photo that is taken: those of telephones have up to 50 megapixels."""

MAX_UPLOAD = 20 * 1024**2
"""Largest file that is taken, in bytes."""

MAX_WAITING = 16
"""Requests that may wait; further ones are told to come back later."""

LIVE_VISITORS = 2
"""Cameras that are served at a time; further visitors wait."""

LIVE_SECONDS = 300
"""Seconds after which a camera is stopped, so that others have a turn."""

# the browser may show and encode frames on the processor that the network needs too: few and small ones leave it more
_CAMERA = {'video': {'width': {'ideal': 480}, 'height': {'ideal': 360}, 'frameRate': {'ideal': 15}}}

_LIVE_EVERY = 0.08
"""Seconds between frames that the browser sends, whether or not the one before is done."""

_HINT = (
    '**Boxes.** Without a box people are found in the image. For a box of your own click on two opposite corners in '
    'the picture with keypoints. To change one, click on the square of a corner or of its middle, and then where that '
    'should go; or type into the table.'
)

# the result stands beside photo and settings, and on a telephone between them; the bar of the time that is left moves
# sixty times a second
_STYLE = """
#parts {display: grid; grid-template: 'source' 'result' 'settings' / minmax(0, 1fr); align-items: start}
#source {grid-area: source} #result {grid-area: result} #settings {grid-area: settings}
@media (min-width: 700px) {
  #parts {grid-template: 'source result' auto 'settings result' 1fr / minmax(0, 2fr) minmax(0, 3fr)}
}
#camera .streaming-bar {display: none}
"""
_EMPTY = 'Drop a photo, take one, or click on the example.'


def _gradio() -> ModuleType:
    # read when gradio is imported; without it a start asks a server of Gradio's for news
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    return require('gradio', 'demo')


def _known(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those options that this version of Gradio has."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in names}


def _path(payload: Any) -> str | None:
    """The uploaded file of an image component."""
    return getattr(payload, 'path', None)


def build_page(models: DemoModels | None = None, max_pixels: int = MAX_PIXELS) -> Any:
    """Build the page.

    Args:
        models: What it offers; by default the models that ship.
        max_pixels: Largest photo that is taken.

    Returns:
        `gradio.Blocks`, with its queue: one request at a time, `MAX_WAITING` in the line.

    Raises:
        UserError: If there are no models.
        ImportError: If gradio is not installed.
    """
    gr = _gradio()
    models = models or DemoModels.find()
    doing = _Doing(gr, models, max_pixels)

    # Gradio gives the place of a click to the parameter that is annotated so
    def clicked(
        path: str | None,
        model: str,
        rows: Any,
        flip: bool,
        threshold: float,
        held: Held | None,
        event: gr.SelectData,  # type: ignore[name-defined]
    ) -> tuple[Any, ...]:
        return doing.click(path, model, rows, flip, threshold, held, event.index)

    with gr.Blocks(
        title='WideHRNet: human pose',
        analytics_enabled=False,
        delete_cache=(3600, 3600),
    ) as page:
        # here and not an option of `launch`, so that the page looks the same inside another app
        gr.HTML(f'<style>{_STYLE}</style>', padding=False)
        gr.Markdown(
            '# WideHRNet\nKeypoints of people in photos and before a camera, by light networks. Photos are deleted '
            'within two hours.'
        )
        held = gr.State(None)
        with gr.Tab('Photo'), gr.Row(elem_id='parts'):
            with gr.Column(elem_id='source', min_width=300):
                photo = gr.Image(
                    label='Photo',
                    type='filepath',
                    sources=['upload', 'webcam', 'clipboard'],
                    height=300,
                    format='png',
                    elem_id='photo',
                )
                # files are opened by `read_image`, so that limits and errors are ours; Gradio would open them before
                photo.preprocess = _path
                # not `gr.Examples`, a click on which replaces `photo` by an image that Gradio opens
                example = gr.Dataset(components=['image'], samples=[[str(EXAMPLE)]], label='Example')
            with gr.Column(elem_id='result', min_width=300):
                # a label or buttons would lie over corners that want to be clicked
                view = gr.Image(show_label=False, interactive=False, format='jpeg', elem_id='view', buttons=[])
                gr.Markdown('Left is blue, right is orange; the fainter, the less sure.')
                status = gr.Markdown(_EMPTY, elem_id='status')
                with gr.Row():
                    picture = gr.DownloadButton('Image (JPEG)', interactive=False, elem_id='picture')
                    data = gr.DownloadButton('Keypoints (JSON)', interactive=False, elem_id='data')
                table = gr.Dataframe(
                    headers=['person', 'keypoint', 'x', 'y', 'score'],
                    datatype=['number', 'str', 'number', 'number', 'number'],
                    interactive=False,
                    label='Keypoints, in pixels of the photo',
                    elem_id='table',
                )
            with gr.Column(elem_id='settings', min_width=300):
                model = gr.Dropdown(models.names, value=models.names[0], label='Model', elem_id='model')
                with gr.Accordion('Options', open=False):
                    flip = gr.Checkbox(False, label='Average with the mirrored photo (twice the work)')
                    threshold = gr.Slider(0, 1, 0.2, step=0.05, label='Draw keypoints with at least this score')
                gr.Markdown(_HINT)
                # text, as the cells of a new row of numbers would be 0, which is a box, instead of empty
                boxes = gr.Dataframe(
                    value=[],
                    headers=['x1', 'y1', 'x2', 'y2'],
                    datatype='str',
                    type='array',
                    interactive=True,
                    label='Boxes, in pixels',
                    elem_id='boxes',
                )
                clear = gr.Button('Remove all boxes', size='sm', elem_id='clear')
        _live_tab(gr, models)
        inputs = [photo, model, boxes, flip, threshold]
        outputs = [view, status, table, picture, data, boxes, held]
        # all share one slot: a network uses all cores by itself
        alone = {'concurrency_id': 'pose', 'concurrency_limit': 1}
        private = {'api_visibility': 'private'}
        example.click(lambda: read_image(EXAMPLE), None, photo, **private)
        photo.change(doing.open, inputs, outputs, **alone, **private)
        for changed in (model.input, flip.input, threshold.release, boxes.input):
            # the table tells of every cell that is typed
            changed(doing.find, inputs, outputs, trigger_mode='always_last', **alone, **private)
        clear.click(doing.open, inputs, outputs, **alone, **private)
        # a second click may come while the first is being served
        view.select(clicked, [*inputs, held], outputs, trigger_mode='multiple', **alone, **private)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


def _live_tab(gr: Any, models: DemoModels) -> None:
    live = LivePage(models)
    with gr.Tab('Live', elem_id='live'):
        with gr.Row():
            with gr.Column(min_width=300):
                camera = gr.Image(
                    label='Camera',
                    sources=['webcam'],
                    streaming=True,
                    height=300,
                    elem_id='camera',
                    # in a mirrored image left is right
                    webcam_options=gr.WebcamOptions(mirror=False, constraints=_CAMERA),
                )
                model = gr.Dropdown(models.names, value=models.for_camera, label='Model', elem_id='live-model')
                threshold = gr.Slider(0, 1, 0.2, step=0.05, label='Draw keypoints with at least this score')
            with gr.Column(min_width=300):
                shown = gr.Image(
                    show_label=False, interactive=False, streaming=True, format='jpeg', elem_id='live-view', buttons=[]
                )
                stops = f'It stops by itself after {LIVE_SECONDS // 60} minutes.'
                status = gr.Markdown(f'{EMPTY} {stops}', elem_id='live-status')
        known = gr.State(None)
        # somebody's camera holds a slot as long as it is on, which photos must not wait for
        camera.stream(
            live.look,
            [camera, model, threshold, known],
            [shown, status, known],
            stream_every=_LIVE_EVERY,
            time_limit=LIVE_SECONDS,
            show_progress='hidden',
            # what Gradio would show otherwise, out of sight, is drawn anew sixty times a second
            show_progress_on=[known],
            concurrency_id='live',
            concurrency_limit=LIVE_VISITORS,
            api_visibility='private',
        )


class _Doing:
    """What the page's events do; each gives the values of `outputs`."""

    def __init__(self, gradio: ModuleType, models: DemoModels, max_pixels: int):
        self.gradio = gradio
        self.models = models
        self.max_pixels = max_pixels
        self.folder = tempfile.TemporaryDirectory(prefix='widehrnet-demo-')

    def open(self, path: str | None, model: str, rows: Any, flip_test: bool, threshold: float) -> tuple[Any, ...]:
        """A new photo, or a fresh start: no boxes."""
        values = self.find(path, model, [], flip_test, threshold)
        return (*values[:5], [], None)

    def find(self, path: str | None, model: str, rows: Any, flip_test: bool, threshold: float) -> tuple[Any, ...]:
        """Find keypoints in the boxes of the table."""
        if path is None:
            return self._nothing(_EMPTY)
        try:
            values = self._find(path, self._read(path), model, rows, flip_test, threshold)
        except (UserError, ImportError) as error:
            return self._say(error, path)
        # somebody may be typing into the table
        return (*values[:5], self.gradio.skip(), None)

    def click(
        self,
        path: str | None,
        model: str,
        rows: Any,
        flip_test: bool,
        threshold: float,
        held: Held | None,
        place: Sequence[float],
    ) -> tuple[Any, ...]:
        """A click on the view, at x and y in its pixels."""
        if path is None:
            return self._nothing(_EMPTY)
        keep = self.gradio.skip()
        try:
            image = self._read(path)
            height, width = image.shape[:2]
            known = read_boxes(rows, (width, height))
            before: list[Box] = [] if known is None else [(a, b, c, d) for a, b, c, d in known.tolist()]
            scale = max(width, height) / max(view_size(width, height))
            x, y = ((float(v) + 0.5) * scale for v in place)
            if held is not None and held.index is not None and held.index >= len(before):
                held = None
            after, held = click(before, held, x, y, (width, height))
            if held is None:
                return self._find(path, image, model, after, flip_test, threshold)
            said = 'Now click on the opposite corner.' if held.index is None else 'Now click where that should go.'
            return draw_view(image, None, after, held), said, keep, keep, keep, keep, held
        except (UserError, ImportError) as error:
            return self._say(error, path)

    def _read(self, path: str) -> npt.NDArray[np.uint8]:
        return read_image(path, self.max_pixels)

    def _find(
        self, path: str, image: npt.NDArray[np.uint8], model: str, rows: Any, flip_test: bool, threshold: float
    ) -> tuple[Any, ...]:
        boxes = read_boxes(rows, (image.shape[1], image.shape[0]))
        findings = find_keypoints(self.models.get(model), image, boxes, flip_test, Path(path).name)
        folder = Path(self.folder.name)
        for old in folder.iterdir():
            old.unlink()
        picture, data = save_findings(findings, image, folder, threshold)
        drawn: list[Box] = [] if boxes is None else [(a, b, c, d) for a, b, c, d in boxes.tolist()]
        people = len(findings.result)
        times = ', '.join(f'{step} {value:.1f} ms' for step, value in findings.milliseconds.items())
        return (
            draw_view(image, findings.result, drawn, threshold=threshold),
            f'{people} {"person" if people == 1 else "people"}, {image.shape[1]} x {image.shape[0]} pixels. {times}.',
            keypoint_rows(findings.result),
            self.gradio.update(value=str(picture), interactive=True),
            self.gradio.update(value=str(data), interactive=True),
            [[round(v, 1) for v in box] for box in drawn],
            None,
        )

    def _say(self, error: Exception, path: str) -> tuple[Any, ...]:
        # where the server keeps an upload is nobody's business
        said = str(error).replace(path, Path(path).name)
        self.gradio.Warning(said)
        return self._nothing(said)

    def _nothing(self, said: str) -> tuple[Any, ...]:
        off = self.gradio.update(value=None, interactive=False)
        return None, said, [], off, off, self.gradio.skip(), None


def launch(
    models: DemoModels | None = None,
    host: str | None = None,
    port: int | None = None,
    max_upload: int = MAX_UPLOAD,
    max_pixels: int = MAX_PIXELS,
    open_browser: bool = False,
    wait: bool = True,
) -> Any:
    """Serve the page.

    Args:
        models: What it offers; by default the models that ship.
        host: Address to listen on; by default what the variable GRADIO_SERVER_NAME says, as it does in a Space, else
            127.0.0.1, which only this machine reaches.
        port: Port; by default the first free one from 7860.
        max_upload: Largest file, in bytes.
        max_pixels: Largest photo, in pixels.
        open_browser: Open it in a browser.
        wait: Serve until interrupted; otherwise return at once.

    Returns:
        `gradio.Blocks`, which serves; `close()` ends it.

    Raises:
        UserError: If there are no models, or the port is taken.
        ImportError: If gradio is not installed.
    """
    gr = _gradio()
    page = build_page(models, max_pixels)
    options = _known(
        page.launch,
        # named fonts would be fetched from Google's servers
        theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
        footer_links=['api'],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        state_session_capacity=64,
    )
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=max_upload,
            inbrowser=open_browser,
            share=False,
            show_error=False,
            prevent_thread_lock=True,
            quiet=True,
            **options,
        )
    except OSError as error:
        raise UserError(f'The page cannot be served on {host or "127.0.0.1"}, port {port or 7860}: {error}.') from error
    if wait:
        sys.stdout.write(f'{page.local_url} (Ctrl-C ends it)\n')
        sys.stdout.flush()
        page.block_thread()
    return page
