"""The page of a report: what it is made of, as data, and how that becomes one HTML file."""
