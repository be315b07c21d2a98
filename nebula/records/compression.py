"""Kafka's codecs with a hard bound on what comes out: a small batch must not become a large memory (CVE-2023-34455).

Codec numbers are the batch attribute's: 1 gzip, 2 snappy (xerial framing), 3 lz4 (independent blocks), 4 zstd.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import cramjam
import lz4.frame
import zstandard

from nebula.model import InvalidBatch

XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEADER = XERIAL + struct.pack(">ii", 1, 1)
BLOCK = 32 << 10
_SIZE = struct.Struct(">i")


def compress(codec: int, data: bytes) -> bytes:
    """Compress for storage or sending. :raises InvalidBatch: unknown codec."""
    if codec == 1:
        return gzip.compress(data, 6, mtime=0)
    if codec == 2:
        blocks = (bytes(cramjam.snappy.compress_raw(data[i : i + BLOCK])) for i in range(0, len(data), BLOCK))
        return XERIAL_HEADER + b"".join(_SIZE.pack(len(b)) + b for b in blocks)
    if codec == 3:
        return bytes(lz4.frame.compress(data, block_linked=False))
    if codec == 4:
        return zstandard.ZstdCompressor().compress(data)
    raise InvalidBatch(f"unknown compression codec {codec}")


def decompress(codec: int, data: bytes, limit: int) -> bytes:
    """:raises InvalidBatch: unknown codec, damaged data, or more than `limit` bytes inside."""
    try:
        out = _DECODERS[codec](data, limit)
    except KeyError:
        raise InvalidBatch(f"unknown compression codec {codec}") from None
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zlib.error,
        cramjam.DecompressionError,
        zstandard.ZstdError,
    ) as e:
        raise InvalidBatch(f"compressed records that do not decompress: {e}") from e
    if len(out) > limit:
        raise InvalidBatch(f"compressed records hold more than {limit} bytes")
    return out


def _gunzip(data: bytes, limit: int) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit + 1)


def _unsnappy(data: bytes, limit: int) -> bytes:
    if not data.startswith(XERIAL):
        return _unsnap_block(data, limit)
    out, at = bytearray(), len(XERIAL_HEADER)
    while at < len(data):
        size = _SIZE.unpack_from(data, at)[0] if at + 4 <= len(data) else -1
        if size < 0 or at + 4 + size > len(data):
            raise InvalidBatch("a snappy block longer than its batch")
        out += _unsnap_block(data[at + 4 : at + 4 + size], limit - len(out))
        at += 4 + size
    return bytes(out)


def _unsnap_block(block: bytes, limit: int) -> bytes:
    # The raw format declares its size in a varint; it is checked before anything is allocated.
    size = shift = 0
    for byte in block[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > limit:
        raise InvalidBatch(f"compressed records hold more than {limit} bytes")
    return bytes(cramjam.snappy.decompress_raw(block))


def _unlz4(data: bytes, limit: int) -> bytes:
    out: bytes = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1)
    return out


def _unzstd(data: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data, read_across_frames=True) as reader:
        return reader.read(limit + 1)


_DECODERS = {1: _gunzip, 2: _unsnappy, 3: _unlz4, 4: _unzstd}
