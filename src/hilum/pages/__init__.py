"""NUMBERS -> PAGES: pictures, charts and the HTML that holds them. All English text stands in ``strings.py``."""
