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

"""Pages of JSON as Nova and Keystone write them → projects and instances.

Source: https://docs.openstack.org/api-ref/compute/ and .../identity/v3/; shapes of
os-simple-tenant-usage from microversion 2.40 on. A page that is not whole is refused as a
whole; a record in it that nobody can read costs itself only, and is counted.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
import urllib.parse

from oie import exceptions
from oie import model
from oie.config import messages
from oie.config import moments
from oie.sources.project_usage import tags as tag_texts

_MOST_VCPUS, _MOST_MEMORY_MB = 2**20, 2**40


class Page(NamedTuple):
    """One page of usage.

    :ivar records: how many instances it has, readable or not
    :ivar stop_us: the end of the time it is about, which Nova moves back to its own clock; None
        of a page without instances
    :ivar marker: what the link to the next page asks for, empty without a link
    """

    servers: tuple[model.ServerUsage, ...]
    records: int
    stop_us: int | None
    marker: str


def usage(document: Any, *, is_list: bool) -> Page:
    """Return a page of os-simple-tenant-usage, of all projects or of one.

    :raises UsageError: it is none
    """
    key = 'tenant_usages' if is_list else 'tenant_usage'
    found = _mapping(document, 'the answer').get(key)
    if not isinstance(found, list if is_list else dict):
        raise _malformed(f'the answer has no {key}')
    usages = found if is_list else [found] if found else []
    records = [(_text(each, 'tenant_id'), record) for each in usages for record in _records(each)]
    servers = tuple(
        server for project, record in records if (server := _server(record, project)) is not None
    )
    stop = min((_moment(each, 'stop') for each in usages), default=None)
    return Page(servers, len(records), stop, next_marker(document, f'{key}_links'))


def next_marker(document: Mapping[str, Any], key: str) -> str:
    """Return the marker of the link to the next page, empty without one.

    :raises UsageError: the links are none
    """
    links = document.get(key, [])
    if not isinstance(links, list):
        raise _malformed(f'{key} is no list')
    for link in links:
        if _mapping(link, key).get('rel') == 'next':
            query = urllib.parse.urlsplit(_text(link, 'href')).query
            marker = urllib.parse.parse_qs(query).get('marker', [''])[0]
            if not marker:
                raise _malformed(f'{key} leads to no marker')
            return marker
    return ''


def projects(document: Any) -> Iterator[tuple[str, str, str]]:
    """Give id, name and domain id of each project of a page of Keystone.

    :raises UsageError: it is none
    """
    for each in _listed(document, 'projects'):
        if each.get('is_domain') is not True:
            yield _text(each, 'id'), _text(each, 'name'), str(each.get('domain_id') or '')


def domains(document: Any) -> dict[str, str]:
    """Return the names of domains by their ids.

    :raises UsageError: it is none
    """
    return {_text(each, 'id'): _text(each, 'name') for each in _listed(document, 'domains')}


def tags(document: Any, key: str) -> dict[str, str]:
    """Return what servers of a page have below a key of their metadata; others are left out.

    :raises UsageError: it is none
    """
    found = {}
    for each in _listed(document, 'servers'):
        metadata = _mapping(each.get('metadata'), 'metadata of a server')
        tag = metadata.get(key)
        if isinstance(tag, str) and tag:
            found[_text(each, 'id')] = tag_texts.cut(tag)
    return found


def _records(found: Any) -> list[dict[str, Any]]:
    # Nova leaves them out without detailed=1, and for a project it has nothing of.
    records = _mapping(found, 'a usage').get('server_usages')
    if not isinstance(records, list):
        raise _malformed('a usage has no server_usages')
    return [_mapping(record, 'server_usages') for record in records]


def _server(record: Mapping[str, Any], project: str) -> model.ServerUsage | None:
    """Return an instance, None for one that nobody can read."""
    try:
        ended = record.get('ended_at')
        return model.ServerUsage(
            uuid=_text(record, 'instance_id'),
            project_id=project,
            vcpus=_count(record.get('vcpus'), _MOST_VCPUS),
            memory_mb=_count(record.get('memory_mb'), _MOST_MEMORY_MB),
            started_us=moments.parse(record.get('started_at')),
            ended_us=None if ended is None else moments.parse(ended),
        )
    except (ValueError, exceptions.UsageError):
        return None


def _moment(found: Any, key: str) -> int:
    try:
        return moments.parse(_text(found, key))
    except ValueError as exc:
        raise _malformed(f'{key}: {exc}') from exc


def _count(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f'{messages.quoted(value)} is no number from 0 to {most}')
    return value


def _listed(document: Any, key: str) -> list[dict[str, Any]]:
    found = _mapping(document, 'the answer').get(key)
    if not isinstance(found, list):
        raise _malformed(f'the answer has no list of {key}')
    return [_mapping(each, key) for each in found]


def _mapping(found: Any, place: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _malformed(f'{place}: {messages.quoted(found)} is no mapping')
    return found


def _text(found: Any, key: str) -> str:
    text = _mapping(found, key).get(key)
    if not isinstance(text, str) or not text or len(text) > 4096:
        raise _malformed(f'{key}: {messages.quoted(text)} is no text')
    return text


def _malformed(text: str) -> exceptions.UsageError:
    return exceptions.UsageError('malformed', text)
