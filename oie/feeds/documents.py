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


"""The nouns of fetching: what is asked for, what came, and a no."""

import dataclasses

from oie import exceptions


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to fetch, and within which bounds.

    :ivar etag: of the document that is there already, or empty
    :ivar last_modified: the same, as the server wrote it
    :ivar timeout: seconds for all of it
    :ivar max_bytes: of the body as transferred
    :ivar max_unpacked_bytes: of the document
    :ivar ca_file: certificates to trust in place of those of the system, or empty
    :ivar proxy: its URL, or empty
    :ivar secret_header: name of the header that carries what ``secret_file`` holds, or empty
    """

    # Neither of the two is shown: a query, and the user of a proxy, may hold a key.
    url: str = dataclasses.field(repr=False)
    etag: str = ''
    last_modified: str = ''
    timeout: float = 15.0
    max_bytes: int = 16 * 2**20
    max_unpacked_bytes: int = 64 * 2**20
    ca_file: str = ''
    proxy: str = dataclasses.field(default='', repr=False)
    secret_header: str = ''
    secret_file: str = ''
    allow_plain_http: bool = False
    allow_private_targets: bool = False
    allow_file_urls: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What came.

    :ivar body: the document, unpacked; empty when it is unchanged
    :ivar etag: what to ask with the next time; empty where there is none
    :ivar last_modified: the same
    :ivar is_unchanged: it is still the one that the request told of
    """

    body: bytes = dataclasses.field(repr=False)
    etag: str = ''
    last_modified: str = ''
    is_unchanged: bool = False


class Refused(exceptions.FeedError):
    """The server answered, but with nothing that helps: asking again at once would not either.

    :ivar retry_after: seconds after which it wants to be asked again, where it said so
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
