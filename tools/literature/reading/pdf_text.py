"""Text of a PDF, as a process of its own: `python pdf_text.py MAX_PAGES MEMORY_BYTES SECONDS < paper.pdf > pages.json`.

A PDF from outside may keep the parser busy for ever or let it fill the memory; a process can be given limits and ended.
It imports nothing of crew. The output is `{"pages": [text, ...], "of": pages of the file}` or `{"error": why}`.
"""

from __future__ import annotations

import io
import json
import logging
import sys

MAX_CHARACTERS = 2_000_000


def main(max_pages: int, memory: int, seconds: int) -> dict[str, object]:
    """Read the PDF on standard input."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        if sys.platform != "darwin":  # macOS refuses RLIMIT_AS
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.disable(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "it is encrypted"}
        pages: list[str] = []
        left = MAX_CHARACTERS  # what is printed has to fit into the memory of the process that reads it
        for page in reader.pages[:max_pages]:
            pages.append(page.extract_text()[:left])
            left -= len(pages[-1])
            if left <= 0:
                break
        return {"pages": pages, "of": len(reader.pages)}
    except MemoryError:
        return {"error": f"reading it takes more than {memory / 2**20:.0f} MiB of memory"}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except NotImplementedError as error:
        return {"error": f"it uses what pypdf cannot read: {str(error)[:200]}"}
    # pypdf lets errors of many kinds through on a broken file; all of them say the same here: it cannot be read
    except (PyPdfError, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*(int(word) for word in sys.argv[1:4]))))
