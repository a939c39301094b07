"""The report in a real browser: laptop and phone, light and dark mode."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.paths import Paths
from dxai.reporting.html.page import build_report
from tests.browser import chromium
from tests.conftest import require_program
from tests.fixtures import write_results

pytestmark = pytest.mark.slow

HOSTILE = ("<script>alert(1)</script>", "a_b & 50%", "n" * 90)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--allow-file-access-from-files"
)
PROBE = """
<script>
addEventListener("load", () => {
  const all = [...document.querySelectorAll("*")];
  const ids = new Set(all.map(e => e.id).filter(Boolean));
  const focusable = [...document.querySelectorAll("a[href], summary, [tabindex='0']")];
  const scrolls = all.filter(e => e.scrollWidth > e.clientWidth + 1
    && ["auto", "scroll"].includes(getComputedStyle(e).overflowX));
  document.querySelector("details:not([open]) a[href^='#'], summary").focus();
  const found = {
    width: document.documentElement.scrollWidth,
    window: innerWidth,
    sticking: all.filter(e => e.getBoundingClientRect().right > innerWidth + 1
      && !e.closest(".scroll, pre, .skip, .hidden, svg")).map(e => e.outerHTML.slice(0, 80)),
    scrolling: scrolls.length,
    unreachable: scrolls.filter(e => e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80)),
    lost: [...document.querySelectorAll("a[href^='#']")]
      .map(a => a.getAttribute("href").slice(1)).filter(id => !ids.has(id)),
    links: document.querySelectorAll("a[href^='#']").length,
    outline: getComputedStyle(document.activeElement).outlineStyle,
    focusable: focusable.length,
    broken: [...document.images].filter(i => !i.naturalWidth).length,
    images: document.images.length,
    requests: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    scripts: document.querySelectorAll("script:not([type])").length,
  };
  const out = document.createElement("output");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report, a copy that measures itself, and frames as narrow as a phone."""
    folder = tmp_path_factory.mktemp("page")
    page = build_report(*write_results(folder / "run", HOSTILE, rich=True))
    (folder / "report.html").write_text(page, encoding="utf-8")
    # The page's own policy lets nothing run: the copy goes without it.
    allowed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert allowed != page
    probed = allowed.replace("<details>", "<details open>").replace("</body>", f"{PROBE}</body>")
    (folder / "probe.html").write_text(probed, encoding="utf-8")
    return folder


def browse(folder: Path, page: str, width: int, scheme: str, *flags: str) -> str:
    """Open a page in a frame as wide as a device, and return chromium's output."""
    frame = folder / f"{page}-{width}.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page}.html" style="border:0;width:{width}px;'
        'height:2400px"></iframe><output></output>'
        "<script>onload = () => setTimeout(() => {"
        "const found = document.querySelector('iframe').contentDocument.querySelector('#probe');"
        "document.querySelector('output').textContent = found?.textContent ?? '' }, 100)</script>"
    )
    done = subprocess.run(
        [
            require_program("chromium"),
            *FLAGS.split(),
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={max(width, 500)},2400",
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            *flags,
            frame.as_uri(),
        ],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_everything_can_be_reached(folder: Path, width: int) -> None:
    text = browse(folder, "probe", width, "light", "--virtual-time-budget=4000", "--dump-dom")
    found = json.loads(re.findall(r"<output>(\{.*\})</output>", text)[-1])
    assert found["window"] == width
    assert found["width"] <= width and found["sticking"] == []
    assert found["scrolling"] > 5 or width > 1000, "wide tables scroll on a phone"
    assert found["unreachable"] == [], "what scrolls takes the focus"
    assert found["links"] > 100 and found["lost"] == []
    assert found["focusable"] > 100 and found["outline"] == "solid"
    assert found["images"] > 400 and found["broken"] == 0
    assert found["requests"] == []
    assert found["scripts"] == 2, "the slider's, the probe, and nothing from the data"


def test_sliders_remove_the_stored_parts(folder: Path) -> None:
    """One at the top, and one in a panel far below: both show the first image of a class."""
    paths = Paths(folder / "run")
    ours = paths.outcome("textures", "resnet18") / "dxai-0"
    with np.load(ours / "attributions.npz") as file:
        psi = file["neutral"][0].astype(float)
    image = ShardedDataset(paths.dataset("textures"), "test").batch([0]).images[0].numpy()
    table = pd.read_parquet(ours / "outcomes.parquet")
    table = table[(table["method"] == "neutral") & (table["curve"] == "beta")]
    table = table[table["index"] == 0]
    with chromium() as browser:
        browser.open(folder / "report.html")
        for place in ("#pictures", "#cell-1-curves"):
            viewer = f"document.querySelector('{place} .viewer')"
            browser.run(f"{viewer}.querySelector('input').focus()")
            browser.wait(f"{viewer}.ariaBusy === 'false'")
            browser.press("ArrowRight", 4)
            shown = browser.run(
                f"(() => {{ const c = {viewer}.querySelector('canvas');"
                "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
                "})()"
            )
            wanted = ((image - 0.4 * psi + 1) * 127.5).clip(0, 255)[0]
            gray = np.array(shown).reshape(*wanted.shape, 4)
            assert np.abs(gray[..., 0] - wanted).max() <= 0.5 + 1 / 16
            assert np.abs(gray[..., 0] - ((image[0] + 1) * 127.5)).max() > 10, "something is gone"
            answers = browser.run(
                f"Array.from({viewer}.querySelectorAll('.answers b'), e => Number(e.textContent))"
            )
            stored = table.loc[np.isclose(table["level"], 0.4), ["p0", "p1", "p2"]].to_numpy()[0]
            assert answers == pytest.approx(stored.tolist(), abs=0.0051)
        assert len(browser.requests) == 1 and browser.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_drawn_in_both_schemes(folder: Path, scheme: str, width: int) -> None:
    shot = folder / f"{width}-{scheme}.png"
    browse(folder, "report", width, scheme, f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB"))[:, :width].astype(int)
    ground = pixels[5, width // 2].mean()
    assert (ground > 200) if scheme == "light" else (ground < 50)
    ink = np.abs(pixels.mean(-1) - ground) > 120
    assert ink.mean() > 0.01, "there is text"
    ours = np.abs(pixels - ([0xD5, 0x5E, 0x00] if scheme == "light" else [0xF0, 0x8A, 0x3C])).sum(
        -1
    )
    assert (ours < 40).sum() > 30, "the mark at the line of ours in Table 1"
    # Nothing sticks out: the right edge holds ground only (tables scroll inside their frame).
    assert np.ptp(pixels[:, -3:].mean(-1)) < 60
