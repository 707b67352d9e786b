"""A page of HTML as a PDF, by the same template and its rules for print.

Comes in: a page that ``write_page`` wrote. Goes out: a PDF beside it. WeasyPrint does it, without a browser and without
a network: whatever a page does not carry itself is refused.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

from hilum.errors import UsageError
from hilum.files import written
from hilum.pages.strings import NOT_A_DEVICE

PRINT_CSS = """
@page { size: A4; margin: 13mm 13mm 16mm;
  @bottom-left { content: "DEVICE"; font: 8pt sans-serif; color: #555; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #555; } }
"""


def write_pdf(page: Path, pdf: Path) -> Path:
    """Write ``page`` as a PDF.

    Raises:
        UsageError: the extra ``pdf`` or the system's Pango library is missing.
        OutputError: the file cannot be written.
    """
    weasyprint = _weasyprint()
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)  # it tells of every rule for screens only
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    document = weasyprint.HTML(filename=str(page), url_fetcher=_only_inside())
    style = weasyprint.CSS(string=PRINT_CSS.replace("DEVICE", NOT_A_DEVICE))
    with written(pdf) as part:
        document.write_pdf(str(part), stylesheets=[style])
    return pdf


def _only_inside() -> Any:
    """A fetcher that knows data: URIs and nothing else."""
    urls = import_module("weasyprint.urls")
    if hasattr(urls, "URLFetcher"):  # WeasyPrint 68 and newer
        return urls.URLFetcher(allowed_protocols={"data"}, fail_on_errors=True)

    def fetch(url: str, *args: Any, **options: Any) -> Any:
        if not url.startswith("data:"):
            raise ValueError(f"a page refers to {url}")
        return urls.default_url_fetcher(url, *args, **options)

    return fetch


def _weasyprint() -> Any:
    try:
        return import_module("weasyprint")
    except ImportError:
        raise UsageError(
            "PDF needs WeasyPrint, which is not installed", wanted="the extra pdf", fix="pip install 'hilum[pdf]'"
        ) from None
    except OSError as error:  # the package is there, the system's library is not
        raise UsageError(
            f"PDF needs the Pango library of the system ({' '.join(str(error).split())[:120]})",
            wanted="Pango 1.44 or newer",
            fix="on Debian and Ubuntu: apt-get install libpango-1.0-0 libpangoft2-1.0-0",
        ) from None
