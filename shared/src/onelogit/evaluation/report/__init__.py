"""The results of an evaluation -> tables, JSON and an HTML page."""
