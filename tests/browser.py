"""What tests of pages share, beside the fixture `page` of conftest.py: a server, and pictures."""

import functools
import http.server
import threading
from pathlib import Path

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"  # to be looked at
PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 900}


@functools.cache
def served(site):
    """Serve a folder on 127.0.0.1 until the tests end; return its address."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def picture(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
