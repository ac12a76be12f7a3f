"""A browser without a window, where one is installed: what it makes of a page."""

import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


def opened(path, profile, *options, milliseconds):
    """Open a file, give its scripts so much time; return the document then, and the log."""
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    fixed += [f"--user-data-dir={profile}", f"--virtual-time-budget={milliseconds}", "--dump-dom"]
    command = [BROWSER, *fixed, *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode(), done.stderr.decode()
