"""Results as tables and sentences, for a terminal, a notebook and a page."""
