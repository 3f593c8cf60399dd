"""`visage top` on a terminal: what it draws, what ends it, and that the terminal is given back as it was."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

import server


class Terminal:
    """A terminal of 80 by 24 with a program on it."""

    def __init__(self, *arguments, **environment):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen([server.binary(), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                        env={**server.environment(), "TERM": "xterm", **environment})
        self.theirs, self.text = theirs, ""

    def read(self, until):
        """Reads until a condition on all text holds."""
        limit = time.monotonic() + server.DEADLINE_SECONDS
        while not until(self.text):
            if time.monotonic() > limit:
                raise AssertionError("in vain; the terminal shows {!r}".format(self.text))
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def drain(self):
        """Waits for the end of the program and returns its exit code; reads what it still writes."""
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
        # Blanks that were there before are skipped, so words stand alone.
        terminal.read(lambda text: "SERVING" in text and "quits" in text)
        return terminal

    def ends(self, terminal, code):
        self.assertEqual(terminal.drain(), code, terminal.text)
        # The screen from before is back, with its cursor and its line discipline.
        self.assertIn("\x1b[?1049h", terminal.text)
        self.assertIn("\x1b[?1049l", terminal.text)
        self.assertGreater(terminal.text.rindex("\x1b[?25h"), terminal.text.rindex("\x1b[?25l"))
        self.assertEqual(termios.tcgetattr(terminal.theirs), terminal.before)

    def test_q_and_ctrl_c_and_a_signal_end_it_and_give_the_terminal_back(self):
        for end in (lambda terminal: os.write(terminal.ours, b"q"), lambda terminal: os.write(terminal.ours, b"\x03"),
                    lambda terminal: terminal.process.send_signal(signal.SIGTERM)):
            terminal = self.top()
            end(terminal)
            self.ends(terminal, 0)

    def test_colours_are_left_out_when_nobody_wants_them(self):
        colour = "\x1b[38;5;"
        colourful = self.top()
        self.assertIn(colour, colourful.text)
        self.assertNotIn(colour, self.top(NO_COLOR="1").text)

    def test_one_look_in_a_pipe_is_plain_text_with_the_metrics_page(self):
        text = server.run("top", "--server", self.server.grpc_address, "--once", "--interval", "100ms")
        self.assertIn("calls/s", text)
        self.assertIn("models/age/versions/1", text)
        self.assertNotIn("\x1b", text)

    def test_server_that_is_away_is_waited_for(self):
        terminal = self.top()
        os.kill(self.server.process.pid, signal.SIGSTOP)
        try:
            # A call that gets no answer ends at its deadline; until then the last image stays, and keys work.
            os.write(terminal.ours, b"q")
            self.ends(terminal, 0)
        finally:
            os.kill(self.server.process.pid, signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
