"""Milliseconds of the page's networks in Chromium, beside MoveNet Lightning run by TensorFlow.js in the same browser.

    python scripts/docs/web_speed.py SITE NPM

SITE is a folder of `widehrnet export --format web`, whose script runs as on the page, with cutting out and decoding;
NPM has the unpacked npm packages `human-models` (@vladmandic), `tfjs` and `tfjs-backend-wasm` (@tensorflow) as
folders of these names. Needs Chromium and Python's playwright. The contenders take turns, a few runs each, so that
whatever else the machine does meets all of them; printed is the table of docs/web.md: the median of all runs, the
fastest run, and the processor time of the page's process per run, which says most where the machine is not quiet.
"""

import http.server
import json
import shutil
import statistics
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from widehrnet_zoo.detection.finder import input_shape
from widehrnet_zoo.web.serve import _Handler

ROUNDS, TURN = 8, 8
LIVE_SHARE = 0.5  # as in the page's main.js
PAGE = """<!doctype html>
<base href="/site/">
<script src="/npm/tfjs/dist/tf.min.js"></script>
<script src="/npm/tfjs-backend-wasm/dist/tf-backend-wasm.min.js"></script>
<script type="module">
const pixels = (count) => Uint8Array.from({ length: count }, (_, i) => (i * 7919) % 251);
window.ours = async (config, [height, width], share, site, threads) => {
  Object.defineProperty(navigator, 'hardwareConcurrency', { value: threads });
  const { openFinder, openPose, openRuntime } = await import('/site/nets.js');
  const runtime = await openRuntime(site.runtime, () => {});
  const image = new ImageData(new Uint8ClampedArray(pixels(4 * height * width)), width, height);
  const net = await (config.padding ? openPose : openFinder)(runtime, config);
  window.once = () => (config.padding ? net.look(image, [[0, 0, width, height]]) : net(image, share));
};
window.movenet = async (threads) => {
  tf.wasm.setWasmPaths('/npm/tfjs-backend-wasm/dist/');
  tf.wasm.setThreadsCount(threads);
  if (threads === 1) tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  await tf.setBackend('wasm');
  const model = await tf.loadGraphModel('/npm/human-models/models/movenet-lightning.json');
  const image = Int32Array.from(pixels(192 * 192 * 3));
  window.once = async () => {
    const input = tf.tensor(image, [1, 192, 192, 3], 'int32');
    const output = model.execute(input);
    await output.data();
    tf.dispose([input, output]);
  };
};
window.time = async (count) => {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await window.once();
    times.push(performance.now() - start);
  }
  return times;
};
window.ready = true;
</script>
"""


def _processor_time(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) * 10.0


def _renderer(folder: str) -> int:
    """The process of the browser's page that has worked most; there is one browser to a folder of settings."""
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            words = (entry / 'cmdline').read_bytes().decode(errors='replace')
        except OSError:
            continue
        if '--type=renderer' in words and folder in words:
            found.append((_processor_time(int(entry.name)), int(entry.name)))
    return max(found)[1]


def main(site: Path, npm: Path) -> None:
    """Print the table."""
    config = json.loads((site / 'site.json').read_text())
    networks = [(net['name'], net, net['size'], 1.0) for net in config['models']]
    finder = config['finder']
    height, width = finder['size']
    # of a frame of 4:3, as the page looks at videos
    frame = input_shape(4, 3, (height, int(LIVE_SHARE * width)))
    networks += [
        ('person finder, a frame', finder, frame, LIVE_SHARE),
        ('person finder, a photo', finder, finder['size'], 1.0),
    ]
    ours = [
        (f'{name}, {size[0]}x{size[1]}', threads, f'ours({json.dumps([net, size, share, config])[1:-1]}, {threads})')
        for name, net, size, share in networks
        for threads in (1, 2)
    ]
    theirs = [('MoveNet Lightning, 192x192, TensorFlow.js', count, f'movenet({count})') for count in (1, 2)]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        root = Path(name)
        (root / 'site').symlink_to(site.resolve())
        (root / 'npm').symlink_to(npm.resolve())
        (root / 'index.html').write_text(PAGE)
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(_Handler, directory=name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print('| network | threads | median ms | fastest ms | processor ms |\n|---|---:|---:|---:|---:|')
        open_: list[tuple[str, int, Any, int, list[float], list[float]]] = []
        for label, threads, call in (*ours, *theirs):
            folder = tempfile.mkdtemp(dir=root)
            browser = driver.chromium.launch_persistent_context(
                folder, executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu']
            )
            page = browser.new_page()
            page.set_default_timeout(300_000)
            page.goto(f'http://127.0.0.1:{server.server_address[1]}/')
            page.wait_for_function('window.ready')
            page.evaluate(call)
            page.evaluate('time(20)')
            open_.append((label, threads, page, _renderer(folder), [], []))
        for _ in range(ROUNDS):
            for _, _, page, process, times, work in open_:
                before = _processor_time(process)
                times += page.evaluate(f'time({TURN})')
                work.append((_processor_time(process) - before) / TURN)
        for label, threads, page, _, times, work in open_:
            row = (statistics.median(times), min(times), statistics.median(work))
            print(f'| {label} | {threads} | ' + ' | '.join(f'{value:.1f}' for value in row) + ' |', flush=True)
            page.context.close()
        server.shutdown()


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
