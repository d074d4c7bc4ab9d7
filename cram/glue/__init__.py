"""GLUE: fine-tune a checkpoint on its tasks, score it by the published rules, hand the models on."""
