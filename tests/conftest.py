"""The fixture that runs a test once for each instruction set of this machine."""

import pytest

from cysoftmax import _core


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """The name of the instruction set that the test runs on."""
    previous = _core.active_isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(previous)
