"""What run folders say, for people: summary, plots, diagnosis."""
