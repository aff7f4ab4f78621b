"""Take the picture of docs/web.md: the page with a photo, in Chromium.

    python scripts/docs/web_figure.py SITE [PHOTO]

SITE is a folder of `widehrnet export --format web --runtime ...`. Needs Chromium and Python's playwright.
"""

import io
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from widehrnet_zoo.web import serve

OUT = Path(__file__).resolve().parents[2] / 'docs' / 'images' / 'web.png'


def main(site: Path, photo: Path) -> None:
    """Write the picture."""
    with serve(site) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': 900, 'height': 860})
        page.goto(f'http://127.0.0.1:{server.server_address[1]}/?engine=wasm')
        status = 'document.querySelector("#status").textContent'
        page.wait_for_function(f'{status}.startsWith("Ready")', timeout=120_000)
        page.set_input_files('#file', photo)
        page.wait_for_function(f'{status}.includes("found.")', timeout=120_000)
        picture = Image.open(io.BytesIO(page.screenshot())).convert('RGB')
        picture.quantize(256).save(OUT, optimize=True)
        browser.close()
        server.shutdown()


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else Path(sys.argv[1]) / 'sample.jpg'))
