"""LABELS -> NUMBERS AND PAGES: measurements, pictures, charts and the HTML that holds them."""
