"""The page in a real browser: it fits the width of a phone, shows something, and prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from compress.figures import Figure, Series
from compress.report import LayerChange, build_report, html, svg

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip

# A page around the report, in a frame as wide as a phone: windows of a browser are not as narrow. Its title tells what
# reaches out of the frame, apart from what is scrolled in a frame of its own.
AROUND = """<title></title><iframe width="{width}" height="900" style="border: 0" srcdoc="{page}"></iframe><script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument, width = frame.contentWindow.innerWidth;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const wide = [...page.querySelectorAll("main *")].filter(
    each => !each.closest(".scroll *, svg *") && each.getBoundingClientRect().right > width + 1);
  document.title = JSON.stringify({{
    window: width, page: page.documentElement.scrollWidth, text: page.body.innerText.length,
    wide: wide.map(each => each.tagName + " " + each.className),
  }});
}};
</script>"""

Browser = Callable[..., str]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Runs a browser with some options and gives what it prints."""
    program = next((found for found in map(shutil.which, NAMES) if found), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)}")
    profile = tmp_path_factory.mktemp("profile")

    def run(*options: str) -> str:
        words = [program, *OPTIONS, f"--user-data-dir={profile}", *options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def page(full: dict[str, Any], tmp_path: Path) -> Path:
    """A page with everything, long names and all."""
    names = [f"features.stage{n // 30}.denselayer{n}.bottleneck.convolution" for n in range(90)]
    full["layers"] = tuple(LayerChange(name, "convolution 3x3", 64, 24) for name in names)
    line = Series("a rather long name of a series", [0, 1, 2], [1, 2, 3])
    figure = Figure("tetris-0", "0.weight", "x", "y", (line, Series("another one of these names", [0, 1], [3, 1])))
    file = tmp_path / "report.html"
    file.write_text(html(build_report(**full), {"figures/tetris-0.svg": svg(figure)}), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_reaches_out_of_the_window(browser: Browser, page: Path, width: int) -> None:
    around = page.with_name("around.html")
    around.write_text(AROUND.format(width=width, page=escape(page.read_text("utf-8"))), encoding="utf-8")
    shown = browser("--dump-dom", "--window-size=1300,1000", around.as_uri())
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    found = json.loads(unescape(title[1]))
    assert found["window"] == width
    assert found["wide"] == [] and found["page"] <= width
    assert found["text"] > 5000


def test_it_shows_something_in_light_and_dark(browser: Browser, page: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    brightness = []
    for scheme in (1, 0):  # light, dark
        shot = tmp_path / f"{scheme}.png"
        browser(
            f"--screenshot={shot}", "--window-size=360,900", f"--blink-settings=preferredColorScheme={scheme}",
            page.as_uri(),
        )  # fmt: skip
        pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
        assert pixels.shape == (900, 360) and pixels.std() > 20  # texts and bars, not an empty page
        brightness.append(np.median(pixels))
    assert brightness[0] > 240 and brightness[1] < 40


def test_it_prints(browser: Browser, page: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.pdf"
    browser("--no-pdf-header-footer", f"--print-to-pdf={file}", page.as_uri())
    content = file.read_bytes()
    assert content.startswith(b"%PDF") and len(content) > 20_000
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", content))
    assert 2 <= pages <= 8
