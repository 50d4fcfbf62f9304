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

"""Where the documents of a list are, by what the settings say: a URL, a path."""

from typing import Any

from oslo_config import cfg

from oie import config
from oie import exceptions

PATH = cfg.Opt(
    'path',
    type=config.FilePath(),
    default='',
    help='File of this host that holds the list, or a directory: then all files in it are the '
    'list together. It must be readable for the user that the exporter runs as.',
)


def of_url(settings: Any) -> tuple[str, ...]:
    """Return the one URL of a list.

    :raises FeedError: none is set
    """
    if not settings.url:
        raise exceptions.FeedError('url is empty; say where the list is')
    return (settings.url,)


def of_url_or_path(settings: Any) -> tuple[str, ...]:
    """Return the URL, or the path, of a list of a site's own.

    :raises FeedError: not exactly one is set
    """
    found = tuple(source for source in (settings.url, settings.path) if source)
    if len(found) != 1:
        state = 'both are' if found else 'none is'
        raise exceptions.FeedError(f'set either url or path; {state} set')
    return found
