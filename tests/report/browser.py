"""A headless Chromium that draws a page and gives back what it made of it."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,5000",
    "--virtual-time-budget=10000",
    "--dump-dom",
)


def drawn(page: str, folder: Path) -> str:
    """The DOM of `page` once its scripts have run."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def own_text(page: str) -> str:
    """The page without plotly.js, which names its own home page."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.S)
