"""Commands on a terminal: `visage top` with its keys and the restored terminal, and the lines of `visage serve`."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import server


class Terminal:
    """A terminal of 80x24 that runs a program."""

    def __init__(self, *arguments, **environment):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen([server.binary(), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                        env={**server.environment(), "TERM": "xterm", **environment})
        self.theirs, self.text = theirs, ""

    def read(self, until):
        """Reads until a condition on the whole text holds."""
        limit = time.monotonic() + server.DEADLINE_SECONDS
        while not until(self.text):
            if time.monotonic() > limit:
                raise AssertionError("timed out; the terminal shows {!r}".format(self.text))
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def drain(self):
        """Waits for the end of the program, reads its remaining output and returns its exit code."""
        server.wait_for(lambda: self.process.poll() is not None, "top has ended")
        while select.select([self.ours], [], [], 0.1)[0]:
            self.text += os.read(self.ours, 65536).decode(errors="replace")
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for side in (self.ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(side)


class TopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", "--device", "cpu", "--threads", "1")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def top(self, *arguments, **environment):
        terminal = Terminal("top", "--server", self.server.grpc_address, "--interval", "200ms", *arguments, **environment)
        self.addCleanup(terminal.close)
        # Unchanged blanks are not written again, so only words can be compared.
        terminal.read(lambda text: "SERVING" in text and "quits" in text)
        return terminal

    def ends(self, terminal, code):
        self.assertEqual(terminal.drain(), code, terminal.text)
        # The previous screen is restored, with cursor and line discipline.
        self.assertIn("\x1b[?1049h", terminal.text)
        self.assertIn("\x1b[?1049l", terminal.text)
        self.assertGreater(terminal.text.rindex("\x1b[?25h"), terminal.text.rindex("\x1b[?25l"))
        self.assertEqual(termios.tcgetattr(terminal.theirs), terminal.before)

    def test_q_ctrl_c_and_a_signal_end_it_and_restore_the_terminal(self):
        for end in (lambda terminal: os.write(terminal.ours, b"q"), lambda terminal: os.write(terminal.ours, b"\x03"),
                    lambda terminal: terminal.process.send_signal(signal.SIGTERM)):
            terminal = self.top()
            end(terminal)
            self.ends(terminal, 0)

    def test_no_color_disables_colours(self):
        colour = "\x1b[38;5;"
        colourful = self.top()
        self.assertIn(colour, colourful.text)
        self.assertNotIn(colour, self.top(NO_COLOR="1").text)

    def test_once_prints_plain_text_with_the_metrics_page(self):
        text = server.run("top", "--server", self.server.grpc_address, "--once", "--interval", "100ms")
        self.assertIn("calls/s", text)
        self.assertIn("models/age/versions/1", text)
        self.assertNotIn("\x1b", text)

    def test_an_unresponsive_server_is_waited_for(self):
        terminal = self.top()
        os.kill(self.server.process.pid, signal.SIGSTOP)
        try:
            # A call without a response ends at its deadline; until then the last frame stays, and
            # keys work.
            os.write(terminal.ours, b"q")
            self.ends(terminal, 0)
        finally:
            os.kill(self.server.process.pid, signal.SIGCONT)


class ServeTest(unittest.TestCase):
    def test_a_terminal_shows_the_addresses_the_data_and_the_way_to_a_model(self):
        with tempfile.TemporaryDirectory() as directory:
            terminal = Terminal("serve", "--data-dir", directory, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--device", "cpu")
            self.addCleanup(terminal.close)
            terminal.read(lambda text: "Commands" in text and "VISAGE_SERVER=" in text)
            for part in ("is ready; Ctrl-C stops it.", "http://127.0.0.1:", "Data        " + directory, "`visage models register starter`"):
                self.assertIn(part, terminal.text)
            terminal.process.send_signal(signal.SIGTERM)
            self.assertEqual(terminal.drain(), 0, terminal.text)


if __name__ == "__main__":
    unittest.main()
