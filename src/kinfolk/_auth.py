"""The handshake by which two ends of a connection prove that they hold one key.

Each side in turn is the judge.  The judge sends `#CHALLENGE#` and a nonce;
the other answers with the HMAC of the nonce under the key; the judge says
`#WELCOME#` or `#FAILURE#`.  The key itself never travels, and each message
is bounded, so that a stranger can make neither side read much.

There are two dialects on the wire, and each Python speaks one when it judges:

    before 3.12    nonce: 20 random bytes           answer: 16 bytes, HMAC-MD5
    3.12 and on    nonce: {sha256}40 random bytes   answer: {sha256}32 bytes

They meet without a word about versions.  An old answerer takes the whole
nonce, braces and all, for random bytes and sends its 16 bytes, whose length
gives it away; a new answerer knows an old judge by the length of the nonce.
The HMAC covers the nonce's prefix too, so nobody between the two can
talk them into a weaker digest than the answerer chose to read.
"""

import os
import sys

from .context import AuthenticationError

__all__ = ["deliver_challenge", "answer_challenge"]

_CHALLENGE = b"#CHALLENGE#"
_WELCOME = b"#WELCOME#"
_FAILURE = b"#FAILURE#"

_MODERN = sys.version_info >= (3, 12)
MESSAGE_LENGTH = 40 if _MODERN else 20
_DIGEST_NAME = "sha256" if _MODERN else None

_MAX_MESSAGE = 256
_OLD_NONCE_LENGTH = 20
_OLD_LENGTHS = (_OLD_NONCE_LENGTH, 16)
_ALLOWED_DIGESTS = frozenset((b"md5", b"sha256", b"sha384", b"sha3_256", b"sha3_384"))


def deliver_challenge(connection, authkey, digest_name=_DIGEST_NAME):
    """Make the other end of `connection` prove that it holds `authkey`.

    `digest_name` is the digest asked for; None asks in the old dialect.
    AuthenticationError when the answer is wrong (the peer has been told so),
    ValueError when `authkey` is not bytes.
    """
    _check_key(authkey)
    nonce = os.urandom(MESSAGE_LENGTH if digest_name else _OLD_NONCE_LENGTH)
    if digest_name:
        nonce = b"{%s}%s" % (digest_name.encode("ascii"), nonce)
    connection.send_bytes(_CHALLENGE + nonce)
    response = connection.recv_bytes(_MAX_MESSAGE)
    try:
        _verify_challenge(authkey, nonce, response)
    except AuthenticationError:
        connection.send_bytes(_FAILURE)
        raise
    connection.send_bytes(_WELCOME)


def answer_challenge(connection, authkey):
    """Prove to the other end of `connection` that we hold `authkey`.

    AuthenticationError when the peer breaks the protocol or rejects the
    answer, ValueError when `authkey` is not bytes.
    """
    _check_key(authkey)
    message = connection.recv_bytes(_MAX_MESSAGE)
    if not message.startswith(_CHALLENGE):
        raise AuthenticationError(f"Protocol error, expected challenge: {message=}")
    nonce = message[len(_CHALLENGE) :]
    if _MODERN and len(nonce) < _OLD_NONCE_LENGTH:
        raise AuthenticationError(f"challenge too short: {len(nonce)} bytes")
    connection.send_bytes(_create_response(authkey, nonce))
    if connection.recv_bytes(_MAX_MESSAGE) != _WELCOME:
        raise AuthenticationError("digest sent was rejected")


def _create_response(authkey, message):
    """Return the proof that a peer which sent the nonce `message` will accept."""
    name = _digest_prefix(message)
    if not name:
        try:
            return _mac(authkey, message, "md5")
        except ValueError:
            # This interpreter has no MD5 (a FIPS build).  A new peer takes
            # the better digest; an old one would not have understood us at all.
            name = "sha256"
    return b"{%s}%s" % (name.encode("ascii"), _mac(authkey, message, name))


def _verify_challenge(authkey, message, response):
    """Raise AuthenticationError unless `response` proves the key for nonce `message`."""
    name = _digest_prefix(response)
    proof = response[len(name) + 2 :] if name else response
    name = name or "md5"
    try:
        expected = _mac(authkey, message, name)
    except ValueError:
        raise AuthenticationError(f"response_digest={name!r} unsupported") from None
    if len(proof) != len(expected):
        raise AuthenticationError(f"expected {name!r} of length {len(expected)} got {len(proof)}")
    from hmac import compare_digest

    if not compare_digest(expected, proof):
        raise AuthenticationError("digest received was wrong")


def _digest_prefix(message):
    """Return the digest that `message` names in braces, '' for the old dialect."""
    if len(message) in _OLD_LENGTHS:
        return ""
    if message.startswith(b"{"):
        name = message[1:].partition(b"}")[0]
        if name in _ALLOWED_DIGESTS:
            return name.decode("ascii")
    if not _MODERN:
        return ""
    raise AuthenticationError(
        f"unsupported message length, missing digest prefix, or unsupported digest: {message=}"
    )


def _mac(authkey, message, name):
    # hmac brings OpenSSL along: only programs that authenticate pay for it.
    import hmac

    return hmac.new(authkey, message, name).digest()


def _check_key(authkey):
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
