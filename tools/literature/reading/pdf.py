"""A PDF as a Document: the last resort. Prose and headings survive, tables become lines of text.

pypdf runs in a child process (`pdf_text.py`) with a bound on pages, memory and time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from posttrain_crew.errors import BadAnswerError
from posttrain_crew.tools.literature.reading.builder import DocumentBuilder
from posttrain_crew.tools.literature.reading.document import Document

__all__ = ["MAX_PDF_BYTES", "parse_pdf"]

MAX_PDF_BYTES = 32 * 2**20
_MAX_PAGES = 80
_MEMORY = 3 * 2**30
_HEADING = re.compile(r"^(\d{1,2}(?:\.\d{1,2}){0,2}|[A-Z](?:\.\d{1,2}){0,2})\.?\s+([A-Z][\w ,:?'’()/-]{2,70})$")
_UNNUMBERED = re.compile(r"^(Abstract|ABSTRACT|References|REFERENCES|Appendix|Acknowledge?ments?)\s*$")
_HYPHEN = re.compile(r"(\w)-\n(?=[a-z])")


def parse_pdf(body: bytes, arxiv_id: str, seconds: int = 60) -> Document:
    """Parse a PDF.

    Args:
        seconds: after which reading it is given up.

    Raises:
        BadAnswerError: it is no PDF, broken, encrypted, too large, too slow, or has no text (a scan).
    """
    if not body[:1024].lstrip().startswith(b"%PDF-"):
        raise BadAnswerError(f"what came as the PDF of {arxiv_id} is no PDF; it begins {body[:40]!r}.")
    if len(body) > MAX_PDF_BYTES:
        raise BadAnswerError(f"the PDF of {arxiv_id} has {len(body) / 2**20:.0f} MiB; at most 32 are read.")
    told = _extract(body, arxiv_id, seconds)
    if "error" in told:
        raise BadAnswerError(f"the PDF of {arxiv_id} cannot be read: {told['error']}.")
    pages = [str(page) for page in told["pages"]]
    if sum(len(page.split()) for page in pages) < 20:
        raise BadAnswerError(f"the PDF of {arxiv_id} holds no text; it may be a scan.")
    out = DocumentBuilder(arxiv_id, "pdf")
    out.note("read from the PDF: tables are lines of text, and formulas are not reliable")
    if told["of"] > len(pages):
        out.note(f"only the first {len(pages)} of {told['of']} pages were read")
    _sections(_HYPHEN.sub(r"\1", "\n".join(pages)), out)
    return out.finish()


def _extract(body: bytes, arxiv_id: str, seconds: int) -> dict[str, Any]:
    script = Path(__file__).with_name("pdf_text.py")
    # the child gets no setting or key of this process, only where its packages are
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(_MAX_PAGES), str(_MEMORY), str(seconds)],
            input=body,
            capture_output=True,
            timeout=seconds + 5,
            env=environment,
            check=False,
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise BadAnswerError(f"the PDF of {arxiv_id} was not read within {seconds} s.") from error
    except ValueError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        raise BadAnswerError(f"the PDF of {arxiv_id} cannot be read: {last[0][:200]}.") from error
    return dict(told)


def _sections(text: str, out: DocumentBuilder) -> None:
    lines = text.splitlines()
    out.set_title(next((line.strip() for line in lines if line.strip()), ""))
    kind, open_levels = "section", 0
    for line in lines:
        line = line.strip()
        numbered, named = _HEADING.match(line), _UNNUMBERED.match(line)
        if numbered is None and named is None:
            if line:
                out.text(line + " ")
            if not line or line.endswith((".", ":")):
                out.break_paragraph()
            continue
        while open_levels:
            out.close_section()
            open_levels -= 1
        title = numbered[2] if numbered else named[1] if named else ""
        number = numbered[1] if numbered else ""
        word = title.lower()
        if word == "abstract":
            kind = "abstract"
        elif word == "references":
            kind = "bibliography"
        elif word == "appendix" or number[:1].isalpha():
            kind = "appendix"
        else:
            kind = "section"
        out.open_section(f"S{number}" if number else word, number.count(".") + 1, kind)
        out.set_heading(title)
        out.set_number(number)
        open_levels = 1
