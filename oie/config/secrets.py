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

"""Are the files that hold secrets closed to others?"""

import os
import re
import stat

from oie import exceptions
from oie.config import checks
from oie.config import files
from oie.config import messages

# A user and a password in front of the host of a URL.
_CREDENTIALS = re.compile(r'//[^/\s@]*:[^/\s@]*@')


def check(settings: checks.Settings, options: checks.Options) -> None:
    """Check every file that sets a secret, and every file that an option names as one.

    A secret is what an option marked so holds, or a password in a URL.

    :raises ConfigError: others may read such a file
    """
    known = {option.key: option for names in options.values() for option in names.values()}
    for key, found in settings.items():
        option = known[key]
        for setting in found:
            if setting.value and (option.opt.secret or _CREDENTIALS.search(setting.value)):
                _refuse_open(setting.path, setting, 'holds a secret')
            elif option.opt.dest == 'secret_file' and setting.value:
                _refuse_open(setting.value, setting, 'names a file with a secret')


def _refuse_open(path: str, setting: files.Setting, what: str) -> None:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return  # whoever needs the file says so
    if mode & stat.S_IROTH:
        section, name = messages.shown(setting.section), messages.shown(setting.name)
        raise exceptions.ConfigError(
            f'{setting.place}: [{section}] {name} {what}, but everybody may read {path} '
            f'(mode {mode:04o}): chmod o= it'
        )


def masked(text: str) -> str:
    """Return a text without what its URLs say of users, passwords and queries."""
    hidden = re.sub(r'//[^/\s@]*@', '//***@', text)
    return re.sub(r'(https?://[^\s?]*\?)[^\s,]+', r'\1***', hidden)
