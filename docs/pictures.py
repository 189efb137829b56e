"""Makes docs/images/report.png of a report that `make demo` has left: python docs/pictures.py runs/digits/report.html

Needs playwright and a Chromium, which `make browser` installs.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "images" / "report.png"
PARTS = ("section#answer", "section .inspector")
"""The answer, and a sample with its soft labels."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main(page: Path) -> None:
    """Photographs the parts of a page, one below the other."""
    with sync_playwright() as driver:
        found = next(filter(None, map(shutil.which, _NAMES)), None)
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1180, "height": 900})
        view.goto(page.absolute().as_uri())
        view.wait_for_selector(".chart svg")
        parts = [Image.open(io.BytesIO(view.locator(part).first.screenshot())) for part in PARTS]
        browser.close()
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    whole.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
