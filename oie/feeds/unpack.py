# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""Turns a body as transferred into the document, never into more bytes than allowed."""

import io
import zlib

from oie import exceptions
from oie.feeds import documents

# How much may come out of one step; a bomb of zeros is met at the limit plus this.
_STEP = 2**18
_ZLIB, _GZIP = zlib.MAX_WBITS, zlib.MAX_WBITS + 16
_MAGIC = b'\x1f\x8b'
_WINDOWS = {'gzip': _GZIP, 'x-gzip': _GZIP, 'deflate': _ZLIB}


class Unpacker:
    """Takes a body piece by piece and keeps the document once.

    :param encoding: the header Content-Encoding, empty where there was none
    :param most: how many bytes the document may have
    :raises FeedError: an encoding nobody asked for, or more than one
    """

    def __init__(self, encoding: str, most: int) -> None:
        self._encoding = encoding.strip().lower()
        self._most = most
        # BytesIO grows in place and hands its buffer out without a copy.
        self._document = io.BytesIO()
        if self._encoding not in ('', 'identity', *_WINDOWS):
            raise exceptions.FeedError(
                f'Content-Encoding {encoding[:60]!r} was not asked for; '
                'the server must send gzip or nothing'
            )
        self._inflater = self._new_inflater()

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        :raises FeedError: the document is too large, or damaged
        """
        try:
            while data:
                data = self._take(data)
        except zlib.error as exc:
            raise exceptions.FeedError(f'{self._encoding} data is damaged: {exc}') from exc

    def finish(self) -> bytes:
        """Return the document.

        :raises FeedError: the compressed data has no end
        """
        if self._inflater is not None and not self._inflater.eof:
            raise exceptions.FeedError(f'{self._encoding} data ends too early')
        return self._document.getvalue()

    def _new_inflater(self) -> 'zlib._Decompress | None':
        window = _WINDOWS.get(self._encoding)
        return None if window is None else zlib.decompressobj(window)

    def _take(self, data: bytes) -> bytes:
        """Keep what these bytes unpack to, up to the end of a member; return the rest."""
        if self._inflater is not None and self._inflater.eof:
            self._begin_member(data)
        if self._inflater is None:
            self._keep(data)
            return b''
        while True:
            unpacked = self._inflater.decompress(data, _STEP)
            self._keep(unpacked)
            if self._inflater.eof:
                # Its unconsumed_tail may still be that of the step before.
                return self._inflater.unused_data
            data = self._inflater.unconsumed_tail
            # A full step may have left bytes inside zlib even when no input is left.
            if not data and len(unpacked) < _STEP:
                return b''

    def _begin_member(self, data: bytes) -> None:
        # RFC 1952: a gzip file is a series of members; zlib data is only one.
        if self._encoding == 'deflate' or not data.startswith(_MAGIC[: len(data)]):
            raise exceptions.FeedError(
                f'something else follows the end of the {self._encoding} data'
            )
        self._inflater = self._new_inflater()

    def _keep(self, data: bytes) -> None:
        if self._document.tell() + len(data) > self._most:
            raise documents.Refused(
                f'larger than {self._most} bytes unpacked; raise max_unpacked_bytes '
                'if the list rightly is'
            )
        self._document.write(data)
