"""The report page: numbers, evidence and figures as HTML, Markdown and CSV."""
