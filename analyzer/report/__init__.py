"""HTML pages, summaries and pictures of results. Reads results and figures; computes no attribution."""

from __future__ import annotations

from analyzer.report.check_page import render_check, write_check
from analyzer.report.matrix_page import matrix_html
from analyzer.report.page import render_report, write_report
from analyzer.report.token_page import tokens_html

__all__ = ["matrix_html", "render_check", "render_report", "tokens_html", "write_check", "write_report"]
