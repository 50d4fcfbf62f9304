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


"""The short-lived process that asks one guest agent: ``python -m …agent_worker``.

It reads a job as JSON on stdin and writes one JSON document on stdout: the facts,
``{"os": {"id": "debian", ...}}``, ``{"os": null}`` from an agent that cannot tell
them, or ``{"failure": reason, "text": why}``. It has the daemon's right to use
libvirt's socket and no capability; its parent ends it at a limit.

libvirt waits for an agent without end, and one of its workers with it, unless the
time-out of the domain is set; so that is set first, and set back after the answer.
"""

from collections.abc import Mapping
import contextlib
import json
import os
import sys
from typing import Any
from xml.etree import ElementTree

from oie import confinement
from oie import exceptions

MAX_TEXT = 256
CHANNEL = 'org.qemu.guest_agent.0'

_PREFIX = 'os.'
# What a release of an operating system is told by; libvirt 9.0.0 gives these and no others.
_NAMES = (
    *('id', 'name', 'pretty-name', 'version', 'version-id', 'variant', 'variant-id'),
    *('kernel-release', 'kernel-version', 'machine'),
)


class Failure(Exception):
    """Nothing can be learned; ``reason`` is one that the parent knows."""

    def __init__(self, reason: str, text: object) -> None:
        super().__init__(str(text))
        self.reason = reason


def main() -> int:
    """Do one job; return 0 when an answer was written, whatever it says."""
    confinement.confine()
    job = json.loads(sys.stdin.buffer.read())
    # The daemon may have died before the kernel was told to end us with it.
    if os.getppid() != job['parent']:
        return 1
    try:
        answer: dict[str, Any] = {'os': ask(import_libvirt(), job)}
    except Failure as exc:
        answer = {'failure': exc.reason, 'text': str(exc)[:MAX_TEXT]}
    sys.stdout.write(json.dumps(answer))
    return 0


def import_libvirt() -> Any:
    """Return libvirt's Python module, silenced.

    :raises Failure: it is not installed
    """
    from oie.sources import libvirt_connection

    try:
        return libvirt_connection.import_libvirt()
    except exceptions.SourceError as exc:
        raise Failure('unreachable', exc) from exc


def ask(libvirt: Any, job: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what the agent of a domain tells, None when it knows no such question.

    :raises Failure: there is no agent, or it does not answer
    """
    try:
        connection = libvirt.open(job['uri'])
    except libvirt.libvirtError as exc:
        raise Failure(_reason(libvirt, exc, 'unreachable'), exc) from exc
    try:
        # Without a guest it was only to be tried whether libvirt lets us in.
        return _ask(libvirt, connection, job) if job['uuid'] else None
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return None
        raise Failure(_reason(libvirt, exc, 'refused'), exc) from exc
    # The bytes are the guest's: of what is no UTF-8 libvirt-python 9.0.0 makes a SystemError.
    except (ValueError, SystemError) as exc:
        raise Failure('invalid', exc) from exc
    finally:
        connection.close()


def _ask(libvirt: Any, connection: Any, job: Mapping[str, Any]) -> dict[str, str]:
    domain = connection.lookupByUUIDString(job['uuid'])
    if domain.ID() != job['domain_id']:
        raise Failure('gone', 'the guest has a new QEMU by now')
    if not is_connected(domain.XMLDesc(0)):
        raise Failure('not_connected', 'no agent runs in the guest')
    domain.agentSetResponseTimeout(job['timeout'], 0)
    try:
        given = domain.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_OS, 0)
    finally:
        # A guest that has ended meanwhile has no time-out to set back.
        with contextlib.suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
    found = facts(given)
    if not found:
        # libvirt 9.0.0 gives nothing, and no error, when its time-out is over.
        raise Failure(
            'unresponsive', f'the agent told nothing within {job["timeout"]} s; is it stopped?'
        )
    return found


def facts(given: Mapping[str, object]) -> dict[str, str]:
    """Return the texts we know by name without ``os.``, each cut to 256 characters."""
    return {
        name: text[:MAX_TEXT]
        for name in _NAMES
        if isinstance(text := given.get(_PREFIX + name), str)
    }


def is_connected(xml: str) -> bool:
    """Tell whether an agent has opened its end of the channel, as libvirt sees it."""
    # It is libvirtd's own output, and expat bounds the expansion of entities.
    root = ElementTree.fromstring(xml)  # noqa: S314
    targets = root.findall('./devices/channel/target')
    return any(
        target.get('name') == CHANNEL and target.get('state') == 'connected' for target in targets
    )


def _reason(libvirt: Any, exc: Any, otherwise: str) -> str:
    """Return why libvirt refuses, as the label of a failure."""
    reasons = {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE: 'unresponsive',
        libvirt.VIR_ERR_AGENT_UNSYNCED: 'unresponsive',
        libvirt.VIR_ERR_OPERATION_TIMEOUT: 'unresponsive',
        libvirt.VIR_ERR_OPERATION_DENIED: 'denied',
        libvirt.VIR_ERR_ACCESS_DENIED: 'denied',
        libvirt.VIR_ERR_AUTH_FAILED: 'denied',
        libvirt.VIR_ERR_AUTH_CANCELLED: 'denied',
        libvirt.VIR_ERR_AUTH_UNAVAILABLE: 'denied',
        libvirt.VIR_ERR_NO_DOMAIN: 'gone',
    }
    return reasons.get(exc.get_error_code(), otherwise)


if __name__ == '__main__':
    sys.exit(main())
