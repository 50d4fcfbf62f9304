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

"""One round of probes: which fixed IPs answer inside of their networks.

A fixed IP is asked from the one namespace that has its prefix on link. But tenants use the same
prefixes, and the network of an instance need not have a namespace on this host. So whatever
comes, or does not come, counts only where the port's MAC address has been seen.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import ipaddress
import logging

from oie import exceptions
from oie import failures
from oie import model
from oie.sources import namespaces
from oie.sources import neighbours
from oie.sources import probe_sockets
from oie.sources import probes

LOG = logging.getLogger(__name__)

# Each has two or three sockets open.
NAMESPACES_AT_ONCE = 32

_REASON = 'not probed'

Places = Mapping[str, Sequence['Target']]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A fixed IP of an instance, and the MAC address of its port; empty if unknown."""

    uuid: str
    address: model.Address
    mac: str

    @property
    def port(self) -> tuple[str, str]:
        """What a namespace may have seen."""
        return self.address.port_uuid, self.mac


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How the probe of one fixed IP ended; the seconds are those of an answer."""

    result: model.ProbeResult
    seconds: float | None = None


REACHABLE, UNREACHABLE = model.ProbeResult.REACHABLE, Verdict(model.ProbeResult.UNREACHABLE)
AMBIGUOUS, FAILED = Verdict(model.ProbeResult.AMBIGUOUS), Verdict(model.ProbeResult.FAILED)
NO_NAMESPACE = Verdict(model.ProbeResult.NO_NAMESPACE)


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """What a round found, and why some namespaces could not be used."""

    verdicts: Mapping[Target, Verdict]
    error: str = ''


def targets(definition: model.Definition) -> Iterator[Target]:
    """Give the fixed IPs of an instance."""
    for address in definition.addresses:
        macs = {
            device.mac
            for device in definition.interfaces
            if device.port_uuid and device.port_uuid == address.port_uuid
        }
        yield Target(definition.uuid, address, macs.pop() if len(macs) == 1 else '')


class Rounds:
    """Makes one round after the other, and remembers where which port was seen.

    :param patterns: of the names of the namespaces
    :param is_stopping: whether nobody wants a result any more
    """

    def __init__(
        self,
        patterns: Sequence[str],
        limits: probes.Limits,
        *,
        is_stopping: Callable[[], bool] = lambda: False,
        directory: str = namespaces.DIRECTORY,
        open_line: Callable[[str, Iterable[str]], probe_sockets.Line] = probe_sockets.open_line,
        local_addresses: Callable[
            [str], Iterable[neighbours.LocalAddress]
        ] = probe_sockets.local_addresses,
        exchange: Callable[..., Sequence[probes.Outcome]] = probes.exchange,
    ) -> None:
        self._patterns = patterns
        self._limits = limits
        self._is_stopping = is_stopping
        self._directory = directory
        self._open_line = open_line
        self._local_addresses = local_addresses
        self._exchange = exchange
        self._failures = failures.LastingFailures(LOG)
        # By port, the namespace that knew its MAC address last.
        self._seen: dict[tuple[str, str], str] = {}

    def run(self, wanted: Mapping[Target, bool]) -> Round:
        """Ask every target once, or as often as the limits say.

        :param wanted: all targets there are, and whether their guests run: others are not asked
        :raises SourceError: it is not known which namespace has what on link
        """
        ports = {target.port for target in wanted}
        self._seen = {port: path for port, path in self._seen.items() if port in ports}
        verdicts, places = self._place(target for target, runs in wanted.items() if runs)
        errors: dict[str, str] = {}
        for batch in _batches(places, self._limits.parallel):
            verdicts.update(self._ask(batch, errors))
        self._settle(places, verdicts)
        return Round(verdicts, '; '.join(f'{path}: {text}' for path, text in errors.items()))

    def look(self) -> Mapping[str, Sequence[neighbours.LocalAddress]]:
        """Return what each of the namespaces has, by its path.

        :raises SourceError: one of them cannot be read: it might have any prefix
        """
        try:
            paths = namespaces.matching(self._patterns, self._directory)
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise exceptions.SourceError(f'{self._directory}: {exc.strerror}') from exc
        found = {}
        for path in paths:
            with contextlib.suppress(exceptions.VanishedNamespace):
                found[path] = tuple(self._local_addresses(path))
        return found

    def check(self) -> int:
        """Return in how many namespaces we can look; nothing is sent.

        :raises SourceError: they cannot be read, or nothing could be sent there
        """
        paths = tuple(self.look())
        for path in paths[:1]:
            with self._open_line(path, ('ipv4',)):
                pass
        return len(paths)

    def _place(self, asked: Iterable[Target]) -> tuple[dict[Target, Verdict], Places]:
        """Return whom nobody can ask, with the verdict, and the others by their namespace."""
        reach = _Reach(self.look())
        verdicts: dict[Target, Verdict] = {}
        places: dict[str, list[Target]] = collections.defaultdict(list)
        for target in asked:
            paths = reach.paths_to(ipaddress.ip_address(target.address.ip))
            if not paths:
                verdicts[target] = NO_NAMESPACE
            elif len(paths) > 1 or not target.mac:
                verdicts[target] = AMBIGUOUS
            else:
                places[paths[0]].append(target)
        return verdicts, places

    def _ask(self, batch: Places, errors: dict[str, str]) -> Mapping[Target, Verdict]:
        """Return the verdicts on the targets of some namespaces; nothing stays open.

        :param errors: takes up what keeps us from using a namespace
        """
        verdicts: dict[Target, Verdict] = {}
        with contextlib.ExitStack() as opened:
            lines = {}
            for path, listed in batch.items():
                try:
                    families = {target.address.family for target in listed}
                    lines[path] = opened.enter_context(self._open_line(path, families))
                except exceptions.VanishedNamespace:
                    verdicts.update(dict.fromkeys(listed, NO_NAMESPACE))
                except exceptions.SourceError as exc:
                    self._fail(path, exc, errors)
                    verdicts.update(dict.fromkeys(listed, FAILED))
            outcomes = self._exchanged({path: batch[path] for path in lines}, lines)
            for path, line in lines.items():
                try:
                    known = line.neighbours()
                except exceptions.SourceError as exc:
                    self._fail(path, exc, errors)
                    verdicts.update(dict.fromkeys(batch[path], FAILED))
                    continue
                for target in batch[path]:
                    verdicts[target] = self._judge(path, target, outcomes[target], known)
        return verdicts

    def _exchanged(
        self, places: Places, lines: Mapping[str, probe_sockets.Line]
    ) -> Mapping[Target, probes.Outcome]:
        asked = [(path, target) for path, listed in places.items() for target in listed]
        outcomes = self._exchange(
            [
                probes.Probe(lines[path].channels[target.address.family], target.address.ip)
                for path, target in asked
            ],
            self._limits,
            is_stopping=self._is_stopping,
        )
        return {target: one for (_, target), one in zip(asked, outcomes, strict=True)}

    def _judge(
        self,
        path: str,
        target: Target,
        outcome: probes.Outcome,
        known: neighbours.Neighbours,
    ) -> Verdict:
        """Return what an outcome says of the guest, if anything."""
        macs = known.get(ipaddress.ip_address(target.address.ip), frozenset())
        if macs == {target.mac}:
            self._seen[target.port] = path
        if outcome.failure:
            self._failures.report(path, _REASON, f'{target.address.ip}: {outcome.failure}')
            return FAILED
        if macs - {target.mac}:
            return AMBIGUOUS
        if outcome.seconds is not None:
            return Verdict(REACHABLE, outcome.seconds) if macs else AMBIGUOUS
        # A dead guest is silent to ARP too; but so is one whose network is elsewhere.
        return UNREACHABLE if self._seen.get(target.port) == path else AMBIGUOUS

    def _fail(self, path: str, exc: Exception, errors: dict[str, str]) -> None:
        self._failures.report(path, _REASON, exc)
        errors[path] = str(exc)

    def _settle(self, places: Places, verdicts: Mapping[Target, Verdict]) -> None:
        self._failures.keep_only(set(places))
        for path, listed in places.items():
            if FAILED not in {verdicts[target] for target in listed}:
                self._failures.settle(path, _REASON)


class _Reach:
    """What each namespace has on link."""

    def __init__(self, found: Mapping[str, Iterable[neighbours.LocalAddress]]) -> None:
        # By version, length of the prefix and its bits.
        self._paths: dict[tuple[int, int, int], set[str]] = collections.defaultdict(set)
        self._own: set[tuple[str, neighbours.Ip]] = set()
        for path, addresses in found.items():
            for address in addresses:
                self._own.add((path, address.ip))
                if _has_others(address.prefix):
                    self._paths[_key(address.prefix[0], address.prefix.prefixlen)].add(path)
        self._lengths = {(version, length) for version, length, _ in self._paths}

    def paths_to(self, ip: neighbours.Ip) -> list[str]:
        """Return the namespaces from which an address may be on link.

        One that has the address itself is none: there it would answer itself.
        """
        found = set()
        for version, length in self._lengths:
            if version == ip.version:
                found |= self._paths.get(_key(ip, length), set())
        return [path for path in found if (path, ip) not in self._own]


def _key(ip: neighbours.Ip, length: int) -> tuple[int, int, int]:
    return ip.version, length, int(ip) >> ip.max_prefixlen - length


def _has_others(prefix: neighbours.Network) -> bool:
    """Tell whether a prefix may hold fixed IPs.

    Every namespace has fe80::/64, and for the metadata many have 169.254.0.0/16.
    """
    is_single = prefix.prefixlen == prefix.max_prefixlen
    return not (is_single or prefix.is_link_local or prefix.is_loopback)


def _batches(places: Places, parallel: int) -> Iterator[Places]:
    """Give namespaces together that have no more targets than may be asked at once.

    One by one, a silent guest in each of fifty networks would take a round minutes.
    """
    batch: dict[str, Sequence[Target]] = {}
    for path, listed in places.items():
        batch[path] = listed
        if sum(map(len, batch.values())) >= parallel or len(batch) == NAMESPACES_AT_ONCE:
            yield batch
            batch = {}
    if batch:
        yield batch
