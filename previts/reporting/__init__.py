"""The report page: numbers, evidence, pictures, as HTML, Markdown and CSV."""
