"""Pictures of a report: matplotlib figures as SVG that follows the colours of the page."""
