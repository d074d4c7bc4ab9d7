"""Reports on a run, made from its folder and receipt alone, and pages that show runs, tables, data and plans.

The files and rooms:

    summary     the lines that are printed when a run is finished
    diagnosis   the reasons why a run failed, or why its loss is not below the unigram baseline
    make        the page of what is asked for, whose parts `parts` makes by these rooms:
    reading/    what lies in folders, as values
    sections/   what a page shows of it, as blocks of text and numbers
    page/       blocks as one HTML file
    pictures/   matplotlib figures for it
"""
