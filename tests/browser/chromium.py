"""The browser that the checks of this directory drive."""

import os
import shutil
import sys

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def find_chromium() -> str:
    """Its path: CHROMIUM names it, else the usual names are tried."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    for name in names:
        if name and (path := shutil.which(name)):
            return path
    sys.exit("error: no chromium on this machine.\nfix:   install Debian's package chromium, or set CHROMIUM.")
