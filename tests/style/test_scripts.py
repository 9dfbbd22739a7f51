#!/usr/bin/env python3
"""Tests of scripts/install-deps and scripts/contain.

The package manager and the user are played by small programs put first in $PATH, so that each way
to fail can be seen anywhere, without root, without a network, and without changing the machine.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

OPTIONS = None


class Case(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="vex-scripts-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)


class InstallDeps(Case):
    def setUp(self):
        super().setUp()
        self.calls = self.folder / "calls"
        for name in ("bash", "cat", "env", "grep", "tr"):
            (self.folder / name).symlink_to(shutil.which(name))

    def play(self, name, script):
        path = self.folder / name
        path.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        path.chmod(0o755)

    def play_debian(self, installed="false", user=0, apt="true"):
        """dpkg-query answers as `installed`; apt-get notes its arguments and ends like `apt`."""
        self.play(
            "dpkg-query",
            f'{installed} && echo installed && exit 0\necho "no such package" >&2\nexit 1',
        )
        self.play("id", f"echo {user}")
        self.play("apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{self.calls}\n{apt}')

    def run_script(self, *options):
        return subprocess.run(
            [OPTIONS.root / "scripts/install-deps", *options],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": str(self.folder)},
        )

    def test_list(self):
        done = self.run_script("--list")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("liburing-dev", done.stdout.split())
        self.assertNotIn("clang-14", done.stdout.split())
        self.assertIn("clang-14", self.run_script("--dev", "--list").stdout.split())

    def test_everything_is_installed(self):
        self.play_debian(installed="true")
        done = self.run_script()
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertFalse(self.calls.exists(), "apt-get was called although nothing is missing")

    def test_installs_what_is_missing(self):
        # Installed is what apt-get was asked for.
        self.play_debian(installed=f'grep -qs -- " ${{@: -1}}\\( \\|$\\)" {self.calls}')
        done = self.run_script()
        self.assertEqual(done.returncode, 0, done.stderr)
        update, install = self.calls.read_text().splitlines()
        self.assertTrue(update.startswith("noninteractive ") and update.endswith(" update"), update)
        self.assertIn(" install -y --no-install-recommends binutils cmake ", install)

    def test_update_may_fail_if_install_does_not(self):
        self.play_debian(
            installed=f'grep -qs -- " ${{@: -1}}\\( \\|$\\)" {self.calls}',
            apt='[[ " $* " != *" update "* ]]',
        )
        self.assertEqual(self.run_script().returncode, 0)

    def test_apt_fails(self):
        self.play_debian(apt="exit 100")
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get could not install: binutils", done.stderr)
        self.assertIn(
            "apt-get update && apt-get install --no-install-recommends binutils", done.stderr
        )

    def test_apt_succeeds_without_installing(self):
        self.play_debian()
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("these are not installed: binutils", done.stderr)

    def test_neither_root_nor_sudo(self):
        self.play_debian(user=1000)
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("Installing needs root, and there is no sudo here", done.stderr)
        self.assertIn("apt-get install --no-install-recommends binutils cmake", done.stderr)
        self.assertFalse(self.calls.exists())

    def test_uses_sudo(self):
        self.play_debian(installed=f'grep -qs -- " ${{@: -1}}\\( \\|$\\)" {self.calls}', user=1000)
        self.play("sudo", f'echo "sudo $1" >>{self.calls}\n[ "$1" = -n ] && shift\nexec "$@"')
        self.assertEqual(self.run_script().returncode, 0)
        # Nobody is there to type a password.
        self.assertIn("sudo -n\n", self.calls.read_text())

    def test_not_debian(self):
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("not a Debian-like system", done.stderr)
        self.assertIn("liburing-dev libxxhash-dev ninja-build pkg-config python3", done.stderr)

    def test_unknown_option(self):
        done = self.run_script("--everything")
        self.assertEqual(done.returncode, 1)
        self.assertIn("unknown option '--everything'", done.stderr)


class Contain(Case):
    def run_script(self, *arguments):
        return subprocess.run(
            [sys.executable, "-B", OPTIONS.root / "scripts/contain", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def leftover(self):
        """A shell command that leaves a daemon behind, whose number goes to a file."""
        return (
            f"setsid sh -c 'echo $$ >{self.folder}/pid; exec sleep 60' & "
            f"while [ ! -s {self.folder}/pid ]; do sleep 0.01; done"
        )

    def assert_gone(self):
        pid = int((self.folder / "pid").read_text())
        self.assertFalse(pathlib.Path(f"/proc/{pid}").exists(), f"process {pid} is still there")

    def test_status_of_the_command(self):
        self.assertEqual(self.run_script("true").returncode, 0)
        self.assertEqual(self.run_script("sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.run_script("sh", "-c", "kill -9 $$").returncode, 128 + 9)

    def test_waits_for_what_ends_by_itself(self):
        done = self.run_script(
            "--grace", "20", "sh", "-c", f"(sleep 0.3; echo done >{self.folder}/end) &"
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue((self.folder / "end").exists())

    def test_kills_and_names_what_stays(self):
        done = self.run_script("--grace", "0.1", "sh", "-c", self.leftover())
        self.assertEqual(done.returncode, 125)
        self.assertIn("that was left running: sleep 60", done.stderr)
        self.assert_gone()

    def test_failure_of_the_command_wins(self):
        done = self.run_script("--grace", "0.1", "sh", "-c", self.leftover() + "; exit 3")
        self.assertEqual(done.returncode, 3)
        self.assert_gone()

    def test_kills_everything_when_interrupted(self):
        running = subprocess.Popen(
            [
                sys.executable,
                "-B",
                OPTIONS.root / "scripts/contain",
                "sh",
                "-c",
                self.leftover() + "; sleep 60",
            ]
        )
        deadline = time.monotonic() + 30
        while not (self.folder / "pid").exists() or not (self.folder / "pid").read_text():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGTERM)
        self.assertEqual(running.wait(timeout=30), 128 + signal.SIGTERM)
        self.assert_gone()

    def test_command_that_does_not_exist(self):
        done = self.run_script(str(self.folder / "nothing"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("No such file or directory", done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2]
    )
    OPTIONS, others = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *others])
