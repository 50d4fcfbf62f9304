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

"""What a worker does for one feed: the cache, or the publisher's documents, into an answer.

A list is used only after every check, whether it comes from the network or from
the disk. Not a part of it is used when something is wrong with another part.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import importlib.metadata
import time
import types

from oie import exceptions
from oie.feeds import base
from oie.feeds import cache
from oie.feeds import fetch
from oie.feeds import files
from oie.feeds import lists
from oie.feeds import special_use
from oie.feeds import state
from oie.feeds import wire

_NAMESPACE = 'oie.threat_feeds'
_NO_VALIDATOR = ('', '')

Clock = Callable[[], float]


@dataclasses.dataclass(slots=True)
class _Progress:
    """How far a job got, for the answer when it fails."""

    ends: float
    sources: tuple[str, ...] = ()
    is_answered: bool = False


def do(job: wire.Job, clock: Clock = time.time) -> wire.Answer:
    """Return the answer to a job; what goes wrong with the list is an answer too.

    :param clock: seconds since 1970
    """
    started = time.monotonic()
    answer = _do(job, clock)
    return dataclasses.replace(answer, seconds=time.monotonic() - started)


def _do(job: wire.Job, clock: Clock) -> wire.Answer:
    progress = _Progress(ends=time.monotonic() + job.seconds)
    retry_after = None
    try:
        with fetch.deadline(job.seconds):
            feed = _new_feed(job)
            progress.sources = tuple(feed.sources())
            work = _load if job.mode is wire.Mode.LOAD else _refresh
            return work(job, feed, progress, clock)
    except fetch.Refused as exc:
        error, retry_after = str(exc), exc.retry_after
        progress.is_answered = True
    except exceptions.OieError as exc:
        error = str(exc)
    except MemoryError:
        error = 'the list takes more memory than a worker may have; lower max_unpacked_bytes'
    return wire.Answer(
        status=wire.Status.FAILED,
        sources=progress.sources,
        error=error,
        is_answered=progress.is_answered,
        retry_after=retry_after,
    )


def _new_feed(job: wire.Job) -> base.ThreatFeed:
    """Return the driver with its settings.

    :raises FeedError: it is not installed, or more than once
    """
    found = importlib.metadata.entry_points(group=_NAMESPACE, name=job.driver)
    if len(found) != 1:
        raise exceptions.FeedError(
            f'driver {job.driver!r} of {_NAMESPACE} is installed {len(found)} times, not once'
        )
    [entry_point] = found
    feed: base.ThreatFeed = entry_point.load()(types.SimpleNamespace(**job.settings))
    return feed


def _load(job: wire.Job, feed: base.ThreatFeed, progress: _Progress, clock: Clock) -> wire.Answer:
    """Return the list that is kept on the disk; one that is not as it should be is moved away."""
    unwanted = special_use.addresses(job.own_networks)
    try:
        kept = cache.read(
            job.cache_dir,
            feed=job.feed,
            driver=job.driver,
            sources=progress.sources,
            max_document_bytes=_most_bytes(job),
        )
        if kept is None:
            return wire.Answer(status=wire.Status.ABSENT, sources=progress.sources)
        built = lists.build(feed, kept.documents, unwanted=unwanted)
    except exceptions.FeedError as exc:
        if time.monotonic() >= progress.ends:
            raise  # the host is slow, which says nothing about the list
        outcome = cache.set_aside(job.cache_dir, job.feed)
        raise exceptions.FeedError(f'cached list refused: {exc}; {outcome}') from exc
    return wire.Answer(
        status=wire.Status.LOADED,
        sources=kept.sources,
        addresses=built.addresses,
        entries=built.entries,
        rejected=built.rejected,
        documents=cache.digest_of(kept.documents),
        validators=kept.validators,
        fetched_at=min(kept.fetched_at, clock()),
    )


def _refresh(
    job: wire.Job, feed: base.ThreatFeed, progress: _Progress, clock: Clock
) -> wire.Answer:
    """Return the list as it is published now, or that it is still the one in use."""
    job = _unconditional_if_not_kept(job)
    found = _fetch_all(job, progress)
    documents = tuple(document.body for document in found)
    digest = cache.digest_of(documents)
    unchanged = wire.Answer(
        status=wire.Status.UNCHANGED,
        sources=progress.sources,
        is_answered=True,
        documents=job.documents,
        validators=tuple((document.etag, document.last_modified) for document in found),
    )
    # A server without validators sends the same document again and again.
    if job.documents and (_are_unchanged(found) or digest == job.documents):
        return unchanged
    unwanted = special_use.addresses(job.own_networks)
    built = lists.build(feed, documents, unwanted=unwanted)
    why = lists.check_change(built.entries, job.entries)
    held = _held(job, built.entries, clock()) if why else None
    if held is not None and not _is_confirmed(held, job, clock()):
        return dataclasses.replace(
            unchanged, status=wire.Status.HELD, error=why, held=held, validators=job.validators
        )
    answer = dataclasses.replace(
        unchanged,
        status=wire.Status.ACCEPTED,
        addresses=built.addresses,
        entries=built.entries,
        rejected=built.rejected,
        documents=digest,
        fetched_at=clock(),
    )
    return dataclasses.replace(answer, cache_error=_keep(job, answer, documents))


def _unconditional_if_not_kept(job: wire.Job) -> wire.Job:
    """Return the job such that the whole list comes, if it has to be written to the disk.

    It is not there when the disk was full, or when somebody removed it.
    """
    kept = cache.stored_digest(job.cache_dir, job.feed)
    if kept == job.documents or not files.is_writable(job.cache_dir):
        return job
    return dataclasses.replace(job, documents='', validators=())


def _fetch_all(job: wire.Job, progress: _Progress) -> tuple[fetch.Document, ...]:
    """Return a document for each source: all of them unchanged, or none.

    The time-out is for all of them together.
    """
    sources, ends = progress.sources, time.monotonic() + job.settings['timeout']
    known = job.validators
    if len(known) != len(sources) or not job.documents:
        known = (_NO_VALIDATOR,) * len(sources)
    found = [
        _fetch(job, source, validator, ends, progress)
        for source, validator in zip(sources, known, strict=True)
    ]
    if not _are_unchanged(found):
        for number, document in enumerate(found):
            if document.is_unchanged:
                found[number] = _fetch(job, sources[number], _NO_VALIDATOR, ends, progress)
    return tuple(found)


def _fetch(
    job: wire.Job,
    source: str,
    validator: tuple[str, str],
    ends: float,
    progress: _Progress,
) -> fetch.Document:
    settings = job.settings
    etag, last_modified = validator
    if source.startswith('/'):
        return fetch.read_file(source, settings['max_bytes'], etag)
    left = ends - time.monotonic()
    if left <= 0:
        raise exceptions.FeedError(
            f'not all documents came within {settings["timeout"]:g} s; raise timeout'
        )
    request = fetch.Request(
        url=source,
        etag=etag,
        last_modified=last_modified,
        timeout=left,
        max_bytes=settings['max_bytes'],
        max_unpacked_bytes=settings['max_unpacked_bytes'],
        ca_file=settings['ca_file'],
        proxy=settings['proxy'],
        secret_header=settings['secret_header'],
        secret_file=settings['secret_file'],
        **dataclasses.asdict(job.flags),
    )
    document = fetch.fetch(request)
    progress.is_answered = True
    return document


def _are_unchanged(documents: Sequence[fetch.Document]) -> bool:
    return all(document.is_unchanged for document in documents)


def _held(job: wire.Job, entries: int, now: float) -> state.Held:
    """Return the list on hold, which is the one of last time when it has about its length.

    Not the same bytes: most lists change every hour, and would wait for ever.
    """
    before = job.held
    if before is None or lists.check_change(entries, before.entries):
        return state.Held(entries=entries, since=now, times=1)
    return state.Held(entries=entries, since=min(before.since, now), times=before.times + 1)


def _is_confirmed(held: state.Held, job: wire.Job, now: float) -> bool:
    return held.times > 1 and now - held.since >= job.settings['hold']


def _keep(job: wire.Job, answer: wire.Answer, documents: tuple[bytes, ...]) -> str:
    """Write the cache; return why it could not be written."""
    try:
        cache.write(
            job.cache_dir,
            cache.Entry(
                feed=job.feed,
                driver=job.driver,
                sources=answer.sources,
                documents=documents,
                validators=answer.validators,
                fetched_at=answer.fetched_at or 0.0,
                entries=answer.entries,
                version=_version(),
            ),
        )
    except exceptions.FeedError as exc:
        return str(exc)
    return ''


def _most_bytes(job: wire.Job) -> int:
    # A document from the network is unpacked, one from a file is not.
    return max(int(job.settings['max_bytes']), int(job.settings['max_unpacked_bytes']))


def _version() -> str:
    try:
        return importlib.metadata.version('oie')
    except importlib.metadata.PackageNotFoundError:
        return ''
