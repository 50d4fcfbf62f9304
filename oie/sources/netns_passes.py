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


"""All network namespaces that have a name → one table of them, in one pass."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import os
import time

from oie import exceptions
from oie import model
from oie.config import netns_settings
from oie.sources import netns_devices
from oie.sources import netns_files
from oie.sources import netns_names
from oie.sources import netns_readers

# Besides those of netns_files.SkippedError.
BAD_NAME = 'name'
LATE = 'deadline'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one pass found.

    ``problems`` says by name of a namespace, and part or reason, what could not be read.
    """

    table: model.NamespaceTable
    problems: Mapping[tuple[str, str], str]
    read_at: float
    seconds: float


class Passes:
    """Makes one pass after the other, each in a thread of its own that ends with it.

    :param directory: where the files of the namespaces are
    :param wanted: which namespaces
    :param reader: reads one of them; it may move the thread into another namespace
    :param deadline: seconds after which a pass ends
    """

    def __init__(
        self,
        directory: str,
        wanted: netns_settings.Filter,
        reader: netns_readers.Reader,
        deadline: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._wanted = wanted
        self._reader = reader
        self._deadline = deadline
        self._clock = clock
        self._known: dict[str, netns_devices.Known] = {}

    def run(self, is_stopping: Callable[[], bool]) -> Result:
        """Return what is there now.

        :param is_stopping: whether nobody wants it any more
        :raises SourceError: nothing can be read
        """
        began = self._clock()
        found = netns_files.names(self._directory)
        names = [name for name in found if self._wanted.passes(name)]
        try:
            namespaces, problems = self._read_all(
                names, lambda: self._clock() - began > self._deadline or is_stopping()
            )
        finally:
            self._reader.end_pass()
        skipped = collections.Counter(reason for _, reason in problems)
        unread = tuple(self._unread(problems))
        if skipped[netns_files.REFUSED] and not namespaces:
            raise exceptions.SourceError(
                f'none of {len(names)} network namespaces may be read: {_refusal(problems)}'
            )
        for namespace in namespaces:
            problems |= {(namespace.name, part): text for part, text in namespace.failures.items()}
        return Result(
            table=model.NamespaceTable(
                found=len(found),
                filtered=len(found) - len(names),
                skipped=dict(skipped),
                namespaces=tuple(namespaces),
                unread=unread,
            ),
            problems=problems,
            read_at=time.time(),
            seconds=self._clock() - began,
        )

    def _read_all(
        self, names: Iterable[str], is_over: Callable[[], bool]
    ) -> tuple[list[model.Namespace], dict[tuple[str, str], str]]:
        """Return the namespaces that can be read, and why the others are skipped."""
        namespaces: list[model.Namespace] = []
        problems: dict[tuple[str, str], str] = {}
        before, self._known = self._known, {}
        for name in names:
            if is_over():
                problems[name, LATE] = f'not reached in {self._deadline:g} s'
                # The labels live on: the namespace does too.
                self._known[name] = before.get(name) or _known(name)
                continue
            try:
                namespaces.append(self._read(name, before))
            except netns_files.SkippedError as exc:
                problems[name, exc.reason] = str(exc)
        return namespaces, problems

    def _unread(self, problems: Mapping[tuple[str, str], str]) -> Iterator[model.Namespace]:
        """Give the skipped ones that may still be there, by their names alone."""
        for name, reason in problems:
            if reason != netns_files.VANISHED:
                known = self._known.get(name) or _known(name)
                yield model.Namespace(
                    labels=known.labels,
                    info=known.info,
                    name=name,
                    kind=known.kind,
                    uuid=known.uuid,
                )

    def _read(self, name: str, before: Mapping[str, netns_devices.Known]) -> model.Namespace:
        """Return what is known of a namespace.

        :raises SkippedError: it cannot be entered
        """
        if not netns_files.is_fit(name):
            raise netns_files.SkippedError(BAD_NAME, 'its name is no printable text')
        known = before.get(name) or _known(name)
        file = netns_files.open_file(f'{self._directory}/{name}')
        try:
            namespace = self._reader.read(file, name, known)
        finally:
            os.close(file)
        self._known[name] = known
        return namespace


def _refusal(problems: Mapping[tuple[str, str], str]) -> str:
    return next(text for (_, reason), text in problems.items() if reason == netns_files.REFUSED)


def _known(name: str) -> netns_devices.Known:
    kind, uuid = netns_names.kind_and_uuid(name)
    labels = model.Labels.of(netns=name)
    return netns_devices.Known(labels, netns_names.info(labels, kind, uuid), kind, uuid)
