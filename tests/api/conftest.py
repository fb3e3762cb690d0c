"""What several files of tests ask for by name."""

import pytest
from kin_children import blocks

from kinfolk import resource_sharer


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
