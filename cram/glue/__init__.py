"""GLUE: fine-tune a checkpoint on its tasks, score it by the published rules, and keep the fine-tuned models.

The words of this package:

    task            one of the nine of GLUE (`tasks.py`): CoLA, SST-2, ..., WNLI
    subset          the part of a task's dev and test sets that has its own score; MNLI has two subsets, others one
    example         one line of a task's files: one or two sentences, and a label
    split           some examples of a task: its training set, or the dev or test set of a subset (`splits.py`)
    nine scores     the scores that the published mean is taken over: MNLI's two, and those of seven other tasks
    job             one fine-tuning: task, learning rate and seed, from the checkpoint or from random weights
    outcome         the entry of a finished job in `glue.json`: scores, loss, and hashes of its training data
    results         computed from all outcomes: medians, the mean of nine, comparisons, rules
    protocol        the published settings that the results are compared under
"""
