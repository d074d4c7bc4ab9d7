"""Reports on a run, made from its folder and receipt alone.

The files:

    summary     the lines that are printed when a run is finished
    curves      the plot of its loss
    diagnosis   the reasons why a run failed, or why its loss is not below the unigram baseline
"""
