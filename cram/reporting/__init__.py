"""Reports on a run, made from its folder and receipt alone.

summary     what is printed when a run is finished
curves      the plot of its loss
diagnosis   why a run failed, or has a loss that is not below the unigram baseline
"""
