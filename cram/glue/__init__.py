"""GLUE: fine-tune a checkpoint on its tasks, score it by the published rules, and keep the fine-tuned models.

The words of this package:

    task            one of the nine of GLUE (`tasks.py`): CoLA, SST-2, ..., WNLI
    subset          the dev and test examples of a task that have a score of their own; MNLI has two, the others one
    example         one line of a task's files: one or two sentences, and a label
    split           some examples of a task: its training set, or the dev or test set of a subset (`data.py`)
    nine scores     the scores that the published mean is taken over: MNLI's two, and those of seven other tasks
    job             one fine-tuning: task, learning rate and seed, from the checkpoint or from random weights
    outcome         what a finished job left in `glue.json`: scores, loss, and what it was trained on
    results         what all outcomes come to: medians, the mean of nine, comparisons, rules
    protocol        the published settings that the results are compared under
"""
