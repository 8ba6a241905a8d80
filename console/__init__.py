"""A console in the browser: it shows a live run, stops it, and shows finished runs."""
