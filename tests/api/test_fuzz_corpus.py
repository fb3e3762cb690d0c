"""The corpus of the fuzzer of the Unpickler, as a regression test: see tests/fuzz/fuzz_unpickler.py."""

import pathlib
import random
import sys

import pytest

FUZZ = pathlib.Path(__file__).parent.parent / "fuzz"
CORPUS = sorted((FUZZ / "corpus").iterdir())


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(FUZZ))
    try:
        import fuzz_unpickler

        yield fuzz_unpickler.check
    finally:
        sys.path.remove(str(FUZZ))


def test_corpus(check):
    assert CORPUS
    for file in CORPUS:
        try:
            check(file.read_bytes())
        except AssertionError as error:
            pytest.fail(f"{file.name}: {error}")


def test_corpus_cut_short(check):
    """Each end that a broken connection could make of it."""
    for file in CORPUS:
        data = file.read_bytes()
        for end in range(min(len(data), 40)):
            check(data[:end])


@pytest.mark.parametrize("seed", range(4))
def test_corpus_with_errors(check, seed):
    """What a small fuzzer without any guidance finds in a second."""
    rng = random.Random(seed)
    datas = [file.read_bytes() for file in CORPUS]
    for _ in range(1500):
        data = bytearray(rng.choice(datas)[:400] or b"N.")
        for _ in range(rng.randrange(1, 5)):
            where = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[where] = rng.randrange(256)
            elif how == 1:
                data.insert(
                    where, rng.choice(b"012()]}.NKRbesuaql\x81\x85\x86\x87\x8f\x90\x93\x94")
                )
            elif how == 2 and len(data) > 1:
                del data[where]
            else:
                other = rng.choice(datas)[:100]
                data[where:where] = other
        check(bytes(data[:2000]))
