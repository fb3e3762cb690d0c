"""What several files of tests ask for by name."""

import pytest
from kin_children import blocks

import kinfolk
from kinfolk import resource_sharer
from kinfolk.forkserver import _forkserver


@pytest.fixture
def balanced():
    """The arena holds as many blocks afterwards as before."""
    before = blocks()
    yield
    assert blocks() == before


@pytest.fixture
def sharer():
    """What was pickled outside of messages is let go of afterwards."""
    yield
    resource_sharer.stop(timeout=60)


@pytest.fixture
def own_server():
    """A fork server that the test may do with as it likes."""
    _forkserver._stop()
    preload = _forkserver._preload_modules
    yield _forkserver
    _forkserver._stop()
    kinfolk.set_forkserver_preload(preload)
    _forkserver.ensure_running()
