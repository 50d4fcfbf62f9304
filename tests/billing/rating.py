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

"""CloudKitty: its tables, its API for rules, and the rating of periods that have ended.

    python -m tests.billing.rating CONFIGURATION tables FILE
    python -m tests.billing.rating CONFIGURATION api PORT
    python -m tests.billing.rating CONFIGURATION rate

runs in CloudKitty's environment. ``rate`` reads a JSON object: ``scopes`` and ``periods`` (their
begins, ISO 8601 with zone), and prints a list of what is to be paid. Collector, rating modules,
worker and storage are CloudKitty's own; only the loop over scopes and periods is ours.
"""

from collections.abc import Iterable
import datetime
import json
import os
import sqlite3
import sys
from typing import Any

_, _configuration, _command, *_rest = sys.argv
_arguments = ['--config-file', _configuration]
# The API's application reads the command line when it is made.
sys.argv = ['cloudkitty', *_arguments]

from cloudkitty import collector  # noqa: E402
from cloudkitty import config  # noqa: E402, F401 registers options
from cloudkitty import db  # noqa: E402
from cloudkitty import orchestrator  # noqa: E402
from cloudkitty import service  # noqa: E402
from cloudkitty import storage  # noqa: E402
from cloudkitty.api import app  # noqa: E402
from keystonemiddleware import auth_token  # noqa: E402
from oslo_config import cfg  # noqa: E402
import waitress  # noqa: E402

CONF = cfg.CONF


def tables(path: str) -> None:
    """Make the tables in a file of SQLite.

    CloudKitty's own migrations make them, all in one connection to a database in memory, because
    one of them reads what another wrote by a second connection, which a file would keep locked.
    """
    # Imported here: the command line of every program that has it must name a command.
    from cloudkitty.cli import dbsync
    from cloudkitty.cli import storage as storage_cli

    service.prepare_service(['cloudkitty-dbsync', *_arguments, 'upgrade'])
    CONF.set_override('connection', 'sqlite://', 'database')
    for migration in dbsync.DBCommand().get_migrations():
        migration.upgrade('head')
    storage_cli.init_storage_backend()
    with db.session_for_read() as session:
        made = session.connection().connection.dbapi_connection
        with sqlite3.connect(path) as stored:
            made.backup(stored)


def api(port: str) -> None:
    """Serve the API, to everybody who asks."""
    service.prepare_service(['cloudkitty-api', *_arguments])
    # Who makes a rule is asked of the options that Keystone's middleware has in a cloud.
    CONF.register_opts(auth_token.AUTH_TOKEN_OPTS[0][1], 'keystone_authtoken')
    waitress.serve(app.setup_app(), host='127.0.0.1', port=int(port))


def rate(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Rate periods of scopes; return one dictionary for each thing that costs something or not."""
    service.prepare_service(['cloudkitty-processor', *_arguments])
    period = datetime.timedelta(seconds=CONF.collect.period)
    begins = [datetime.datetime.fromisoformat(text) for text in asked['periods']]
    source, store = collector.get_collector(), storage.get_storage()
    found = []
    for scope in asked['scopes']:
        worker = orchestrator.Worker(source, store, scope, 0)
        for begin in begins:
            worker.next_timestamp_to_process = lambda now=begin: now
            worker.do_execute_scope_processing(begin)
            found += [
                _line(scope, begin, name, point.as_dict(mutable=True))
                for frame in _frames(store, scope, begin, begin + period)
                for name, point in frame.iterpoints()
            ]
    return found


def _frames(
    store: Any, scope: str, begin: datetime.datetime, end: datetime.datetime
) -> Iterable[Any]:
    """Return what is stored of a period; nothing where nothing was used."""
    filters = {CONF.collect.scope_key: scope}
    try:
        found = store.retrieve(begin=begin, end=end, filters=filters, paginate=False)
    except storage.NoTimeFrame:
        return []
    frames: Iterable[Any] = found['dataframes']
    return frames


def _line(
    scope: str, begin: datetime.datetime, name: str, point: dict[str, Any]
) -> dict[str, Any]:
    return {
        'scope': scope,
        'period': begin.isoformat(),
        'service': name,
        'quantity': float(point['vol']['qty']),
        'unit': point['vol']['unit'],
        'price': float(point['rating']['price']),
        'labels': {**point['groupby'], **point['metadata']},
    }


def main() -> None:
    # Libraries print what they like.
    answer, sys.stdout = sys.stdout, sys.stderr
    if _command == 'tables':
        tables(_rest[0])
    elif _command == 'api':
        api(_rest[0])
    else:
        json.dump(rate(json.load(sys.stdin)), answer)
    answer.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
