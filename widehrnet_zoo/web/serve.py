"""Serve the page's folder on this machine."""

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..errors import UserError


class _Handler(SimpleHTTPRequestHandler):
    # whatever the system's own table says: a browser runs no script of another type
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        '.js': 'text/javascript',
        '.mjs': 'text/javascript',
        '.wasm': 'application/wasm',
        '.json': 'application/json',
    }

    def end_headers(self) -> None:
        self.send_header('Cache-Control', 'no-cache')
        # with these two, browsers let the page's threads share memory
        self.send_header('Cross-Origin-Opener-Policy', 'same-origin')
        self.send_header('Cross-Origin-Embedder-Policy', 'require-corp')
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder on 127.0.0.1, which no other machine reaches.

    Args:
        folder: As from `write_site`.
        port: 0 for any free one.

    Returns:
        The server; its `serve_forever()` serves, and `server_address[1]` is its port.

    Raises:
        UserError: If the folder is not there, or the port cannot be had.
    """
    folder = Path(folder)
    if not (folder / 'index.html').is_file():
        raise UserError(f'{folder} holds no page: expected index.html in it.')
    try:
        return ThreadingHTTPServer(('127.0.0.1', port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UserError(f'Port {port} cannot be had: {error.strerror}. Choose another one.') from error
