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

"""The text of an address to listen on into its host and port."""

import dataclasses
import ipaddress
import re

from oie.config import messages

_LABEL = r'[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
_HOSTNAME = re.compile(rf'(?!.{{254}}){_LABEL}(?:\.{_LABEL})*')


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen: a host's name or bare address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'


def parse(text: str) -> Endpoint:
    """Return host and port of ``127.0.0.1:9120``, ``[::1]:9120`` or ``name:9120``.

    The host must be there: to listen everywhere is a decision, not an omission.

    :raises ValueError: not an address, or a port out of range
    """
    host, separator, port = text.strip().rpartition(':')
    if not separator or not re.fullmatch('[0-9]{1,5}', port):
        raise ValueError(f'{messages.quoted(text)} is not HOST:PORT or [IPV6]:PORT')
    if not 1 <= int(port) <= 65535:
        raise ValueError(f'port {port} is not between 1 and 65535')
    if not host:
        raise ValueError(
            f'{messages.quoted(text)} names no host; write 0.0.0.0:{port} for all IPv4 '
            f'addresses, [::]:{port} for all IPv6 addresses'
        )
    return Endpoint(_parse_host(host), int(port))


def _parse_host(host: str) -> str:
    if host.startswith('[') and host.endswith(']'):
        return _parse_ipv6(host[1:-1])
    if ':' in host:
        raise ValueError(f'an IPv6 address needs brackets; write [{_parse_ipv6(host)}]')
    if re.fullmatch('[0-9.]+', host):
        return str(ipaddress.IPv4Address(host))
    if not _HOSTNAME.fullmatch(host):
        raise ValueError(f'{messages.quoted(host)} is neither an address nor the name of a host')
    return host


def _parse_ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f'{messages.quoted(text)} is not an IPv6 address') from None
