"""Make paper.html from paper.tex with LaTeXML, as arxiv.org/html does. Needs `apt install latexml`; tests only read
the result.

python tests/loopback/papers/render.py                 # papers whose TeX is newer than their HTML
python tests/loopback/papers/render.py 2609.90001      # this one
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
POST = ("latexmlpost", "--quiet", "--format=html5", "--pmml", "--nodefaultresources", "--timestamp=0")


def render(folder: Path) -> None:
    """LaTeXML's own two steps; the XML between them is not kept."""
    with tempfile.TemporaryDirectory() as scratch:
        xml, html = Path(scratch) / "paper.xml", Path(scratch) / "paper.html"
        subprocess.run(["latexml", "--quiet", f"--destination={xml}", "paper.tex"], cwd=folder, check=True)
        subprocess.run(
            [*POST, f"--destination={html}", str(xml)],
            cwd=folder,
            check=True,
        )
        (folder / "paper.html").write_bytes(html.read_bytes())


def stale(folder: Path) -> bool:
    """Whether the TeX changed since it was rendered."""
    html = folder / "paper.html"
    return not html.exists() or html.stat().st_mtime < (folder / "paper.tex").stat().st_mtime


if __name__ == "__main__":
    chosen = [HERE / name for name in sys.argv[1:]]
    for paper in chosen or sorted(path.parent for path in HERE.glob("*/paper.tex")):
        if chosen or stale(paper):
            render(paper)
            print(f"{paper.name}: {(paper / 'paper.html').stat().st_size:,} bytes")
