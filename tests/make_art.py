"""Draws assets/*.svg, the pictures of the registry, as PNGs beside them: .venv/bin/python tests/make_art.py"""

import shutil

from playwright.sync_api import sync_playwright
from setup_host import REPO


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for drawing in sorted((REPO / "assets").glob("*.svg")):
            page = browser.new_page()
            page.goto(drawing.as_uri())
            page.locator("svg").screenshot(path=drawing.with_suffix(".png"), omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
