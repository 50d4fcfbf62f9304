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

"""Ansible's way into the root of a test: a connection plugin; ``ansible_host`` is a pid there.

Loaded by ansible-playbook alone, hence the imports of objects and no annotations.
"""

import subprocess

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: oie_root
short_description: run commands in the namespaces and the root of a process
description: For the tests of the role openstack_instance_exporter.
author: OpenStack Instance Exporter contributors
options:
  remote_addr:
    description: The pid of the process.
    vars:
      - name: ansible_host
"""
# An administrator's umask, which must not be that of what the service reads.
UMASK = 0o077


class Connection(ConnectionBase):
    """Commands by nsenter; what there is instead of a network is the kernel."""

    transport = 'oie_root'
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Return status, output and errors of a command line."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run('/bin/sh', '-c', cmd, input_data=in_data)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        """Copy a file of the controller there."""
        with open(in_path, 'rb') as file:
            done = self._run('/bin/sh', '-c', 'cat >"$0"', out_path, input_data=file.read())
        if done.returncode:
            raise AnsibleError(f'cannot write {out_path}: {done.stderr!r}')

    def fetch_file(self, in_path, out_path):
        """Copy a file of there to the controller."""
        done = self._run('cat', in_path)
        if done.returncode:
            raise AnsibleError(f'cannot read {in_path}: {done.stderr!r}')
        with open(out_path, 'wb') as file:
            file.write(done.stdout)

    def close(self):
        """There is nothing to close."""
        self._connected = False

    def _run(self, *argv, input_data=None):
        pid = self.get_option('remote_addr') or self._play_context.remote_addr
        enter = ('nsenter', f'--target={pid}', '--mount', '--net', '--pid', '--root', '--wd=/')
        return subprocess.run(
            (*enter, '--', *argv),
            input=input_data or b'',
            capture_output=True,
            check=False,
            umask=UMASK,
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': '/root', 'LANG': 'C.UTF-8'},
        )
