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

"""The site's own list: a file, or a directory of files, that somebody edits."""

from oslo_config import cfg

from oie.feeds import base
from oie.feeds import plain_list
from oie.feeds import sources


class CustomListFeed(plain_list.PlainListFeed):
    """The site's own list: text of one address, network or ``first-last`` a line."""

    TAG = 'CUSTOMLIST'
    OPTS = (*base.options(refresh='10m', min_interval='0', allow_empty=True), sources.PATH)


# Whoever edits the file wants what it says, also when it is suddenly short.
cfg.set_defaults(CustomListFeed.OPTS, hold='0')
