"""Fixtures: each instruction set of this machine; the floating-point unit's mode; a browser."""

import ctypes
import ctypes.util
import platform
import shutil
import sys

import browser as screens
import pytest

from cysoftmax import _core

pytest.register_assert_rewrite("calls", "cases")


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """The name of the instruction set that the test runs on."""
    previous = _core.active_isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(previous)


class Environment:
    """Mode and flags of the floating-point unit of this thread, as C's <fenv.h> keeps them."""

    # Where a fenv_t, seen as 32-bit words, has the mode and the flags; what flushes denormals
    # to zero, on input and on output; what rounds upward; the inexact flag; all flags; all of
    # the mode.
    LAYOUTS = {  # noqa: RUF012
        "x86_64": (7, 7, 0x8040, 0x4000, 0x20, 0x3F, 0xFFC0),
        "aarch64": (0, 1, 1 << 24, 1 << 22, 0x10, 0x9F, 0xFFFFFFFF),
    }

    def __init__(self):
        layout = self.LAYOUTS[platform.machine()]
        self.mode_at, self.flags_at, self.flush, self.upward, *masks = layout
        self.inexact, self.all_flags, self.all_mode = masks
        self.libm = ctypes.CDLL(ctypes.util.find_library("m"))

    def words(self):
        words = (ctypes.c_uint32 * 16)()
        self.libm.fegetenv(words)
        return words

    def get(self):
        words = self.words()
        return words[self.mode_at] & self.all_mode, words[self.flags_at] & self.all_flags

    def set(self, mode, flags):
        words = self.words()
        words[self.flags_at] = words[self.flags_at] & ~self.all_flags | flags
        words[self.mode_at] = words[self.mode_at] & ~self.all_mode | mode
        self.libm.fesetenv(words)


@pytest.fixture
def environment():
    if sys.platform != "linux" or platform.machine() not in Environment.LAYOUTS:
        pytest.skip("the layout of fenv_t is not known here")
    environment = Environment()
    found = environment.get()
    yield environment
    environment.set(*found)


@pytest.fixture(scope="session")
def browser():
    """Chromium, which keeps nothing from one context to another."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(browser):
    """A context of the test's own: each page loads what it needs."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context):
    """A page; at the end of the test: no error, and no request to anywhere else."""
    page = context.new_page()
    page.set_viewport_size(screens.DESK)
    page.set_default_timeout(10_000)
    errors, requests = [], []
    page.on("console", lambda m: m.type == "error" and errors.append(m.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda r: r.status >= 400 and errors.append(f"{r.status} {r.url}"))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    page.close()
    assert errors == []
    assert requests
    assert [url for url in requests if not url.startswith("http://127.0.0.1:")] == []
